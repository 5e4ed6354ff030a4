"""heartline: an upload on a channel, calls and PINGs beside it, all with the default settings."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import trio

import heartline
from tests.benchmarks._delays import PAUSE, figures
from tests.benchmarks.peers.heartline_ import Adder
from tests.engine import link_of

POLL_INTERVAL = 0.001
"""Seconds between looks whether a PONG has come; its time is known from the pulse."""

Report = Callable[[object], None]


def serve_upload(report: Report) -> None:
    """Read every channel that comes to its end, which is an empty message, and answer with the bytes read."""

    async def main() -> None:
        async with (
            heartline.open_server("tcp://127.0.0.1:0", services=[Adder()]) as server,
            trio.open_nursery() as nursery,
        ):
            report(server.urls[0])
            async for event in server.events():
                if isinstance(event, heartline.Opened):
                    nursery.start_soon(_read, event.connection)

    trio.run(main)


async def _read(connection: heartline.Connection) -> None:
    channel = await connection.accept_channel()
    received = 0
    while data := await channel.receive():
        received += len(data)
    await channel.send(received)


def load_upload(report: Report, url: str, size: int, count: int) -> None:
    """Report the delays during an upload of `count` messages, and its rate."""

    async def main() -> None:
        calls: list[float] = []
        pings: list[float] = []
        async with heartline.open_connection(url) as connection:
            add = heartline.remote(connection.service(Adder).add)
            over = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_call, add, over, calls)
                nursery.start_soon(_ping, connection, over, pings)
                start = time.perf_counter()
                await _upload(connection, bytes(size), count)
                seconds = time.perf_counter() - start
                over.set()
        report(figures(size, count, seconds, call=calls, ping=pings))

    trio.run(main)


async def _upload(connection: heartline.Connection, message: bytes, count: int) -> None:
    async with await connection.open_channel("upload") as channel:
        for _ in range(count):
            await channel.send(message)
        await channel.send(b"")
        if await channel.receive() != count * len(message):
            raise AssertionError("the server received something else")


async def _call(add: Callable[..., Awaitable[object]], over: trio.Event, delays: list[float]) -> None:
    while not over.is_set():
        start = time.perf_counter()
        await add(1, 2)
        delays.append(time.perf_counter() - start)
        await trio.sleep(PAUSE)


async def _ping(connection: heartline.Connection, over: trio.Event, delays: list[float]) -> None:
    """Beside the round trip the wait for the line counts: a PING is stamped when it leaves."""
    link = link_of(connection)
    pulse = link.session.pulse
    while not over.is_set():
        pulse.rtt = None
        asked = left = trio.current_time()
        link.session.ping()
        link.flush()
        while pulse.rtt is None:
            if pulse.ping_sent > asked:
                left = pulse.ping_sent
            await trio.sleep(POLL_INTERVAL)
        delays.append(left - asked + pulse.rtt)
        await trio.sleep(PAUSE)
