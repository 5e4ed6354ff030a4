"""Servers with subscribers, and peers of push that are played by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import heartline
from heartline import (
    Backoff,
    Connection,
    Gap,
    Heartbeat,
    Limits,
    Server,
    Subscription,
    Update,
)
from heartline.endpoints._builtin import ask_for_topic
from heartline.link import Part
from heartline.push import Push
from heartline.push._publisher import BLOCK_PATIENCE
from heartline.push._types import POLICIES
from heartline.push._wire import LEAVE, OFFSET, encode_notice, parse_head, stamp
from heartline.wire import CborSerializer, Frame, FrameType, Serializer, encode_value
from tests.engine import core_of, link_of

QUIET = Heartbeat(interval=1e6, timeout=4e6)
"""No heartbeats: a test of hours in virtual time has nothing else to do."""

AGAIN = Backoff(initial=0.1, maximum=0.1)
"""Come back soon: a tenth of a second at most."""

CBOR = CborSerializer()


@asynccontextmanager
async def open_topics(
    url: str = "memory://", *, blocking: bool = False, **settings: Any
) -> AsyncIterator[Server]:
    """A server that is quiet, whose topic allows ``blocking`` subscribers or not."""
    async with heartline.open_server(url, **({"heartbeat": QUIET} | settings)) as server:
        if blocking:
            server.declare_topic("topic", policies=POLICIES)
        yield server


@asynccontextmanager
async def open_client(
    server: Server | str, *, limits: Limits | None = None, resume_window: float = 0.0, **settings: Any
) -> AsyncIterator[Connection]:
    """A client that is quiet, and comes back soon; a loss ends its session at once."""
    url = server if isinstance(server, str) else server.urls[0]
    limits = replace(limits or Limits(), resume_window=resume_window)
    settings = {"heartbeat": QUIET, "reconnect": AGAIN, "limits": limits, **settings}
    async with heartline.open_connection(url, **settings) as connection:
        yield connection


@asynccontextmanager
async def open_pair(**settings: Any) -> AsyncIterator[tuple[Server, Connection]]:
    """A server over memory, and a client of it."""
    async with open_topics(**settings) as server, open_client(server) as client:
        yield server, client


async def next_update(subscription: Subscription[Any]) -> Update[Any]:
    """The update that comes next."""
    update = await subscription.__anext__()
    assert isinstance(update, Update), f"{update} came instead of an update"
    return update


async def take(subscription: Subscription[Any], count: int) -> list[Any]:
    """The next updates and gaps; the last one is not handled yet."""
    return [await subscription.__anext__() for _ in range(count)]


async def take_values(subscription: Subscription[Any], count: int) -> list[Any]:
    """The values of the next updates."""
    return [update.value for update in await take(subscription, count)]


class Loss(NamedTuple):
    """A gap, and the newest update behind it if that stands for what was lost."""

    gap: Gap
    newest: Any


async def take_gap(subscription: Subscription[Any]) -> Loss:
    """The gap that comes next."""
    gap = await subscription.__anext__()
    assert isinstance(gap, Gap), f"{gap} came instead of a gap"
    newest = await subscription.__anext__() if subscription._taken is None else None
    return Loss(gap, newest)


async def publish(server: Server, values: Sequence[Any], topic: str = "topic") -> None:
    """Publish values, one after the other."""
    for value in values:
        await server.publish(topic, value)


async def settle() -> None:
    """Let everything happen that can happen without time passing."""
    await wait_all_tasks_blocked()


async def is_stuck(operation: Callable[[], Awaitable[Any]]) -> bool:
    """Whether this waits for longer than anything but patience takes; it is cancelled then."""
    with trio.move_on_after(BLOCK_PATIENCE - 1):
        await operation()
        return False
    return True


def cut(connection: Connection) -> None:
    """Break the link of a connection over memory streams, as a network does: without a goodbye."""
    link_of(connection).stream.close()  # type: ignore[attr-defined]


def stop_reading(client: Connection) -> None:
    """From now on this client takes nothing from its transport."""

    async def never(_most: int) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    link_of(client).stream.receive_some = never  # type: ignore[method-assign, assignment]


def run(main: Callable[[], Awaitable[None]]) -> None:
    """A whole Trio run in virtual time, for a test by Hypothesis."""
    trio.run(main, clock=MockClock(autojump_threshold=0))


def put_part(connection: Connection, part: Part) -> None:
    """Let this stand on the connection, in the place of what has the same frames."""
    core_of(connection)._parts[part.family] = part


def encode_update(serializer: Serializer, offset: int, value: Any) -> tuple[bytes, int]:
    """The payload and flags of an update."""
    encoded, flags = encode_value(serializer, value)
    return stamp(offset, encoded), flags


class HandSubscriber:
    """The subscriber's side of a connection, by hand."""

    family: ClassVar[int] = Push.family
    idle: ClassVar[bool] = True
    held: ClassVar[int] = 0

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.frames: list[Frame] = []
        put_part(connection, self)

    async def subscribe(
        self, topic: str, since: Any = None, policy: Any = "drop oldest", key: Any = 1
    ) -> list[Any]:
        """Call the built-in service: the number, the epoch and the position."""
        answer: list[Any] = await self.connection.service("$push").subscribe(topic, since, policy, key)
        return answer

    async def confirm(self, number: int, offset: int) -> None:
        self.post(number, OFFSET.pack(offset))
        await settle()

    async def leave(self, key: int) -> None:
        await self.confirm(key, LEAVE)

    def post(self, number: int, payload: bytes, frame_type: int = FrameType.CONFIRM) -> None:
        link_of(self.connection).put(frame_type, 0, number, payload)

    async def take(self) -> list[Frame]:
        """What has come since the last time."""
        await settle()
        frames, self.frames = self.frames, []
        return frames

    async def take_offsets(self) -> list[int]:
        """The offsets of the updates that have come since the last time."""
        return [parse_head(frame.payload)[0] for frame in await self.take()]

    # The part of a connection

    def on_frame(self, frame: Frame) -> None:
        self.frames.append(frame)

    def on_session_end(self, _reason: Any, _unsent: Any) -> None:
        pass


async def begin(client: Connection, **settings: Any) -> tuple[HandSubscriber, int]:
    """A subscriber by hand that is ready, and its number."""
    hand = HandSubscriber(client)
    number, _, position = await hand.subscribe("topic", **settings)
    await hand.confirm(number, position)
    return hand, number


class HandPublisher(Push):
    """The publisher's side of a connection, by hand."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(core_of(connection).part(Push).publisher, ask_for_topic, core_of(connection))
        self.connection = connection
        self.answer: Any = [7, "epoch", 0]
        self.asked: list[tuple[Any, ...]] = []
        self.confirmed: list[tuple[int, int]] = []
        put_part(connection, self)

    def serve(self, *asked: Any) -> Any:
        self.asked.append(asked)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def on_frame(self, frame: Frame) -> None:
        self.confirmed.append((frame.id, *OFFSET.unpack(frame.payload)))

    async def push(self, offset: int, value: Any = None, number: int = 7) -> None:
        payload, flags = encode_update(CBOR, offset, value)
        await self.post(payload, flags, number)

    async def notice(self, offset: int, *what: Any) -> None:
        await self.post(encode_notice(offset, *what))

    async def post(self, payload: bytes, flags: int = 0, number: int = 7) -> None:
        link_of(self.connection).put(FrameType.PUSH, 0, number, payload, flags)
        await settle()


@asynccontextmanager
async def open_hand_publisher(**settings: Any) -> AsyncIterator[tuple[HandPublisher, Connection]]:
    """A publisher by hand, and a client of it."""
    async with open_topics() as server, open_client(server, **settings) as client:
        yield HandPublisher(server.connections[client.id]), client
