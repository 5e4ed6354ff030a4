from __future__ import annotations

import re

import pytest

from tests.examples.programs import changed, command, leave_early, run

pytestmark = pytest.mark.slow


def test_nothing_is_missed_when_the_line_is_cut() -> None:
    result = run(command("ticker.py"))
    assert result.stderr == ""
    assert result.returncode == 0
    offsets = [int(offset) for offset in re.findall(r"^tick +(\d+):", result.stdout, re.MULTILINE)]
    assert offsets == list(range(1, 31))
    notes = [line for line in result.stdout.splitlines() if line.startswith("---")]
    assert re.fullmatch(
        r"--- the line was cut after tick 10\n"
        r"--- the subscriber lost its link: .*\n"
        r"--- the line was mended after tick 20\n"
        r"--- the subscriber has a new link, and goes on where it was",
        "\n".join(notes),
    )
    # What was published while the line was dead did come, and did come late.
    assert len(re.findall(r"^tick +\d+: .* late\)$", result.stdout, re.MULTILINE)) >= 5
    assert result.stdout.endswith("\n30 ticks published, 30 received, missed: none\n")


def test_a_reader_that_has_seen_enough() -> None:
    leave_early(command("ticker.py"))


def test_the_command_line() -> None:
    result = run(command("ticker.py", "--help"))
    assert result.returncode == 0
    assert "misses nothing" in result.stdout
    assert "\nexamples:\n  python examples/ticker.py " in result.stdout
    result = run(command("ticker.py", "--fast"))
    assert result.returncode == 2
    assert "unrecognized arguments: --fast" in result.stderr


def test_it_fails_when_the_session_is_not_kept_and_the_history_is_too_short() -> None:
    change = (
        "ticker.HISTORY = ticker.heartline.History(count=3); ticker.INTERVAL = 0.02; "
        "ticker.LIMITS = ticker.heartline.Limits(resume_window=0)"
    )
    result = run(changed("ticker", change))
    assert result.returncode == 1
    assert result.stderr == ""
    assert re.search(r"^--- ticks 10 to \d+ are gone for good$", result.stdout, re.MULTILINE)
    assert re.search(r"^30 ticks published, \d+ received, missed: \[10, 11, ", result.stdout, re.MULTILINE)
