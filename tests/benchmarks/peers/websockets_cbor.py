"""What one writes by hand today: CBOR messages with ids over one `websockets` connection."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable

import cbor2
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.benchmarks._load import asyncio_load

METHODS = {"add": lambda a, b: a + b}


def serve_rpc(report: Callable[[object], None]) -> None:
    """Serve `add` on a free port."""

    async def handle(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                assert isinstance(message, bytes)
                number, method, args = cbor2.loads(message)
                await connection.send(cbor2.dumps((number, METHODS[method](*args))))

    async def main() -> None:
        async with serve(handle, "127.0.0.1", 0, compression=None) as server:
            report(server.sockets[0].getsockname()[1])
            await server.serve_forever()

    asyncio.run(main())


def load_rpc(report: Callable[[object], None], port: int, plan: list[tuple[int, float]]) -> None:
    """Report the calls per second of each (in flight, seconds) of the plan."""

    async def main() -> None:
        # proxy=None: a proxy set in the environment is not part of the measurement.
        async with connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None) as connection:
            waiting: dict[int, asyncio.Future[int]] = {}
            numbers = itertools.count()

            async def receive() -> None:
                async for message in connection:
                    assert isinstance(message, bytes)
                    number, result = cbor2.loads(message)
                    waiting.pop(number).set_result(result)

            async def add(a: int, b: int) -> int:
                number = next(numbers)
                future: asyncio.Future[int] = asyncio.Future()
                waiting[number] = future
                await connection.send(cbor2.dumps((number, "add", (a, b))))
                return await future

            receiver = asyncio.create_task(receive())
            report([await asyncio_load(add, in_flight, seconds) for in_flight, seconds in plan])
            receiver.cancel()

    asyncio.run(main())
