"""Servers with subscribers, and peers of push that are played by hand."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import heartline
from heartline import (
    Backoff,
    Connection,
    Heartbeat,
    HistoryGap,
    Limits,
    Server,
    SlowPolicy,
    Subscription,
    Update,
)
from heartline.push._wire import CONFIRM, LEAVE, encode_notice, encode_update, parse_head
from heartline.rpc._wire import decode_call, decode_value, encode_call, encode_value, error_of
from heartline.session import Role, Session
from heartline.testing import memory_pair
from heartline.transports import open_stream
from heartline.wire import CborSerializer, Frame, FrameType, encode, get_serializer

QUIET = Heartbeat(interval=1e6, timeout=4e6)
"""No heartbeats: a test of hours in virtual time has nothing else to do."""

AGAIN = Backoff(initial=0.1, maximum=0.1)
"""Come back soon: a tenth of a second at most."""

CBOR = CborSerializer()


@asynccontextmanager
async def open_topics(url: str = "memory://", **settings: Any) -> AsyncIterator[Server]:
    """A server that is quiet."""
    async with heartline.open_server(url, **({"heartbeat": QUIET} | settings)) as server:
        yield server


@asynccontextmanager
async def open_client(server: Server | str, **settings: Any) -> AsyncIterator[Connection]:
    """A client that is quiet, and comes back soon."""
    url = server if isinstance(server, str) else server.urls[0]
    settings = {"heartbeat": QUIET, "reconnect": AGAIN} | settings
    async with heartline.open_connection(url, **settings) as connection:
        yield connection


@asynccontextmanager
async def open_pair(**settings: Any) -> AsyncIterator[tuple[Server, Connection]]:
    """A server over memory, and a client of it."""
    async with open_topics(**settings) as server, open_client(server) as client:
        yield server, client


async def take(subscription: Subscription, count: int) -> list[Update]:
    """The next updates; the last one is not handled yet."""
    return [await subscription.__anext__() for _ in range(count)]


async def take_values(subscription: Subscription, count: int) -> list[Any]:
    """The values of the next updates."""
    return [update.value for update in await take(subscription, count)]


async def take_gap(subscription: Subscription) -> HistoryGap:
    """The gap that comes next."""
    try:
        update = await subscription.__anext__()
    except HistoryGap as gap:
        return gap
    raise AssertionError(f"{update} came instead of a gap")


async def publish(server: Server, values: Sequence[Any], topic: str = "topic") -> None:
    """Publish values, one after the other."""
    for value in values:
        await server.publish(topic, value)


async def settle() -> None:
    """Let everything happen that can happen without time passing."""
    await wait_all_tasks_blocked()


async def is_stuck(operation: Callable[[], Awaitable[Any]]) -> bool:
    """Whether this waits for longer than anything but a heartbeat takes; it is cancelled then."""
    with trio.move_on_after(1000):
        await operation()
        return False
    return True


def cut(connection: Connection) -> None:
    """Break the link of a connection over memory streams, as a network does: without a goodbye."""
    assert connection.link is not None
    connection.link.stream.close()  # type: ignore[attr-defined]


def run(main: Callable[[], Awaitable[None]]) -> None:
    """A whole Trio run in virtual time, for a test by Hypothesis."""
    trio.run(main, clock=MockClock(autojump_threshold=0))


class RawPeer:
    """The other end of a connection, by hand: it keeps to the session's rules, and says what it likes."""

    def __init__(self, stream: trio.abc.Stream, role: Role, limits: Limits | None = None) -> None:
        self.stream = stream
        self.session = Session(role, limits=limits or Limits(), heartbeat=QUIET, now=trio.current_time())
        self._frames: deque[Frame] = deque()

    @classmethod
    async def join(cls, server: Server, limits: Limits | None = None, identity: str = "raw") -> RawPeer:
        """A client, let in."""
        peer = cls(await open_stream(server.urls[0]), Role.CLIENT, limits)
        peer.session.hello(identity=identity)
        await peer.flush()
        await peer.events()
        return peer

    async def flush(self) -> None:
        for data in self.session.take(1 << 30, trio.current_time()):
            await self.stream.send_all(data)

    async def events(self) -> list[Any]:
        """What the next read brings; none at the end of the stream."""
        while True:
            data = await self.stream.receive_some(1 << 20)
            events = self.session.receive(bytes(data), trio.current_time())
            await self.flush()
            if events or not data:
                return events

    async def send(self, *frames: Frame) -> None:
        """Send frames as they are."""
        await self.stream.send_all(encode(frames))

    async def frame(self) -> Frame:
        """The next frame that is not control."""
        while not self._frames:
            events = await self.events()
            assert events, "the peer ended the stream"
            self._frames += (event for event in events if isinstance(event, Frame))
        return self._frames.popleft()

    async def frames_until_quiet(self) -> list[Frame]:
        """Everything that comes without time passing."""
        frames = []
        with trio.move_on_after(1e-9):
            while True:
                frames.append(await self.frame())
        return frames

    # A subscriber

    async def subscribe(
        self, topic: str, since: Any = None, policy: Any = "drop oldest", key: Any = 1
    ) -> tuple[int, str, int]:
        """Call the built-in service: the number, the epoch and the position; raises what it answers."""
        payload, flags = encode_call(CBOR, b"$push.subscribe", (topic, since, policy, key), {}, float("inf"))
        await self.send(Frame(FrameType.CALL, flags, 0, 0, payload))
        answer = await self.frame()
        if answer.type == FrameType.FAULT:
            raise error_of(answer, "$push.subscribe", float("inf"))
        number, epoch, position = decode_value(answer)
        return number, epoch, position

    async def confirm(self, number: int, offset: int) -> None:
        await self.send(Frame(FrameType.CONFIRM, 0, 0, number, CONFIRM.pack(offset)))

    async def leave(self, key: int) -> None:
        await self.confirm(key, LEAVE)

    async def offsets_until_quiet(self) -> list[int]:
        """The offsets of all updates that come without time passing."""
        return [parse_head(frame)[1] for frame in await self.frames_until_quiet()]

    # A publisher

    async def accept(self, number: Any = 7, epoch: Any = "epoch", position: Any = 0) -> list[Any]:
        """Answer the next subscription; its arguments."""
        return await self.answer([number, epoch, position])

    async def answer(self, value: Any) -> list[Any]:
        """Answer the next call with any value; its arguments."""
        frame = await self.frame()
        while frame.type != FrameType.CALL:
            frame = await self.frame()
        _, _, _, content_id, body, segments = decode_call(frame)
        payload, flags = encode_value(CBOR, value)
        await self.send(Frame(FrameType.RESULT, flags, 0, frame.id, payload))
        arguments: list[Any] = get_serializer(content_id).decode(body, segments)
        return arguments

    async def push(self, offset: int, value: Any = None, number: int = 7) -> None:
        payload, flags = encode_update(CBOR, offset, value)
        await self.send(Frame(FrameType.PUSH, flags, 0, number, payload))

    async def notice(self, offset: int, *what: Any, number: int = 7) -> None:
        await self.send(Frame(FrameType.PUSH, 0, 0, number, encode_notice(offset, *what)))


@asynccontextmanager
async def open_raw_publisher(limits: Limits | None = None) -> AsyncIterator[tuple[RawPeer, Connection]]:
    """A publisher by hand, and a client of it."""
    here, there = memory_pair()
    raw = RawPeer(there, Role.SERVER, limits)

    async def greet() -> None:
        await raw.events()
        raw.session.welcome("client")
        await raw.flush()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(greet)
        async with heartline.open_connection(here, heartbeat=QUIET) as connection:
            yield raw, connection


@asynccontextmanager
async def subscribed(
    raw: RawPeer, connection: Connection, policy: SlowPolicy | None = None, position: int = 0
) -> AsyncIterator[Subscription]:
    """A subscription at a publisher by hand, which has confirmed where it begins."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raw.accept, 7, "epoch", position)
        subscription = connection.subscribe("topic", policy=policy)
        async with subscription:
            first = await raw.frame()
            assert (first.type, first.id) == (FrameType.CONFIRM, 7)
            yield subscription
