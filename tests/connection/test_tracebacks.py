"""What a program prints that is left by the error of a lost session: where it called, and one line of why."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import Backoff, CallInterrupted, Connection, ConnectionFailed, HeartlineError
from heartline.wire import Frame, FrameType
from tests.engine import link_of

from .helpers import QUIET, RawPeer, listen

AGAIN = Backoff(initial=0.1, maximum=0.1, attempts=2)


async def say_goodbye(peer: RawPeer) -> None:
    await peer.goodbye(0, "done")
    await trio.aclose_forcefully(peer.stream)


async def break_rules(peer: RawPeer) -> None:
    await peer.send(Frame(FrameType.WELCOME))
    await peer.rest()
    await trio.aclose_forcefully(peer.stream)


async def break_off(peer: RawPeer) -> None:
    await trio.aclose_forcefully(peer.stream)


ENDS: dict[str, Callable[[RawPeer], Any]] = {
    "a goodbye": say_goodbye,
    "a broken rule": break_rules,
    "a broken link": break_off,
}


@asynccontextmanager
async def lost(how: str, reconnect: Backoff | None) -> AsyncIterator[Connection]:
    """A connection whose link ends in this way, in the middle of whatever the block does."""
    async with await listen("tcp://127.0.0.1:0") as listener, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def serve() -> None:
            peer = await RawPeer.admit(await listener.accept())
            await trio.sleep(0.1)
            await listener.aclose()
            await ENDS[how](peer)

        opening = heartline.open_connection(listener.url, reconnect=reconnect, rng=None, heartbeat=QUIET)
        async with opening as connection:
            yield connection


def lines(error: BaseException) -> list[str]:
    """The lines that name an error, as Python prints them."""
    printed = "".join(traceback.format_exception(error)).splitlines()
    return [line for line in printed if line.startswith("heartline.errors.") or "Error:" in line]


@pytest.mark.parametrize("how", ENDS)
async def test_a_call_in_progress(how: str) -> None:
    async with lost(how, None) as connection:
        with pytest.raises(CallInterrupted) as caught:
            await connection.service("Some").method()
    printed = traceback.format_exception(caught.value)
    assert sum("Traceback" in line for line in printed) == 1, "".join(printed)
    named = lines(caught.value)
    assert len(named) == 2
    assert named[0].partition(": ")[2] in named[1]


async def test_a_client_that_gives_up() -> None:
    async with lost("a broken link", AGAIN) as connection:
        with pytest.raises(ConnectionFailed, match="gave up") as caught:
            await connection.receive()
    assert sum("Traceback" in line for line in traceback.format_exception(caught.value)) == 1
    assert len(lines(caught.value)) == 2


async def test_a_link_that_breaks(autojump_clock: MockClock) -> None:
    """With the error of the system, and of the stream, below."""

    async def fail(*_: object) -> bytes:
        try:
            raise OSError(104, "Connection reset by peer")
        except OSError as error:
            raise trio.BrokenResourceError from error

    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        with pytest.raises(HeartlineError) as caught:
            async with heartline.open_connection(
                server.urls[0], reconnect=None, heartbeat=QUIET
            ) as connection:
                link_of(connection).stream.receive_some = fail  # type: ignore[method-assign, assignment]
                await connection.send("wake up")
                await server.broadcast("wake up")
                await connection.receive()
                await connection.service("Some").method()
    printed = traceback.format_exception(caught.value)
    assert "Connection reset by peer" in printed[-1]
    assert sum("Traceback" in line for line in printed) == 1, "".join(printed)
