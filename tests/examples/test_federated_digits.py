"""The demo: its parts here in this process, then the whole program with its learners' processes."""

from __future__ import annotations

import importlib
import io
import os
import re
import signal
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from heartline.federated import RoundReport
from tests.examples.programs import (
    EXAMPLES,
    Terminal,
    changed,
    children,
    command,
    is_alive,
    run,
    wait_until,
)
from tests.patience import PATIENCE

slow = pytest.mark.slow


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("federated_digits")


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("_progress")


def report(number: int, *, dropped: bool = False, trained: bool = True) -> RoundReport:
    return RoundReport(
        round=number,
        cohort=("a", "b"),
        samples={"a": 10} | ({"b": 5} if trained and not dropped else {}),
        metrics={},
        learner_metrics={},
        dropped={"b": "its link broke"} if dropped else {},
        seconds=0.25,
        receipt=None,
    )


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([report(1), report(2, dropped=True), report(3, trained=False), report(4), report(5)], (2, 4)),
        ([report(1), report(2), report(3)], "b was killed and started again, but was missing in no round"),
        ([report(1), report(2, dropped=True), report(3, trained=False)], "did not train again after round 2"),
    ],
)
def test_the_accident_is_looked_for(demo: ModuleType, reports: list[RoundReport], expected: object) -> None:
    points = [demo.Point(each, 0.5) for each in reports]
    if isinstance(expected, str):
        with pytest.raises(demo.DemoFailed, match=expected):
            demo.find_accident(points, "b")
    else:
        assert demo.find_accident(points, "b") == expected


def test_a_picture_that_cannot_be_written(demo: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(demo.DemoFailed, match=f"cannot be written to {tmp_path}: "):
        demo.draw([demo.Point(report(1), 0.5)], 0.1, {}, tmp_path)


def test_plain_lines(progress: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.make_progress(2) as lines:  # the output is no terminal here
        lines.add_round(report(1), 0.5)
        lines.tell("b is killed")
        lines.add_round(report(2, dropped=True), 1.0)
    assert capsys.readouterr().out.splitlines() == [
        "round  1: accuracy  50.0%, 2 learners, 0.25 s",
        "b is killed",
        "round  2: accuracy 100.0%, 1 learners, 0.25 s, dropped b: its link broke",
    ]


def test_the_table_fits_into_the_terminal_while_it_grows(progress: ModuleType) -> None:
    """A live table that is higher than the terminal would hide the newest rounds."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=24, legacy_windows=False)
    with progress.LiveTable(console, 40) as table:
        for number in range(1, 41):
            table.add_round(report(number, dropped=number == 30), 0.9)
            if number % 10 == 0:
                table.tell(f"event {number}")
        frame = console.render_lines(table._draw(24 - progress.FRAME_HEIGHT - 4))
        assert len(frame) == 24
        text = ["".join(segment.text for segment in line).strip() for line in frame]
        assert text[0] == "round 40 of 40"
        assert re.match(r"│ +40 │ █+[▉-▏]? +│ 90.0% │ +2 │", text[-6])
        assert text[-1] == "• event 40"
        assert file.getvalue().count("event 40") == 1
        assert "..." not in file.getvalue()
    final = file.getvalue().rpartition("round 40 of 40")[2]
    assert re.findall(r"│ +(\d+) │ █", re.sub(r"\x1b\[[0-9;]*m", "", final)) == [str(n) for n in range(1, 41)]


@slow
def test_the_whole_demo(tmp_path: Path) -> None:
    picture = tmp_path / "new" / "curve.png"
    result = run(command("federated_digits.py", "--output", str(picture)))
    assert result.stderr == ""
    assert result.returncode == 0
    out = result.stdout
    learners = re.findall(r"^round +(\d+): accuracy +[\d.]+%, (\d) learners", out, re.MULTILINE)
    assert [int(number) for number, _ in learners] == list(range(1, 21))
    counts = [int(count) for _, count in learners]
    assert counts[:12] == [6] * 8 + [5] * 4
    assert counts[16:] == [6] * 4
    killed = re.search(r"^(learner-\d) is killed: SIGKILL to process \d+$", out, re.MULTILINE)
    assert killed is not None
    victim = killed[1]
    for line in (
        rf"{victim} is lost: .+",
        rf"round  9: .*, dropped {victim}: .+",
        rf"{victim} is started again",
        rf"{victim} has returned",
        rf"{victim} was killed, round 9 went on without it; since round 1[3-7] it trains again",
        rf"learning curve: {picture}",
    ):
        assert re.search(f"^{line}$", out, re.MULTILINE), line
    accuracy = re.search(r"held-out accuracy after 20 rounds: ([\d.]+)%, in [\d.]+ s\n$", out)
    assert accuracy is not None
    assert float(accuracy[1]) >= 93
    assert picture.read_bytes().startswith(b"\x89PNG")


@slow
def test_on_a_terminal_with_a_model_that_is_not_good_enough(tmp_path: Path) -> None:
    picture = tmp_path / "curve.png"
    arguments = ("--learners", "2", "--rounds", "5", "--output", str(picture))
    with Terminal(changed("federated_digits", "federated_digits.GOOD = 1.01", *arguments)) as terminal:
        assert terminal.wait() == 1
    assert "round 5 of 5" in terminal.output
    assert "• learner-" in terminal.output
    assert "the demo failed: the accuracy should be at least 101%" in terminal.output
    assert "Traceback" not in terminal.output
    # The learning curve is drawn all the same: it shows what was wrong.
    assert picture.exists()


@slow
@pytest.mark.parametrize("moment", ["the learners are starting", "round 2 of 500"])
def test_ctrl_c(moment: str) -> None:
    with Terminal(command("federated_digits.py", "--learners", "2", "--rounds", "500")) as terminal:
        terminal.read_until(moment)
        wait_until(lambda: len(children(terminal.process.pid)) == 2)
        learners = children(terminal.process.pid)
        # The terminal sends the signal to the demo's process group, and ending the learners is its business.
        assert all(os.getpgid(learner) != terminal.process.pid for learner in learners)
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert not any(map(is_alive, learners))
    assert terminal.output.rstrip().endswith("interrupted")
    assert "Traceback" not in terminal.output
    assert "failed" not in terminal.output
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l"), "the cursor is hidden"


@slow
def test_a_learner_that_ends_by_itself() -> None:
    arguments = command("federated_digits.py", "--learners", "2", "--rounds", "500")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        learners = read_until_round_2(process)
        os.kill(min(learners), signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert re.fullmatch(r"the demo failed: learner-[12] ended by itself with code -15: \n", errors)
    assert not any(map(is_alive, learners))


@slow
def test_learners_end_by_themselves_when_the_trainer_is_killed() -> None:
    arguments = command("federated_digits.py", "--learners", "2", "--rounds", "500")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        learners = read_until_round_2(process)
        process.kill()
    wait_until(lambda: not any(map(is_alive, learners)))


def read_until_round_2(process: subprocess.Popen[str]) -> set[int]:
    """Read the demo's lines up to that one; returns the learners' process ids."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("round  2:"):
            learners = children(process.pid)
            assert len(learners) == 2
            return learners
    raise AssertionError("the demo ended before its second round")


@slow
def test_the_command_line(tmp_path: Path) -> None:
    result = run(command("federated_digits.py", "--help"))
    assert result.returncode == 0
    assert "python examples/federated_digits.py --learners 10" in result.stdout
    result = run(command("federated_digits.py", "--rounds", "4"))
    assert result.returncode == 2
    assert "--rounds must be at least 5 to have an accident and recover, not 4" in result.stderr
