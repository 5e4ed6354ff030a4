"""grpcio: a client-streaming upload and unary calls on one channel; it has no PING to ask for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from tests.benchmarks._delays import PAUSE, figures
from tests.benchmarks.peers.grpcio_aio import SERVICE, Operands, Sum

OPTIONS = [("grpc.max_receive_message_length", -1)]
"""The default is 4 MiB."""

Report = Callable[[object], None]


def serve_upload(report: Report) -> None:
    """Serve `Add` and `Upload`, which answers with the bytes received."""

    async def add(request: Any, _context: Any) -> Any:
        return Sum(value=request.a + request.b)

    async def upload(messages: AsyncIterator[bytes], _context: Any) -> bytes:
        received = 0
        async for message in messages:
            received += len(message)
        return str(received).encode()

    async def main() -> None:
        server = grpc.aio.server(options=OPTIONS)
        methods = {
            "Add": grpc.unary_unary_rpc_method_handler(
                add, request_deserializer=Operands.FromString, response_serializer=Sum.SerializeToString
            ),
            "Upload": grpc.stream_unary_rpc_method_handler(upload),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        report(port)
        await server.wait_for_termination()

    asyncio.run(main())


def load_upload(report: Report, port: int, size: int, count: int) -> None:
    """Report the delays during an upload of `count` messages, and its rate."""

    async def messages() -> AsyncIterator[bytes]:
        message = bytes(size)
        for _ in range(count):
            yield message

    async def main() -> None:
        calls: list[float] = []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await channel.channel_ready()
            over = asyncio.Event()
            calling = asyncio.create_task(_call(channel, over, calls))
            start = time.perf_counter()
            received = await channel.stream_unary(f"/{SERVICE}/Upload")(messages())
            seconds = time.perf_counter() - start
            over.set()
            await calling
        if int(received) != size * count:
            raise AssertionError("the server received something else")
        report(figures(size, count, seconds, call=calls))

    asyncio.run(main())


async def _call(channel: grpc.aio.Channel, over: asyncio.Event, delays: list[float]) -> None:
    method = channel.unary_unary(
        f"/{SERVICE}/Add",
        request_serializer=Operands.SerializeToString,
        response_deserializer=Sum.FromString,
    )
    while not over.is_set():
        start = time.perf_counter()
        await method(Operands(a=1, b=2))
        delays.append(time.perf_counter() - start)
        await asyncio.sleep(PAUSE)
