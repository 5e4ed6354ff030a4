from __future__ import annotations

import re

import pytest

from tests.examples.programs import Terminal, children, command, is_alive, leave_early, run, wait_until

pytestmark = pytest.mark.slow

WRONG = r"Violation: job-\d was finished, and is to be done again"


def test_the_bug_is_found_and_told_and_the_mended_service_has_none() -> None:
    result = run(command("simulated_world.py"))
    assert result.stderr == ""
    assert result.returncode == 0
    found = re.match(rf"seed (\d+): {WRONG}\n", result.stdout)
    assert found is not None, result.stdout
    story, _, rest = result.stdout.partition("\nto see it again: ")
    assert re.search(r"^ +\d+\.\d+  server +jobs: job-\d is queued, and was finished$", story, re.MULTILINE)
    assert re.search(r"^ +\d+\.\d+  server +crashes", story, re.MULTILINE)
    assert rest == (
        f"python examples/simulated_world.py --seed {found[1]}\n\n"
        "with the mended version every finished job stayed finished; worlds: 40\n"
    )

    again = run(command("simulated_world.py", "--seed", found[1]))
    assert again.returncode == 1
    assert again.stderr == ""
    assert again.stdout.startswith(found[0])
    whole = again.stdout.partition("\nto see it again: ")[0].splitlines()
    assert {line for line in story.splitlines() if "…" not in line} <= set(whole)
    assert any(line.startswith("     0.000  server") for line in whole)

    mended = run(command("simulated_world.py", "--mended", "--seed", found[1]))
    assert mended.returncode == 0
    assert mended.stdout == "with the mended version every finished job stayed finished; worlds: 1\n"


def test_ctrl_c_leaves_nothing_behind() -> None:
    with Terminal(command("simulated_world.py")) as terminal:
        terminal.read_until("to see it again")
        wait_until(lambda: len(children(terminal.process.pid)) > 1)
        started = children(terminal.process.pid)
        terminal.type("\x03")
        assert terminal.wait() == 130
        wait_until(lambda: not any(map(is_alive, started)))
    assert terminal.output.rstrip().endswith("interrupted")
    assert "Traceback" not in terminal.output


def test_a_reader_that_has_seen_enough() -> None:
    leave_early(command("simulated_world.py", "--seed", "1"), lines=0)


def test_the_command_line() -> None:
    result = run(command("simulated_world.py", "--help"))
    assert result.returncode == 0
    assert "a finished job stays finished" in result.stdout
    assert "\n  python examples/simulated_world.py --seed 5 " in result.stdout
