"""The harness itself: a broken peer is an error, no process is left, and ratios point the right way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks._delays import figures
from tests.benchmarks._process import Child, PeerFailed
from tests.benchmarks._report import ratios
from tests.benchmarks._sockets import MARKER, MESSAGE_SIZE, messages


def answer(report: Callable[[object], None], value: object) -> None:
    """Run in a child: report the value and its process id, then stay."""
    report([value, os.getpid()])
    time.sleep(60)


def fail(report: Callable[[object], None]) -> None:
    """Run in a child."""
    raise ValueError("not today")


def test_ratios_are_above_one_where_heartline_is_better() -> None:
    rates = {"heartline@1": 10.0, "heartline@64": 300.0, "grpcio@1": 5.0, "grpcio@64": 600.0}
    assert ratios(rates, more_is_better=True) == {"grpcio@1": 2.0, "grpcio@64": 0.5}
    assert ratios({"heartline": 4.0, "bare": 8.0}, more_is_better=False) == {"bare": 2.0}


def test_no_ratio_without_heartline() -> None:
    assert ratios({"bare": 8.0, "grpcio": 2.0}, more_is_better=True) == {}


def test_delays_are_in_milliseconds_and_rates_in_megabytes() -> None:
    found = figures(10**6, 50, 2.0, call=[n / 1000 for n in range(100, -1, -1)])
    assert found == {"rate": 25.0, "call median": 50.0, "call p99": 99.0}


def test_only_the_last_message_carries_the_marker() -> None:
    sent = messages(5)
    assert {len(message) for message in sent} == {MESSAGE_SIZE}
    assert [MARKER in message for message in sent] == [False] * 4 + [True]


@pytest.mark.slow
def test_a_child_reports_and_is_gone_after_the_block() -> None:
    with Child(__name__, "answer", 7) as child:
        value, process = child.receive()
        assert value == 7
        os.kill(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.slow
def test_a_failing_child_says_why() -> None:
    with Child(__name__, "fail") as child, pytest.raises(PeerFailed, match=r"(?s)exit code 1.*not today"):
        child.receive()


@pytest.mark.slow
def test_a_failing_child_ends_the_wait_for_another() -> None:
    with Child(__name__, "answer", 7) as waiting, Child(__name__, "fail") as failing:
        waiting.receive()
        with pytest.raises(PeerFailed, match="not today"):
            waiting.receive(failing)


@pytest.mark.slow
def test_silence_is_an_error() -> None:
    with Child(__name__, "answer", 7) as child:
        child.receive()
        with pytest.raises(PeerFailed, match=r"nothing for 0\.1 s"):
            child.receive(timeout=0.1)


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["rpc", "--peer", "flower"], ["all", "--peer", "nobody"]]
)
def test_an_unknown_scenario_or_peer_is_a_usage_error_that_lists_the_known(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert ("broadcast" if arguments == ["nonsense"] else "websockets") in capsys.readouterr().err
