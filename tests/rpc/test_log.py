"""What the log says of methods: who raised and who held everything up, however often that happens."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import CallError, Observer, Operation, service
from heartline._summaries import FIRST_PERIOD, LINES
from heartline.observe import Proceed
from heartline.rpc._log import STALL
from tests.rpc.helpers import open_pair


@service(name="%s 100%d")
class Bad:
    """Its name is no format."""

    def __init__(self, clock: MockClock | None = None) -> None:
        self.clock = clock

    def value(self) -> None:
        raise ValueError("no")

    def key(self, which: bool) -> None:
        raise KeyError if which else TypeError

    async def task(self) -> None:
        raise ValueError("no")

    def fine(self) -> int:
        return 1

    def block(self, seconds: float) -> float:
        assert self.clock is not None
        self.clock.jump(seconds)
        return seconds

    def block_and_raise(self) -> None:
        self.block(2 * STALL)
        raise ValueError("no")

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[logging.LogRecord]:
    return [r for r in caplog.records if r.name == "heartline.rpc" and r.levelno == level]


async def fail(call: Callable[..., Awaitable[Any]], *args: Any) -> None:
    with pytest.raises(CallError):
        await call(*args)


async def test_the_first_have_their_tracebacks_and_the_rest_a_line(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_pair(Bad()) as (client, _):
        bad = client.service("%s 100%d")
        await fail(bad.value)
        (line,) = lines(caplog)
        assert line.getMessage() == "%s 100%d.value raised ValueError"
        assert line.exc_info is not None
        for _ in range(10 * LINES):
            await fail(bad.value)
        assert len(lines(caplog)) == LINES
        await fail(bad.task)
        assert lines(caplog)[-1].getMessage() == "%s 100%d.task raised ValueError", "each method has its own"
        await trio.sleep(FIRST_PERIOD + 1)
        count = 9 * LINES + 1
        assert lines(caplog)[-1].getMessage() == (
            f"%s 100%d.value raised {count} more in 1 min: {count} ValueError"
        )
        assert len(lines(caplog)) == LINES + 2


async def test_the_summary_tells_kinds_and_comes_at_the_end_at_the_latest(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_pair(Bad()) as (client, _):
        for number in range(LINES + 5):
            await fail(client.service("%s 100%d").key, number % 2 == 0)
        assert len(lines(caplog)) == LINES
    assert lines(caplog)[-1].getMessage() == "%s 100%d.key raised 5 more in 1 s: 3 KeyError, 2 TypeError"


async def test_at_debug_each_has_its_line(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.DEBUG, "heartline.rpc")
    async with open_pair(Bad()) as (client, _):
        for _ in range(3 * LINES):
            await fail(client.service("%s 100%d").value)
    assert len(lines(caplog, logging.DEBUG)) == 2 * LINES


async def test_a_client_that_serves_does_the_same(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_pair(client_services=[Bad()]) as (_, server):
        for _ in range(2 * LINES):
            await fail(server.service("%s 100%d").value)
    assert len(lines(caplog)) == LINES + 1


async def through(_operation: Operation, proceed: Proceed) -> Any:
    return await proceed()


class Told(Observer):
    def call_served(self, name: str, seconds: float, error: BaseException | None) -> None:
        pass


@pytest.mark.parametrize(
    "hooks", [{}, {"middleware": [through]}, {"observers": [Told()]}], ids=["bare", "middleware", "observers"]
)
async def test_a_method_that_blocks_the_loop_is_named_with_its_time(
    hooks: dict[str, Any], caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with (
        heartline.open_server("memory://", services=[Bad(autojump_clock)], **hooks) as server,
        heartline.open_connection(server.urls[0]) as client,
    ):
        bad = client.service("%s 100%d")
        await bad.fine()
        await bad.block(STALL)
        await bad.sleep(10 * STALL)
        assert not lines(caplog)
        await bad.block(2.25)
        (line,) = lines(caplog)
        assert line.getMessage() == (
            "%s 100%d.block blocked the event loop for 2.2 s: nobody was served meanwhile; give it "
            "@heartline.method(thread=True)"
        )
        await fail(bad.block_and_raise)
        assert [line.getMessage().partition(":")[0] for line in lines(caplog)[1:]] == [
            "%s 100%d.block_and_raise blocked the event loop for 1.0 s",
            "%s 100%d.block_and_raise raised ValueError",
        ]
        for _ in range(2 * LINES):
            await bad.block(0.6)
        await trio.sleep(FIRST_PERIOD + 1)
    assert f"%s 100%d.block blocked the event loop {LINES + 1} more in" in lines(caplog)[-1].getMessage()
    assert len(lines(caplog)) == LINES + 3
