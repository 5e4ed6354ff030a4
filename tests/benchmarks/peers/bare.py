"""The yardstick: RPC on Trio with no library around it.

heartline's frame header and CBOR values over one TCP stream, and nothing else: no heartbeat, deadline, limit,
error or reconnect. What heartline loses against this is the price of those.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, cast

import cbor2
import outcome
import trio
import trio.testing

from tests.benchmarks._load import trio_load

HEADER = struct.Struct("!IBBHI")
CALL, RESULT = 0x20, 0x21
CHUNK = 256 * 1024
"""Bytes read at most at a time: a whole burst of small calls."""


class Link:
    """Both ends of the RPC stream: the reader answers calls and wakes callers, `run` moves the bytes."""

    def __init__(self, stream: trio.SocketStream, methods: dict[str, Callable[..., Any]]) -> None:
        self._stream = stream
        # Trio's socket has no synchronous send and recv; the plain one underneath is already non-blocking.
        self._socket = cast(Any, stream.socket)._sock
        self._methods = methods
        self._out: list[bytes] = []
        self._writer: trio.lowlevel.Task | None = None
        self._callers: dict[int, trio.lowlevel.Task] = {}
        self._last = 0

    async def run(self) -> None:
        """Move bytes until the peer closes the stream."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            await self._read()
            nursery.cancel_scope.cancel()

    async def call(self, method: str, *args: object) -> Any:
        """Call the peer's method and wait for its result."""
        self._last = number = self._last + 1
        payload = cbor2.dumps((method, args))
        callers = self._callers
        self._out.append(HEADER.pack(len(payload), CALL, 0, 0, number) + payload)
        if not callers:
            self._send_now()  # nobody to share a packet with
        elif self._writer is not None:
            self._wake_writer()  # it runs after all callers that are ready in this tick
        callers[number] = trio.lowlevel.current_task()

        def forget(_: object) -> trio.lowlevel.Abort:
            callers.pop(number, None)
            return trio.lowlevel.Abort.SUCCEEDED

        return cbor2.loads(await trio.lowlevel.wait_task_rescheduled(forget))

    async def _read(self) -> None:
        receive, wait_readable, socket = self._socket.recv, trio.lowlevel.wait_readable, self._stream.socket
        rest = b""
        while True:
            await wait_readable(socket)
            try:
                data = receive(CHUNK)
            except BlockingIOError:
                continue
            if not data:
                return
            rest = self._dispatch(rest + data if rest else data)
            self._send_now()  # all results of this chunk in one write

    def _dispatch(self, data: bytes) -> bytes:
        """Handle every whole frame; return the bytes of an unfinished one."""
        unpack, pack, append = HEADER.unpack_from, HEADER.pack, self._out.append
        methods, callers = self._methods, self._callers
        loads, dumps, reschedule, value = cbor2.loads, cbor2.dumps, trio.lowlevel.reschedule, outcome.Value
        size, begin = len(data), 12
        while begin <= size:
            length, kind, _, _, number = unpack(data, begin - 12)
            end = begin + length
            if end > size:
                break
            payload = data[begin:end]
            begin = end + 12
            if kind == RESULT:
                reschedule(callers.pop(number), value(payload))
            else:
                method, args = loads(payload)
                result = dumps(methods[method](*args))
                append(pack(len(result), RESULT, 0, 0, number) + result)
        return data[begin - 12 :]

    def _send_now(self) -> None:
        out = self._out
        if not out or self._writer is None:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            out.append(data[sent:])
            self._wake_writer()

    def _wake_writer(self) -> None:
        writer, self._writer = self._writer, None
        assert writer is not None
        trio.lowlevel.reschedule(writer)

    async def _write(self) -> None:
        out = self._out

        def unpark(_: object) -> trio.lowlevel.Abort:
            self._writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            if out:
                data = b"".join(out)
                out.clear()
                await self._stream.send_all(data)
            else:
                self._writer = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(unpark)


def serve_rpc(report: Callable[[object], None]) -> None:
    """Serve `add` on a free port."""

    async def handle(stream: trio.SocketStream) -> None:
        await Link(stream, {"add": lambda a, b: a + b}).run()

    async def main() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        report(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(handle, listeners)

    trio.run(main)


def load_rpc(report: Callable[[object], None], port: int, plan: list[tuple[int, float]]) -> None:
    """Report the calls per second of each (in flight, seconds) of the plan."""

    async def main() -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
            link = Link(stream, {})
            nursery.start_soon(link.run)
            await trio.testing.wait_all_tasks_blocked()

            async def add(a: int, b: int) -> int:
                total: int = await link.call("add", a, b)
                return total

            report([await trio_load(add, in_flight, seconds) for in_flight, seconds in plan])
            nursery.cancel_scope.cancel()

    trio.run(main)
