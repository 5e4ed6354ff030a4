"""Strangers that have shaken hands, and then say anything: others are served, and the cost is bounded."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import heartline
from fuzz.logged import no_logged_errors
from fuzz.strategies import mutated, streams
from heartline import Connection, Limits, Server
from heartline.push._wire import LEAVE
from heartline.wire import Flag, Frame, FrameType, encode
from tests.rpc.helpers import CBOR, QUIET, RawPeer, call_frame, raw_client

KIB = 1024

LIMITS = Limits(
    frame_size=4 * KIB,
    message_size=64 * KIB,
    memory=640 * KIB,
    window=4 * KIB,
    channels=4,
    calls=8,
    replay_buffer=16 * KIB,
    write_buffer=16 * KIB,
    lost_buffer=128 * KIB,
    connections=8,
    subscriptions=8,
    topics=16,
    resume_window=10.0,
)
"""Bounds that a script of some dozen steps reaches."""

STRANGERS = 3

Step = Callable[[RawPeer], Awaitable[None]]


@heartline.service
class Shop:
    """What everybody may call."""

    def echo(self, value: Any) -> Any:
        """Give it back."""
        return value

    def give(self, size: int) -> bytes:
        """So many bytes, as far as it goes."""
        return bytes(min(size, 60 * KIB))

    async def keep(self, value: Any, seconds: float) -> int:
        """Hold a value for a while."""
        await trio.sleep(min(max(0.0, seconds), 100.0))
        return 1

    def fail(self) -> None:
        """Raise."""
        raise PermissionError("no")


class Stage:
    """A server with strangers, who come again when they were shown the door."""

    def __init__(self, server: Server, stack: AsyncExitStack) -> None:
        self.server = server
        self._stack = stack
        self._peers: dict[int, RawPeer] = {}

    async def peer(self, number: int) -> RawPeer:
        """The stranger with this number."""
        if number not in self._peers:
            opening = raw_client(self.server.urls[0], Limits(resume_window=10.0))
            self._peers[number] = await self._stack.enter_async_context(opening)
        return self._peers[number]

    async def act(self, number: int, step: Step) -> None:
        """Let one of them do something."""
        try:
            peer = await self.peer(number)
            with trio.move_on_after(0.1):  # some steps wait for the server
                await step(peer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._peers.pop(number, None)  # it was shown the door, or has gone


# What they do


async def say(data: bytes, peer: RawPeer) -> None:
    """Send some bytes."""
    await peer.stream.send_all(data)


async def listen(peer: RawPeer) -> None:
    """Read all there is."""
    while await peer.stream.receive_some(1 << 16):
        pass
    raise trio.ClosedResourceError


async def vanish(peer: RawPeer) -> None:
    """Cut the stream."""
    await trio.aclose_forcefully(peer.stream)
    raise trio.ClosedResourceError


async def wait(seconds: float, _peer: RawPeer) -> None:
    """Do nothing for a while."""
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)


_small = st.integers(0, 9)
_ids = _small | st.sampled_from([2**31, 2**32 - 1])
_flags = st.sampled_from([0, 0, 0, Flag.MORE, Flag.RAW, Flag.MORE | Flag.RAW, Flag.IGNORABLE])
_numbers = st.sampled_from([0, 1, 255, 2**16, 2**32, 2**63, LEAVE]) | st.integers(0, 2**64 - 1)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=40)
    | st.integers(0, 70_000).map(bytes),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
_names = st.sampled_from(["news", "a", "b", "$x"]) | st.text(max_size=8)
_targets = st.sampled_from(
    ["Shop.echo", "Shop.give", "Shop.keep", "Shop.fail", "Shop.none", "$push.subscribe", "$push.x", ""]
)


def _call(number: int, target: str, args: list[Any], timeout: int) -> Frame:
    return call_frame(number, target, *args, timeout=timeout)


_calls = st.builds(
    _call, _ids, _targets, st.lists(_values, max_size=3), st.sampled_from([0, 0, 1, 2**32 - 1])
)
_useful_calls = st.one_of(
    st.builds(lambda n, size: call_frame(n, "Shop.give", size), _ids, st.integers(0, 70_000)),
    st.builds(lambda n, v, s: call_frame(n, "Shop.keep", v, s), _ids, _values, st.floats(0, 30)),
)
_subscriptions = st.builds(
    lambda n, name, since, policy, key: call_frame(n, "$push.subscribe", name, since, policy, key),
    _ids,
    _names,
    st.none() | st.sampled_from(["oldest", "newest", "snapshot"]) | _values,
    st.sampled_from(["drop oldest", "keep newest", "disconnect", "block", "x"]),
    _small,
)
_bodies = _values.map(lambda value: CBOR.encode(value, [])) | st.binary(max_size=60)


def _frames(kinds: list[FrameType], payloads: st.SearchStrategy[bytes]) -> st.SearchStrategy[Frame]:
    return st.builds(Frame, st.sampled_from(kinds), _flags, _small, _ids, payloads)


_answers = _frames([FrameType.RESULT, FrameType.FAULT, FrameType.CANCEL, FrameType.PUSH], _bodies)
_marks = _frames(
    [FrameType.CONFIRM, FrameType.CREDIT, FrameType.ACK],
    _numbers.map(lambda number: struct.pack("!Q", number)),
)
_beats = st.builds(
    lambda kind, count: Frame(kind, payload=struct.pack("!dQ", 1.0, count)),
    st.sampled_from([FrameType.PING, FrameType.PONG]),
    st.integers(0, 3) | _numbers,
)
_channels = _frames([FrameType.OPEN, FrameType.DATA, FrameType.CLOSE, FrameType.RESET], _bodies)
_handshakes = _frames([FrameType.HELLO, FrameType.WELCOME, FrameType.REFUSE, FrameType.GOAWAY], _bodies)

_frame = st.one_of(
    *(_calls, _useful_calls, _useful_calls, _subscriptions, _answers),
    *(_marks, _beats, _channels, _channels, _handshakes),
)
"""A frame that means something, most of the time."""


def _cut(frame: Frame, size: int) -> list[Frame]:
    """The frame in fragments of this size, or whole where it has to be."""
    if frame.type < 0x10 or len(frame.payload) <= size:
        return [frame]
    starts = range(0, len(frame.payload), size)
    parts = [(frame.payload[at : at + size], Flag.MORE if at != starts[-1] else 0) for at in starts]
    return [Frame(frame.type, frame.flags | more, frame.channel, frame.id, part) for part, more in parts]


def _bytes_of(frames: list[Frame], size: int, times: int) -> bytes:
    return encode([part for frame in frames for part in _cut(frame, size)]) * times


_said = st.builds(
    _bytes_of,
    st.lists(_frame, min_size=1, max_size=6),
    st.sampled_from([500, 4000]),
    st.sampled_from([1, 1, 1, 5, 40]),
)
_steps: st.SearchStrategy[Step] = st.one_of(
    _said.map(lambda data: partial(say, data)),
    _said.map(lambda data: partial(say, data)),
    mutated(_said).map(lambda data: partial(say, data)),
    streams.map(lambda data: partial(say, data)),
    st.just(listen),
    st.just(vanish),
    st.sampled_from([0.01, 1.0, 11.0]).map(lambda seconds: partial(wait, seconds)),
)


@given(st.lists(st.tuples(st.integers(0, STRANGERS - 1), _steps), min_size=1, max_size=25))
def others_are_served_and_the_cost_is_bounded(script: list[tuple[int, Step]]) -> None:
    async def main() -> None:
        settings: dict[str, Any] = {"limits": LIMITS, "heartbeat": QUIET}
        async with (
            heartline.open_server("memory://", services=[Shop()], **settings) as server,
            heartline.open_connection(server.urls[0], identity="bystander") as bystander,
            bystander.subscribe("news") as news,
            AsyncExitStack() as stack,
        ):
            stage = Stage(server, stack)
            for place, (number, step) in enumerate(script):
                await stage.act(number, step)
                with trio.fail_after(60):
                    await _serve(server, bystander, place)
                    update = await anext(news)
                assert isinstance(update, heartline.Update)
                assert (update.offset, update.value) == (place + 1, place)
                _check_bounds(server)

    with no_logged_errors():
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def _serve(server: Server, bystander: Connection, place: int) -> None:
    """What anybody may expect of a server, whatever others do."""
    assert await bystander.service(Shop).echo(place) == place
    await server.publish("news", place)
    assert bystander.statistics().links == 1


def _check_bounds(server: Server) -> None:
    statistics = server.statistics()
    strangers = len(server.connections) - 1
    assert len(server.connections) <= LIMITS.connections
    assert statistics.held <= strangers * LIMITS.memory + LIMITS.memory
    assert len(statistics.topics) <= LIMITS.topics + strangers * LIMITS.subscriptions
