"""The fuzz runner: it counts, ends in time, shows what failed, keeps it, and says so with its status."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.database import InMemoryExampleDatabase

from fuzz.__main__ import main
from fuzz.properties import codec
from fuzz.runner import TARGETS, properties_of, run
from tests.patience import PATIENCE

ROOT = Path(__file__).parent.parent


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fuzz", *arguments]


@pytest.mark.slow
def test_a_target_runs_for_its_time_and_counts() -> None:
    done = subprocess.run(command("codec", "--minutes", "0.02"), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for prop in properties_of(codec):
        assert re.search(rf"^{prop.__name__} +[\d,]+ +[\d.]+ s +[\d,]+ / s$", done.stdout, re.MULTILINE)
    total = re.search(r"^total: all held +([\d,]+) +([\d.]+) s", done.stdout, re.MULTILINE)
    assert total
    assert int(total[1].replace(",", "")) >= 100
    assert float(total[2]) >= 1.2


@pytest.mark.slow
def test_an_interrupt_ends_it_with_the_counts() -> None:
    running = subprocess.Popen(
        command("codec", "--minutes", "60"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever started the tests in the background made them, and so their children, deaf to it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == f"{len(properties_of(codec))} properties, 3600 s\n"
        running.send_signal(signal.SIGINT)
        out, error = running.communicate(timeout=PATIENCE)
    finally:
        running.kill()
    assert running.returncode == 130, error
    assert re.search(r"^total: interrupted +[\d,]+ ", out, re.MULTILINE)
    assert "Traceback" not in error


def test_a_failing_property_is_shown_and_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    tried: list[int] = []

    @settings(max_examples=50, database=InMemoryExampleDatabase(), print_blob=True)
    @given(st.integers())
    def small_numbers_only(number: int) -> None:
        tried.append(number)
        assert number < 100

    @settings(max_examples=50, database=None)
    @given(st.integers())
    def always(number: int) -> None:
        pass

    assert run([always, small_numbers_only, always], seconds=30) == 1
    printed = capsys.readouterr()
    assert re.search(r"small_numbers_only\(\s*number=100,?\s*\)", printed.err)
    assert "@reproduce_failure" in printed.err
    assert re.search(r"^always +50 ", printed.out, re.MULTILINE)
    assert re.search(r"^always +0 ", printed.out, re.MULTILINE)
    assert "total: FAILED" in printed.out

    # The tests find what the run has kept, and try it first.
    tried.clear()
    with pytest.raises(AssertionError):
        small_numbers_only()
    assert tried[0] == 100


def _inner_test(test: Any) -> Any:
    return test.hypothesis.inner_test


def test_properties_that_hold_end_it_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[bool] = []

    @settings(max_examples=5, database=None)
    @given(st.booleans())
    def always(flag: bool) -> None:
        ran.append(flag)

    inner = _inner_test(always)
    assert run([always], seconds=0.05) == 0
    assert re.search(rf"^total: all held +{len(ran):,} ", capsys.readouterr().out, re.MULTILINE)
    assert _inner_test(always) is inner


def test_a_time_that_is_over_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(properties_of(codec), seconds=0) == 0
    assert re.search(r"^total: all held +0 ", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        [],
        ["codec", "--minutes", "0"],
        ["codec", "--minutes", "soon"],
        ["codec", "--minutes", "nan"],
    ],
)
def test_wrong_arguments_end_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert arguments != ["nonsense"] or all(target in printed for target in TARGETS)
    if "--minutes" in arguments:
        assert f"argument --minutes: must be a number of minutes above 0, not {arguments[-1]!r}" in printed


def test_help_shows_targets_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "python -m fuzz codec " in printed
    assert all(target in printed for target in TARGETS)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_target_has_properties(target: str) -> None:
    for module in TARGETS[target]:
        assert properties_of(__import__(module, fromlist=["*"]))
