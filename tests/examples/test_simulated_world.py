from __future__ import annotations

import re

import pytest

from tests.examples.programs import Terminal, command, leave_early, run

pytestmark = pytest.mark.slow


def test_the_promise_holds_in_every_world() -> None:
    result = run(command("simulated_world.py"))
    assert result.stderr == ""
    assert result.returncode == 0
    rows = re.findall(r"^ +(\d+) +[\d.]+ s +\d+ +\d+ +\d+ +30$", result.stdout, re.MULTILINE)
    assert list(map(int, rows)) == list(range(1, 51))
    assert result.stdout.endswith("\n50 worlds, the promise was kept in 50\n")


def test_a_planted_bug_is_found_and_seen_again() -> None:
    result = run(command("simulated_world.py", "--bug"))
    assert result.stderr == ""
    assert result.returncode == 1
    found = re.findall(r"^ +(\d+)  FAILED: (.*)$", result.stdout, re.MULTILINE)
    assert f"the promise was kept in {50 - len(found)}\n" in result.stdout
    assert 0 < len(found) < 50
    seed, message = found[0]
    assert re.fullmatch(r"client\d-\d was answered, and counted \d times", message)

    again = run(command("simulated_world.py", "--bug", seed))
    assert again.returncode == 1
    assert again.stderr == ""
    assert message in again.stdout
    assert f"seed {seed}, " in again.stdout
    assert run(command("simulated_world.py", seed)).stdout == "30 visitors were counted, each of them once\n"


def test_ctrl_c() -> None:
    with Terminal(command("simulated_world.py")) as terminal:
        terminal.read_until("   3 ")
        terminal.type("\x03")
        assert terminal.wait() == 130
    assert terminal.output.rstrip().endswith("interrupted")
    assert "Traceback" not in terminal.output
    assert "fails in the same way" not in terminal.output


@pytest.mark.parametrize("arguments", [[], ["--bug"], ["1"]])
def test_a_reader_that_has_seen_enough(arguments: list[str]) -> None:
    leave_early(command("simulated_world.py", *arguments), lines=0 if arguments == ["1"] else 1)


def test_the_command_line() -> None:
    result = run(command("simulated_world.py", "--help"))
    assert result.returncode == 0
    assert "counts visitors" in result.stdout
    assert "\n  python examples/simulated_world.py --bug 5 " in result.stdout
