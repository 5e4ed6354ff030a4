"""grpcio's asyncio API: one unary method, protobuf messages, default settings.

The messages are built from a descriptor at run time, which gives the same classes as generated code and
spares the benchmark a compiler; the method is registered the way generated code registers it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.benchmarks._load import asyncio_load

SERVICE = "benchmark.Adder"


def _messages() -> tuple[Any, Any]:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="adder.proto", package="benchmark", syntax="proto3")
    for message, names in (("Operands", ("a", "b")), ("Sum", ("value",))):
        described = file.message_type.add(name=message)
        for number, name in enumerate(names, 1):
            described.field.add(name=name, number=number, type=field.TYPE_INT64, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    operands, total = (pool.FindMessageTypeByName(f"benchmark.{name}") for name in ("Operands", "Sum"))
    return message_factory.GetMessageClass(operands), message_factory.GetMessageClass(total)


Operands, Sum = _messages()


def serve_rpc(report: Callable[[object], None]) -> None:
    """Serve `Add` on a free port."""

    async def add(request: Any, _context: Any) -> Any:
        return Sum(value=request.a + request.b)

    async def main() -> None:
        server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(
            add, request_deserializer=Operands.FromString, response_serializer=Sum.SerializeToString
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Add": method}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        report(port)
        await server.wait_for_termination()

    asyncio.run(main())


def load_rpc(report: Callable[[object], None], port: int, plan: list[tuple[int, float]]) -> None:
    """Report the calls per second of each (in flight, seconds) of the plan."""

    async def main() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await channel.channel_ready()
            method = channel.unary_unary(
                f"/{SERVICE}/Add",
                request_serializer=Operands.SerializeToString,
                response_deserializer=Sum.FromString,
            )

            async def add(a: int, b: int) -> int:
                total: int = (await method(Operands(a=a, b=b))).value
                return total

            report([await asyncio_load(add, in_flight, seconds) for in_flight, seconds in plan])

    asyncio.run(main())
