"""Refusals in the log: a line each, and one for a flood."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import ConnectionRefusedByPeer, Peer
from heartline._summaries import FIRST_PERIOD, LINES
from heartline.server._refusals import REASON_SIZE
from tests.opening import open_stream

from ..connection.helpers import settle


class Refusals(logging.Filter):
    """Leaves out the lines of beginnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.module in ("_refusals", "_summaries")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level(logging.INFO, "heartline.server")
    with caplog.filtering(Refusals()):
        yield caplog


def deny(peer: Peer) -> None:
    raise PermissionError(peer.credentials)


async def knock(url: str, credentials: object = "no") -> None:
    with pytest.raises(ConnectionRefusedByPeer):
        async with heartline.open_connection(url, credentials=credentials):
            pass


async def test_a_wrong_password_is_a_line_with_address_and_reason(log: pytest.LogCaptureFixture) -> None:
    async with heartline.open_server("tcp://127.0.0.1:0", authenticate=deny) as server:
        await knock(server.urls[0], "the password is wrong")
    (record,) = log.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("refused 127.0.0.1:")
    assert record.getMessage().endswith(": the password is wrong")
    assert record.exc_info is None


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[2J", "\u202edesrever", "a" * 5000, "\ud800"])
async def test_a_line_stays_one(text: str, log: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    def repeat(peer: Peer) -> None:
        raise PermissionError(text)

    async with heartline.open_server("memory://", authenticate=repeat) as server:
        await knock(server.urls[0])
    (record,) = log.records
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) <= 10 * REASON_SIZE


async def test_who_just_leaves_is_counted_and_not_logged(
    log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """A load balancer that looks whether the port is there does so every few seconds."""
    async with heartline.open_server("memory://") as server:
        await (await open_stream(server.urls[0])).aclose()
        await settle()
        assert server.statistics().refused == 1
    assert not log.records


async def test_a_flood_is_summed_up(log: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", authenticate=deny) as server:
        for _ in range(3 * LINES):
            await knock(server.urls[0])
        assert len(log.records) == LINES
        await trio.sleep(FIRST_PERIOD + 1)
        assert len(log.records) == LINES + 1
        assert (
            log.records[-1].getMessage() == f"refused {2 * LINES} more in 1 min: {2 * LINES} UNAUTHENTICATED"
        )
        await knock(server.urls[0])
        assert server.statistics().refused == 3 * LINES + 1
    assert log.records[-1].getMessage() == "refused 1 more in 1 s: 1 UNAUTHENTICATED", (
        "at the end of the server at the latest"
    )


async def test_at_debug_each_has_its_line(log: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    log.set_level(logging.DEBUG, "heartline.server")
    async with heartline.open_server("memory://", authenticate=deny) as server:
        for _ in range(3 * LINES):
            await knock(server.urls[0])
    told = [record.levelno for record in log.records if "more" not in record.getMessage()]
    assert told == [logging.INFO] * LINES + [logging.DEBUG] * 2 * LINES


async def test_a_flood_of_bugs_is_none_of_tracebacks(
    log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """Whoever finds credentials that ``authenticate`` stumbles over must not fill the log with them."""

    def bug(peer: Peer) -> str:
        return peer.credentials["user"]  # type: ignore[no-any-return]

    async with heartline.open_server("memory://", authenticate=bug) as server:
        for _ in range(2 * LINES):
            await knock(server.urls[0], 5)
    assert sum(record.exc_info is not None for record in log.records) == LINES
    assert log.records[0].levelno == logging.ERROR
    assert log.records[-1].levelno == logging.ERROR
    assert log.records[-1].getMessage().endswith(f"for errors here: {LINES} INTERNAL_ERROR")
