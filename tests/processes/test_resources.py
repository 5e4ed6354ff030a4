"""What a server holds: nothing of clients that have gone, however they went, and no more memory with time."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import heartline
from heartline import Backoff, Connection, ConnectionState, Limits
from tests.engine import link_of
from tests.opening import open_stream

from ._process import Program, start, until, url_to_listen

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc"),
]

MIB = 1024 * 1024

NEVER = Backoff(initial=1e6, maximum=1e6)
AT_ONCE = Backoff(initial=0.001, maximum=0.001)

SHORT = Limits(resume_window=0.3)
"""For those who do not want to come back."""

serve = partial(start, "server", patient=True)


async def cut(connection: Connection) -> None:
    """Reset the link from here, as a network does, and wait until that is known."""
    stream = link_of(connection).stream
    assert isinstance(stream, trio.SocketStream)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)
    while connection.state is ConnectionState.OPEN:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def busy(url: str, **settings: Any) -> AsyncIterator[Connection]:
    """A connection with a call in progress, a channel and a subscription."""
    async with (
        heartline.open_connection(url, **settings) as connection,
        trio.open_nursery() as nursery,
        connection.subscribe("entries"),
    ):
        nursery.start_soon(connection.service("Ledger").hold, "x")
        channel = await connection.open_channel("echo")
        await channel.send(b"x")
        assert await channel.receive() == b"x"
        yield connection
        nursery.cancel_scope.cancel()


async def leave(url: str, **settings: Any) -> None:
    """Come, and leave as one should."""
    async with busy(url, **settings):
        pass


async def vanish(url: str) -> None:
    """Come, and be gone without a word: the session ends with its window."""
    async with busy(url, reconnect=NEVER, limits=SHORT) as connection:
        await cut(connection)


async def come_and_go(url: str) -> None:
    """Come back after two losses, vanish, and be replaced by a newcomer, who leaves."""
    async with busy(url, reconnect=AT_ONCE) as connection:
        for _ in range(2):
            await cut(connection)
            await connection.service("Ledger").notes()
        assert connection.statistics().resumed == 2
        await cut(connection)
    await leave(url, identity=connection.id)


async def knock(url: str) -> None:
    """Connect, and begin a handshake that one never ends."""
    async with await open_stream(url) as stream:
        await stream.send_all(b"\0\0")
        while await stream.receive_some():
            pass


async def many(function: Any, count: int, url: str) -> None:
    """Let so many do this, ten at a time."""
    limit = trio.CapacityLimiter(10)

    async def one() -> None:
        async with limit:
            await function(url)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


async def held(server: Program, watch: Any) -> tuple[int, int]:
    """Descriptors and tasks of a server, when nobody else is there any more."""

    async def alone() -> bool:
        look = await watch.look()
        return len(look["connections"]) == 1 and not look["handshaking"] and not look["held"]

    await until(alone)
    return server.descriptors, (await watch.look())["tasks"]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_nothing_is_left_of_those_who_have_gone(kind: str, tmp_path: Path) -> None:
    async with serve(url=url_to_listen(kind, tmp_path)) as server:
        url = await server.read("url")
        async with heartline.open_connection(url) as own:
            watch = own.service("Watch")
            await leave(url)
            descriptors, tasks = await held(server, watch)
            async with trio.open_nursery() as nursery:
                for function in (leave, vanish, come_and_go, knock):
                    nursery.start_soon(many, function, 10, url)
                nursery.start_soon(_kill_one, url)

            async def as_before() -> bool:
                now = await held(server, watch)
                # A task sums up the lines of the log about those who came, and one those about refusals.
                return now[0] <= descriptors and now[1] <= tasks + 2

            await until(as_before)
            assert (await watch.look())["subscribers"] == []
            assert (await watch.look())["accepted"] == 43


async def _kill_one(url: str) -> None:
    async with start("client", url=url, name="ann", patient=True, limits={"resume_window": 0.3}) as client:
        await client.read("opened")
        await client.kill()


async def test_memory_does_not_grow_over_churn(tmp_path: Path) -> None:
    async with serve(url=url_to_listen("tcp", tmp_path)) as server:
        url = await server.read("url")
        async with heartline.open_connection(url) as own:
            watch = own.service("Watch")
            await many(come_and_go, 100, url)
            await held(server, watch)
            before = server.memory
            await many(come_and_go, 250, url)
            await held(server, watch)
            # Five hundred sessions on a thousand links: were they kept, it would be twice as much.
            assert server.memory - before < 2 * MIB
