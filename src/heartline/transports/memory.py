"""``memory://name``: streams and listeners inside one process, without sockets."""

from __future__ import annotations

import itertools
import operator
from typing import Protocol, final

import trio

from heartline.errors import ConfigurationError, ConnectionFailed
from heartline.transports._context import TransportContext, TransportOptions
from heartline.transports._listener import Listener
from heartline.transports._url import parse_memory, refuse_tls
from heartline.transports.conflict import ConflictDetector

__all__ = [
    "MemoryNetwork",
    "MemoryStream",
    "Network",
    "memory_pair",
    "open_listeners",
    "open_stream",
    "use_network",
]

BUFFER_SIZE = 64 * 1024
"""Bytes in flight in one direction: as much as one read of a socket, so that tests meet back pressure."""


class _Pipe:
    """One direction of a pair: a bounded buffer with a sender's and a receiver's end.

    Only one of the two can be waiting (full is not empty), so one parking lot serves both.
    """

    __slots__ = ("buffer", "capacity", "changed", "receiver_gone", "sender_done")

    def __init__(self, capacity: int) -> None:
        self.capacity: int = capacity
        self.buffer: bytearray = bytearray()
        self.sender_done: bool = False
        self.receiver_gone: bool = False
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()

    def end_sending(self) -> None:
        self.sender_done = True
        self.changed.unpark_all()

    def end_receiving(self) -> None:
        self.receiver_gone = True
        self.changed.unpark_all()

    async def wait_data(self) -> None:
        """Return when there are bytes, or no more will come."""
        if self.buffer or self.sender_done or self.receiver_gone:
            await trio.lowlevel.checkpoint()
        while not (self.buffer or self.sender_done or self.receiver_gone):
            await self.changed.park()

    async def wait_room(self, room: int) -> None:
        """Return when ``room`` bytes fit, or nobody will take them any more."""
        if self._has(room):
            await trio.lowlevel.checkpoint()
        while not self._has(room):
            await self.changed.park()

    def _has(self, room: int) -> bool:
        return self.sender_done or self.receiver_gone or len(self.buffer) + room <= self.capacity


@final
class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of :func:`memory_pair`: a bounded, half-closeable stream with the errors of a socket."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False
        self._receiving = ConflictDetector("another task is receiving on this memory stream")
        self._sending = ConflictDetector("another task is sending on this memory stream")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for at most ``max_bytes`` bytes, none after the peer's end; cancelled, it takes nothing."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        with self._receiving:
            await self._incoming.wait_data()
            if self._closed:
                raise trio.ClosedResourceError("this memory stream was closed")
            buffer = self._incoming.buffer
            data = bytes(buffer[:max_bytes])
            del buffer[: len(data)]
            self._incoming.changed.unpark_all()
            return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over all of ``data``, waiting while the buffer is full; cancelled, a part may have gone."""
        with self._sending, memoryview(data) as view:
            sent = 0
            while True:
                await self._outgoing.wait_room(1)
                self._check_sendable()
                free = self._outgoing.capacity - len(self._outgoing.buffer)
                self._outgoing.buffer += view[sent : sent + free]
                self._outgoing.changed.unpark_all()
                sent += free
                if sent >= len(view):
                    return

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until half of the buffer is free: like a socket, not for every single byte."""
        with self._sending:
            await self._outgoing.wait_room((self._outgoing.capacity + 1) // 2)
            if self._closed:
                raise trio.ClosedResourceError("this memory stream was closed")

    async def send_eof(self) -> None:
        """Say that no more bytes will come; receiving goes on."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this memory stream was closed")
            self._outgoing.end_sending()

    async def aclose(self) -> None:
        """Close both directions: the peer still gets what was sent, then the end."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Do what ``aclose`` does, for places where nothing can be awaited."""
        self._closed = True
        self._outgoing.end_sending()
        self._incoming.end_receiving()

    def _check_sendable(self) -> None:
        if self._outgoing.sender_done:
            raise trio.ClosedResourceError("this memory stream was closed, or its sending half")
        if self._outgoing.receiver_gone:
            raise trio.BrokenResourceError("the peer closed its end of this memory stream")


def memory_pair(*, buffer_size: int = BUFFER_SIZE) -> tuple[MemoryStream, MemoryStream]:
    """Make two connected streams; sending waits while ``buffer_size`` bytes (at least 1) wait to be read."""
    if buffer_size < 1:
        raise ConfigurationError(f"buffer_size: {buffer_size} bytes cannot carry anything; give at least 1")
    there, back = _Pipe(buffer_size), _Pipe(buffer_size)
    return MemoryStream(back, there), MemoryStream(there, back)


class _MemoryListener(trio.abc.Listener[MemoryStream]):
    def __init__(self, listeners: dict[str, _MemoryListener], name: str, backlog: int) -> None:
        self._listeners = listeners
        self._name = name
        self.backlog, self._waiting = trio.open_memory_channel[MemoryStream](backlog)

    async def accept(self) -> MemoryStream:
        return await self._waiting.receive()

    async def aclose(self) -> None:
        if self._listeners.get(self._name) is self:
            del self._listeners[self._name]
            self._hang_up()
        self._waiting.close()
        self.backlog.close()
        await trio.lowlevel.checkpoint()

    def _hang_up(self) -> None:
        """Close the connections that nobody accepted: their peers see the end of the stream."""
        try:
            while True:
                self._waiting.receive_nowait().close()
        except trio.WouldBlock:
            pass


@final
class MemoryNetwork:
    """A name space of memory listeners; each ``trio.run`` has one for ``memory://`` URLs, others are yours.

    ``buffer_size`` is in bytes, for each direction of each connection.
    """

    def __init__(self, *, buffer_size: int = BUFFER_SIZE) -> None:
        self._buffer_size = buffer_size
        self._listeners: dict[str, _MemoryListener] = {}
        self._numbers = itertools.count(1)

    def listen(self, name: str = "", *, backlog: int = TransportOptions.backlog) -> Listener:
        """Listen under ``name``, by default a fresh one; ``ConnectionFailed`` if it is taken.

        While ``backlog`` connections wait for ``accept``, further calls of ``connect`` wait too.
        """
        if not name:
            name = next(fresh for n in self._numbers if (fresh := f"auto-{n}") not in self._listeners)
        if name in self._listeners:
            raise ConnectionFailed(f"cannot listen on memory://{name}: the name is in use")
        self._listeners[name] = inner = _MemoryListener(self._listeners, name, backlog)
        return Listener(inner, f"memory://{name}")

    async def connect(self, name: str) -> MemoryStream:
        """Connect to the listener called ``name``; ``ConnectionFailed`` if there is none."""
        if name not in self._listeners:
            await trio.lowlevel.checkpoint()
            raise ConnectionFailed(f"cannot connect to memory://{name}: nobody listens there")
        here, there = memory_pair(buffer_size=self._buffer_size)
        await self._listeners[name].backlog.send(there)
        return here


class Network(Protocol):
    """The interface of what ``memory://`` URLs lead to: a name space of listeners."""

    def listen(self, name: str = "", *, backlog: int) -> Listener:
        """Listen under ``name``, by default a fresh one; ``ConnectionFailed`` if it is taken."""
        ...

    async def connect(self, name: str) -> trio.abc.Stream:
        """Connect to the listener called ``name``; ``ConnectionFailed`` or ``OSError`` if there is none."""
        ...


_network: trio.lowlevel.RunVar[Network] = trio.lowlevel.RunVar("heartline.memory_network")


def use_network(network: Network) -> None:
    """Let the ``memory://`` URLs of this ``trio.run`` lead to ``network``, from now on."""
    _network.set(network)


def current_network() -> Network:
    """The network of ``memory://`` URLs in this ``trio.run``; two runs cannot see each other."""
    try:
        return _network.get()
    except LookupError:
        use_network(MemoryNetwork())
        return _network.get()


async def open_stream(url: str, context: TransportContext) -> trio.abc.Stream:
    """Connect to ``memory://name``."""
    refuse_tls(url, context.tls)
    return await current_network().connect(parse_memory(url, listening=False))


async def open_listeners(url: str, context: TransportContext) -> list[Listener]:
    """Listen on ``memory://name``, or with ``memory://`` on a fresh name."""
    refuse_tls(url, context.tls)
    name = parse_memory(url, listening=True)
    await trio.lowlevel.checkpoint()
    return [current_network().listen(name, backlog=context.options.backlog)]
