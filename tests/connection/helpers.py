"""Pairs of connections, and peers that are played by hand."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import heartline
from heartline import Channel, CloseCode, Connection, Heartbeat, Limits, Server
from heartline.errors import LocalProtocolError
from heartline.session import GoAway, Hello, Refuse, Role, Session, Welcome
from heartline.session.lanes import ENDS
from heartline.session.outbox import MESSAGE_COST
from heartline.testing import memory_pair
from heartline.transports import Listener
from heartline.wire import Flag, Frame, FrameType, encode
from tests.opening import open_listeners, open_stream

from ..engine import link_of, number_of

QUIET = Heartbeat(interval=1e6, timeout=4e6)
"""No heartbeats: a test of hours in virtual time has nothing else to do."""

BRISK = Heartbeat(interval=1.0, timeout=3.0)

SOCKETS = ["tcp://127.0.0.1:0", "ws://127.0.0.1:0", "unix"]


class Highest(random.Random):
    """Jitter that always draws the ceiling: what is left is the growth."""

    def uniform(self, a: float, b: float) -> float:
        return b


def url_of(kind: str, directory: Any) -> str:
    """The URL to listen on of one of ``SOCKETS``."""
    return f"unix://{directory}/socket" if kind == "unix" else kind


@asynccontextmanager
async def open_pair(
    url: str = "memory://",
    *,
    limits: Limits | None = None,
    server_limits: Limits | None = None,
    resume_window: float = 0.0,
    **settings: Any,
) -> AsyncIterator[tuple[Connection, Connection, Server]]:
    """A client's connection, the server's to it, and the server; a loss ends the session at once."""
    settings = {"heartbeat": QUIET} | settings
    limits = replace(limits or Limits(), resume_window=resume_window)
    async with (
        heartline.open_server(url, limits=server_limits or limits, heartbeat=QUIET) as server,
        heartline.open_connection(server.urls[0], limits=limits, **settings) as client,
    ):
        yield client, server.connections[client.id], server


def run(main: Callable[[], Awaitable[None]]) -> None:
    """A whole Trio run in virtual time, for a test by Hypothesis."""
    trio.run(main, clock=MockClock(autojump_threshold=0))


async def settle() -> None:
    """Let everything happen that can happen without time passing."""
    await wait_all_tasks_blocked()


class Turns(trio.abc.Instrument):
    """Counts what is done before another task can run."""

    def __init__(self) -> None:
        self.counts: list[int] = [0]

    def count(self) -> None:
        self.counts[-1] += 1

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.counts[-1]:
            self.counts.append(0)


@contextmanager
def counted_turns() -> Iterator[Turns]:
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    yield turns
    trio.lowlevel.remove_instrument(turns)


def cut(connection: Connection) -> None:
    """Break the link of a connection over memory streams, as a network does: without a goodbye."""
    link_of(connection).stream.close()  # type: ignore[attr-defined]


def data(payload: bytes, *, channel: int = 0, number: int = 0, flags: int = 0) -> Frame:
    """A message as it travels; 0 is the content id of plain bytes."""
    return Frame(FrameType.DATA, flags, channel, number, payload)


def opened(number: int, name: bytes = b"raw") -> Frame:
    return Frame(FrameType.OPEN, channel=number, payload=name)


async def pair_of_channels(client: Any, there: Any, name: str = "x") -> tuple[Channel, Channel]:
    ours = await client.open_channel(name)
    theirs = await there.accept_channel()
    assert ours.name == theirs.name == name
    assert number_of(ours) == number_of(theirs)
    return ours, theirs


class RawPeer:
    """The other end of a connection, by hand: it keeps to the session's rules, and says what it likes."""

    def __init__(self, stream: trio.abc.Stream, session: Session) -> None:
        self.stream = stream
        self.session = session
        self.control: list[Frame] = []
        """Every control frame that came behind the handshake, as it is."""
        self._spy = heartline.wire.FrameDecoder(Limits())

    @classmethod
    def of(
        cls,
        stream: trio.abc.Stream,
        role: Role,
        *,
        limits: Limits | None = None,
        heartbeat: Heartbeat = QUIET,
    ) -> RawPeer:
        limits = limits or Limits(resume_window=0)
        session = Session(role, limits=limits, heartbeat=heartbeat, now=trio.current_time())
        return cls(stream, session)

    @classmethod
    async def join(
        cls,
        url: str,
        *,
        identity: str | None = None,
        credentials: Any = None,
        attempt: tuple[bytes, int] | None = None,
        tls: Any = None,
        **settings: Any,
    ) -> RawPeer:
        """A client of this server, let in."""
        peer = cls.of(await open_stream(url, tls=tls), Role.CLIENT, **settings)
        peer.session.hello(identity=identity, credentials=credentials, attempt=attempt)
        await peer.flush()
        (welcome,) = await peer.events()
        assert isinstance(welcome, Welcome), welcome
        return peer

    @classmethod
    async def admit(cls, stream: trio.abc.Stream, **settings: Any) -> RawPeer:
        """A server that lets in who comes on this stream."""
        peer = cls.of(stream, Role.SERVER, **settings)
        hello = await peer.hello()
        peer.session.welcome(hello.identity or "made-up")
        await peer.flush()
        return peer

    async def hello(self) -> Hello:
        (hello,) = await self.events()
        assert isinstance(hello, Hello), hello
        return hello

    async def flush(self) -> None:
        for buffer in self.session.take(1 << 30, trio.current_time()):
            await self.stream.send_all(buffer)

    async def events(self) -> list[Any]:
        """What the next reads bring, until they bring anything; none at the end of the stream."""
        while True:
            held_back = self.session.holds_back
            received = b"" if held_back else bytes(await self.stream.receive_some(1 << 20))
            for frame in self._spy.feed(received):
                if frame.type < FrameType.OPEN:
                    self.control.append(frame)
            events = self.session.receive(received, trio.current_time())
            if events or not (received or held_back):
                return events

    async def rest(self) -> list[Any]:
        """Everything up to the end of the stream."""
        everything = []
        while events := await self.events():
            everything += events
        return everything

    async def send(self, *frames: Frame) -> None:
        """Say this, allowed or not; the session takes note of what it has to know."""
        for frame in frames:
            self.session.sent += frame.type >= FrameType.OPEN
            if frame.channel or frame.type == FrameType.DATA:
                with suppress(LocalProtocolError):
                    self._note(frame)
        await self.stream.send_all(encode(frames))

    def _note(self, frame: Frame) -> None:
        lane = self.session._lanes.send(frame.type, frame.channel)
        if frame.type == FrameType.DATA:
            lane.credit -= len(frame.payload) + MESSAGE_COST
        elif frame.type in ENDS:
            self.session._lanes.end_left(frame.channel)

    async def goodbye(self, code: int, reason: str = "", drain: float = 0.0) -> None:
        self.session.go_away(code, reason, drain=drain)
        await self.flush()

    def kinds(self) -> list[FrameType]:
        """The types of the control frames so far."""
        return [FrameType(frame.type) for frame in self.control]


@asynccontextmanager
async def open_to_raw(
    *, raw: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[Connection, RawPeer]]:
    """A client's connection to a server that is played by hand."""
    here, there = memory_pair()
    async with trio.open_nursery() as nursery:
        peers: list[RawPeer] = []

        async def admit() -> None:
            peers.append(await RawPeer.admit(there, **(raw or {})))

        nursery.start_soon(admit)
        async with heartline.open_connection(here, **({"heartbeat": QUIET} | settings)) as connection:
            yield connection, peers[0]
            there.close()


async def listen(url: str = "memory://") -> Listener:
    (listener,) = await open_listeners(url)
    return listener


@contextmanager
def no_leaks() -> Iterator[None]:
    """Nothing is left behind: no task, no descriptor, no thread."""
    before = _census()
    yield
    # At most: a worker thread or a descriptor that an earlier test left to be reused may go meanwhile.
    assert all(after <= earlier for after, earlier in zip(_census(), before, strict=True))


def _census() -> tuple[int, int, int]:
    tasks = trio.lowlevel.current_statistics().tasks_living
    return tasks, len(os.listdir("/proc/self/fd")), threading.active_count()


__all__ = [
    "BRISK",
    "QUIET",
    "SOCKETS",
    "CloseCode",
    "Flag",
    "GoAway",
    "Highest",
    "RawPeer",
    "Refuse",
    "counted_turns",
    "cut",
    "data",
    "listen",
    "no_leaks",
    "open_pair",
    "open_to_raw",
    "opened",
    "pair_of_channels",
    "run",
    "settle",
    "url_of",
]
