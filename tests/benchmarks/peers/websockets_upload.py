"""`websockets`: an upload in binary messages, calls in text messages and PINGs on the same connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.benchmarks._delays import PAUSE, figures

Report = Callable[[object], None]


def serve_upload(report: Report) -> None:
    """Answer calls, and an empty binary message with the bytes received in those before it."""

    async def handle(connection: ServerConnection) -> None:
        received = 0
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                if isinstance(message, str):
                    await connection.send(json.dumps({"sum": sum(json.loads(message))}))
                elif message:
                    received += len(message)
                else:
                    await connection.send(json.dumps({"received": received}))

    async def main() -> None:
        async with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
            report(server.sockets[0].getsockname()[1])
            await server.serve_forever()

    asyncio.run(main())


def load_upload(report: Report, port: int, size: int, count: int) -> None:
    """Report the delays during an upload of `count` messages, and its rate."""

    async def main() -> None:
        calls: list[float] = []
        pings: list[float] = []
        answers: dict[str, asyncio.Queue[int]] = {"sum": asyncio.Queue(), "received": asyncio.Queue()}
        # proxy=None: a proxy set in the environment is not part of the measurement.
        async with connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None) as connection:
            over = asyncio.Event()
            receiving = asyncio.create_task(_receive(connection, answers))
            calling = asyncio.create_task(_call(connection, answers["sum"], over, calls))
            pinging = asyncio.create_task(_ping(connection, over, pings))
            start = time.perf_counter()
            message = bytes(size)
            for _ in range(count):
                await connection.send(message)
            await connection.send(b"")
            if await answers["received"].get() != size * count:
                raise AssertionError("the server received something else")
            seconds = time.perf_counter() - start
            over.set()
            await asyncio.gather(calling, pinging)
            receiving.cancel()
        report(figures(size, count, seconds, call=calls, ping=pings))

    asyncio.run(main())


async def _receive(connection: ClientConnection, answers: dict[str, asyncio.Queue[int]]) -> None:
    async for message in connection:
        for name, value in json.loads(message).items():
            answers[name].put_nowait(value)


async def _call(
    connection: ClientConnection, answers: asyncio.Queue[int], over: asyncio.Event, delays: list[float]
) -> None:
    while not over.is_set():
        start = time.perf_counter()
        await connection.send("[1, 2]")
        await answers.get()
        delays.append(time.perf_counter() - start)
        await asyncio.sleep(PAUSE)


async def _ping(connection: ClientConnection, over: asyncio.Event, delays: list[float]) -> None:
    while not over.is_set():
        start = time.perf_counter()
        await (await connection.ping())
        delays.append(time.perf_counter() - start)
        await asyncio.sleep(PAUSE)
