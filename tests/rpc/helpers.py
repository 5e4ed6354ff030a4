"""Pairs of connections, and peers that are played by hand."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import trio
from trio.testing import MockClock

import heartline
from heartline import Connection, Heartbeat, Limits
from heartline.rpc._wire import CALL_HEAD
from heartline.session import Role, Session
from heartline.testing import memory_pair
from heartline.wire import CborSerializer, Frame, FrameType, encode
from tests.engine import link_of
from tests.opening import open_stream

CBOR = CborSerializer()
QUIET = Heartbeat(interval=1e6, timeout=4e6)
"""No heartbeats: a test of hours in virtual time has nothing else to do."""


@asynccontextmanager
async def open_pair(
    *services: Any,
    client_services: Sequence[Any] = (),
    limits: Limits | None = None,
    server_limits: Limits | None = None,
    url: str = "memory://",
    resume_window: float = 0.0,
    **settings: Any,
) -> AsyncIterator[tuple[Connection, Connection]]:
    """A client's connection, and the server's to it; a loss ends the session at once."""
    settings = {"heartbeat": QUIET} | settings
    limits = replace(limits or Limits(), resume_window=resume_window)
    server_limits = server_limits or limits
    async with (
        heartline.open_server(url, services=services, limits=server_limits, heartbeat=QUIET) as server,
        heartline.open_connection(
            server.urls[0], services=client_services, limits=limits, **settings
        ) as client,
    ):
        yield client, server.connections[client.id]


def cut(connection: Connection) -> None:
    """Break the link of a connection over memory streams, as a network does: without a goodbye."""
    stream: Any = link_of(connection).stream
    getattr(stream, "send_stream", stream).close()


async def reconnect(client: Connection) -> None:
    """Break the link of a client, and wait for its next one."""
    links = client.statistics().links
    cut(client)
    while client.statistics().links == links:
        await settle()
        await client.wait_open()


async def settle() -> None:
    """Let everything happen that can happen without time passing."""
    await trio.testing.wait_all_tasks_blocked()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """A whole Trio run in virtual time, for a test by Hypothesis."""
    trio.run(main, clock=MockClock(autojump_threshold=0))


class RawPeer:
    """The other end of a connection, by hand: it keeps to the session's rules, and says what it likes."""

    def __init__(self, stream: trio.abc.Stream, session: Session) -> None:
        self.stream = stream
        self.session = session
        self._frames: deque[Frame] = deque()

    async def flush(self) -> None:
        for data in self.session.take(1 << 30, trio.current_time()):
            await self.stream.send_all(data)

    async def events(self) -> list[Any]:
        """What the next read brings; none at the end of the stream."""
        while True:
            held_back = self.session.holds_back
            data = b"" if held_back else await self.stream.receive_some(1 << 20)
            events = self.session.receive(bytes(data), trio.current_time())
            await self.flush()
            if events or not (data or held_back):
                return events

    async def send(self, *frames: Frame) -> None:
        await self.stream.send_all(encode(frames))

    async def call(self, number: int, target: str | bytes, *args: Any, timeout: int = 0) -> None:
        await self.send(call_frame(number, target, *args, timeout=timeout))

    async def receive(self) -> Frame:
        """The next frame of the call family."""
        while not self._frames:
            events = await self.events()
            if not events:
                raise EOFError
            self._frames += [event for event in events if isinstance(event, Frame)]
        return self._frames.popleft()

    async def receive_fault(self) -> dict[str, Any]:
        frame = await self.receive()
        assert frame.type == FrameType.FAULT
        fault: dict[str, Any] = CBOR.decode(frame.payload)
        return fault

    async def receive_result(self) -> Any:
        frame = await self.receive()
        assert frame.type == FrameType.RESULT
        return CBOR.decode(frame.payload[1:])

    async def result(self, number: int, value: Any) -> None:
        await self.send(Frame(FrameType.RESULT, id=number, payload=b"\x01" + CBOR.encode(value, [])))


def call_frame(number: int, target: str | bytes, *args: Any, timeout: int = 0) -> Frame:
    name = target if isinstance(target, bytes) else target.encode()
    head = CALL_HEAD.pack(CBOR.content_id, 0, len(name), timeout)
    return Frame(FrameType.CALL, id=number, payload=head + name + CBOR.encode(args, []))


@asynccontextmanager
async def raw_client(
    url: str, limits: Limits | None = None, heartbeat: Heartbeat = QUIET
) -> AsyncIterator[RawPeer]:
    """A client by hand, its handshake done."""
    stream = await open_stream(url)
    async with stream:
        session = Session(
            Role.CLIENT,
            limits=limits or Limits(resume_window=0),
            heartbeat=heartbeat,
            now=trio.current_time(),
        )
        peer = RawPeer(stream, session)
        session.hello()
        await peer.flush()
        await peer.events()
        yield peer


@asynccontextmanager
async def raw_server(
    *services: Any, limits: Limits | None = None, **settings: Any
) -> AsyncIterator[tuple[Connection, RawPeer]]:
    """A connection to a server by hand."""
    here, there = memory_pair()
    session = Session(
        Role.SERVER, limits=limits or Limits(resume_window=0), heartbeat=QUIET, now=trio.current_time()
    )
    peer = RawPeer(there, session)
    settings = {"heartbeat": QUIET} | settings

    async def welcome() -> None:
        await peer.events()
        session.welcome("client")
        await peer.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(welcome)
        async with heartline.open_connection(here, services=services, **settings) as connection:
            yield connection, peer
            there.close()
