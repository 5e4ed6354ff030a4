from __future__ import annotations

import importlib
import re
import subprocess
from functools import cache
from types import ModuleType

import pytest

from tests.examples.programs import EXAMPLES, Terminal, changed, command, leave_early, run

pytestmark = pytest.mark.slow

VERDICT = "nothing was lost in "


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("chaos")


@cache
def outcome(seed: int) -> subprocess.CompletedProcess[str]:
    """What this seed brings; a run of it takes seconds, so the tests share one."""
    return run(command("chaos.py", "--fast", "--seed", str(seed)))


def counters(output: str) -> dict[str, list[int]]:
    """The rows of the summary: begun, ended, missing, twice."""
    rows = re.findall(r"^(\w+) +(\d+) +(\d+) +(\d+) +(\d+)  ", output, re.MULTILINE)
    return {what: [int(number) for number in numbers] for what, *numbers in rows}


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_and_the_seed_shows_it_again(seed: int) -> None:
    result = outcome(seed)
    assert result.stderr == ""
    assert result.returncode == 0
    assert f"\n{VERDICT}" in result.stdout
    assert result.stdout.endswith(f"--seed {seed} --faults 30\n")
    assert not re.search(r" $", result.stdout, re.MULTILINE)
    assert "\n30 faults: " in result.stdout
    for event in ("crashes", "starts again", "reset", "partition", "half open", "resumes its session"):
        assert event in result.stdout, event
    rows = counters(result.stdout)
    assert list(rows) == ["calls", "orders", "updates", "messages", "rounds"]
    for begun, ended, missing, twice in rows.values():
        assert begun == ended > 0
        assert missing == twice == 0
    assert rows["updates"][0] == 3 * rows["orders"][0] > 100
    assert run(command("chaos.py", "--fast", "--seed", str(seed))).stdout == result.stdout


def test_a_history_that_is_too_short_loses_updates() -> None:
    change = "import _chaos_nodes as nodes; nodes.HISTORY = nodes.heartline.History(count=1)"
    result = run(changed("chaos", change, "--fast", "--seed", "7"))
    assert result.stderr == ""
    assert result.returncode == 1
    _, _, missing, twice = counters(result.stdout)["updates"]
    assert missing > 0
    assert twice == 0
    assert re.search(
        rf"^LOST: {missing} of \d+ updates are missing\nsomething was lost", result.stdout, re.MULTILINE
    )
    assert VERDICT not in result.stdout


def test_a_hub_that_does_not_know_a_repeated_order_publishes_it_twice() -> None:
    change = "import _chaos_nodes as nodes; nodes.HISTORY = nodes.heartline.History(keys=1)"
    result = run(changed("chaos", change, "--fast", "--seed", "7", "--faults", "60"))
    assert result.returncode == 1
    assert re.search(r"^LOST: \d+ of \d+ updates happened twice$", result.stdout, re.MULTILINE)


def test_a_world_without_faults() -> None:
    result = run(command("chaos.py", "--fast", "--faults", "0"))
    assert result.returncode == 0
    assert "\n0 faults: none\nsessions: 6 begun, 0 lost their link, 0 resumed\n" in result.stdout
    assert result.stdout.splitlines()[-2].startswith(VERDICT)


def test_on_a_terminal_the_world_is_the_same() -> None:
    with Terminal(command("chaos.py", "--fast", "--seed", "1")) as terminal:
        assert terminal.wait() == 0
    screen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.output)
    assert "second 12 of the world, seed 1: in trouble" in screen
    assert re.search(r"^ +begun +ended +open +twice", screen, re.MULTILINE), "the table is too wide"
    summary = screen.replace("\r", "").rpartition("begun  ended  missing")[2]
    assert counters(summary) == counters(outcome(1).stdout)
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l"), "the cursor is hidden"


@pytest.mark.parametrize("moment", ["second 0 of the world", "second 20 of the world"])
def test_ctrl_c(moment: str) -> None:
    with Terminal(command("chaos.py")) as terminal:
        terminal.read_until(moment)
        terminal.type("\x03")
        assert terminal.wait() == 130
    # The seed was drawn, and has gone with the screen.
    assert re.search(r"interrupted; --seed \d+ --faults 30 shows it again\s*$", terminal.output)
    assert "Traceback" not in terminal.output
    assert "lost in" not in terminal.output
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l"), "the cursor is hidden"


@pytest.mark.parametrize("width", [10, 30, 60, 80, 100])
def test_the_summary_breaks_after_commas_only(chaos: ModuleType, width: int) -> None:
    items = [f"{count} × {kind}" for count, kind in enumerate(chaos.KINDS, 1)]
    lines = chaos.fold("28 faults:", items, width).split("\n")
    assert " ".join(line.strip() for line in lines) == "28 faults: " + ", ".join(items)
    for line in lines:
        assert line == line.rstrip()
        assert len(line) <= width or line.strip(" ,") in items
    for line in lines[1:-1]:
        assert line.endswith(",")


def test_on_a_narrow_terminal_the_command_can_be_copied() -> None:
    with Terminal(command("chaos.py", "--fast", "--seed", "1", "--faults", "5"), width=40) as terminal:
        assert terminal.wait() == 0
    assert "\nthe same again: python examples/chaos.py --seed 1 --faults 5\r" in terminal.output


def test_a_reader_that_has_seen_enough() -> None:
    leave_early(command("chaos.py", "--fast", "--seed", "1"))


def test_the_command_line() -> None:
    result = run(command("chaos.py", "--help"))
    assert result.returncode == 0
    assert "python examples/chaos.py --seed 7 --faults 100" in result.stdout
    result = run(command("chaos.py", "--faults", "1001"))
    assert result.returncode == 2
    assert "--faults must be from 0 to 1000, not 1001" in result.stderr
