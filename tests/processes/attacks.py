"""What strangers do after a valid handshake, or before one; each is bounded by the limits that it names.

An attack is a function of a :class:`Stage`, which it leaves with its peers still there: what they make the
server hold is measured then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import UUID

import trio

from heartline import Heartbeat, Limits
from heartline.rpc._wire import CALL_HEAD
from heartline.session.heartbeat import SHORTEST_TIMEOUT
from heartline.wire import (
    HEADER,
    CborSerializer,
    Flag,
    Frame,
    FrameType,
    JsonSerializer,
    MsgpackSerializer,
    Serializer,
    encode,
)
from tests.opening import open_stream
from tests.rpc.helpers import CBOR, QUIET, RawPeer, call_frame, raw_client

KIB = 1024
MIB = 1024 * KIB

TINY = Limits(
    frame_size=2048, message_size=2048, memory=64 * KIB, window=256, channels=1, calls=1, replay_buffer=2048,
    write_buffer=2048, resume_window=0,
)  # fmt: skip
"""What a stranger announces: nothing that it would have to read."""

LOST = Limits(resume_window=3600)
"""What a stranger announces that is to be waited for."""


MARK = b"that was"
"""The time in a PING, which its answer repeats."""


class Stage:
    """Where an attack takes place: peers that it opens stay until the stage is cleared."""

    def __init__(self, url: str, limits: Limits, stack: AsyncExitStack) -> None:
        self.url = url
        self.limits = limits
        self._stack = stack

    async def peer(self, limits: Limits = TINY, heartbeat: Heartbeat = QUIET) -> RawPeer:
        """A peer that has shaken hands, reads nothing unless told to, and is cut off at the end."""
        return await self._stack.enter_async_context(raw_client(self.url, limits, heartbeat))

    async def stream(self) -> trio.abc.Stream:
        """A stream of a stranger that has said nothing."""
        stream = await open_stream(self.url)
        self._stack.push_async_callback(trio.aclose_forcefully, stream)
        return stream


async def say(stream: trio.abc.Stream, data: bytes) -> None:
    """Send until the server has had enough."""
    with trio.move_on_after(2):
        try:
            await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it was shown the door


async def send(peer: RawPeer, *frames: Frame, times: int = 1) -> None:
    """Send frames, all of it as often."""
    await say(peer.stream, encode(frames) * times)


async def send_message(peer: RawPeer, frame: Frame) -> None:
    """Send a message in fragments."""
    await send(peer, *fragments(frame, 64 * KIB))


def fragments(frame: Frame, size: int) -> Iterable[Frame]:
    """A message as several frames."""
    starts = range(0, len(frame.payload), size)
    for start in starts:
        more = Flag.MORE if start != starts[-1] else 0
        part = frame.payload[start : start + size]
        yield Frame(frame.type, frame.flags | more, frame.channel, frame.id, part)


# Memory


async def answers_that_are_not_read(stage: Stage) -> None:
    """Calls for as much as one answer may have."""
    peer = await stage.peer(Limits(resume_window=0))
    size = stage.limits.message_size - KIB
    await send(peer, *[call_frame(number, "Shop.give", size) for number in range(200)])


async def small_answers_that_are_not_read(stage: Stage) -> None:
    """Calls for little, as many as fit down the line."""
    peer = await stage.peer()
    for start in range(0, 100_000, 1000):
        calls = [call_frame(start + number, "Shop.echo", "x" * 100) for number in range(1000)]
        await send(peer, *calls)


async def arguments_that_are_kept(stage: Stage) -> None:
    """Calls of a method that does not end, with arguments as long as a message may be."""
    peer = await stage.peer()
    value = bytes(stage.limits.message_size - KIB)
    for number in range(60):
        await send_message(peer, call_frame(number, "Shop.keep", value))


async def messages_that_nobody_accepts(stage: Stage) -> None:
    """Channels that the server does not accept, full of messages."""
    peer = await stage.peer()
    value = CBOR.encode(bytes(stage.limits.message_size - KIB), [])
    opened = [2 * number + 1 for number in range(stage.limits.channels)]
    await send(peer, *[Frame(FrameType.OPEN, channel=number, payload=b"x") for number in opened])
    for _ in range(60 // len(opened) + 1):
        for number in opened:
            await send_message(peer, Frame(FrameType.DATA, 0, number, CBOR.content_id, value))


async def halves_of_messages(stage: Stage) -> None:
    """Messages whose ends never come."""
    peer = await stage.peer()
    part = bytes(32 * KIB)
    for start in range(0, 2000, 50):
        frames = [Frame(FrameType.CALL, Flag.MORE, 0, start + number, part) for number in range(50)]
        await send(peer, *frames)


async def uploads_that_are_cut(stage: Stage) -> None:
    """Clients that are lost in the middle of a message, and that the server waits for."""
    for _ in range(30):
        peer = await stage.peer(LOST)
        frame = Frame(FrameType.CALL, payload=bytes(stage.limits.message_size - KIB))
        await send(peer, *list(fragments(frame, 64 * KIB))[:-1])
        await settle(peer)
        await trio.aclose_forcefully(peer.stream)


async def names_of_topics(stage: Stage) -> None:
    """Subscriptions to made-up topics, by several peers."""
    for which in range(4):
        peer = await stage.peer()
        calls = [
            call_frame(number, "$push.subscribe", f"{which}-{number}", None, "drop oldest", number)
            for number in range(2 * stage.limits.subscriptions)
        ]
        await send(peer, *calls)


async def pings(stage: Stage) -> None:
    """Questions whose answers are not read."""
    peer = await stage.peer()
    for _ in range(40):
        await send(peer, Frame(FrameType.PING, payload=bytes(16)), times=20_000)


async def greetings_that_are_not_finished(stage: Stage) -> None:
    """Streams that say the beginning of a long HELLO, more than there are places for."""
    for _ in range(300):
        await say(await stage.stream(), HEADER.pack(0xFFFF, FrameType.HELLO, 0, 0, 0) + bytes(60_000))


async def garbage(stage: Stage) -> None:
    """Streams that speak something else."""
    for opening in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"SSH-2.0-x\r\n", b"\xff" * 9):
        for _ in range(20):
            await say(await stage.stream(), opening + bytes(100_000))


# Time of the loop


async def calls_that_raise(stage: Stage) -> None:
    """A read full of calls, each of which raises."""
    peer = await stage.peer()
    await send(peer, *[call_frame(number, "Shop.fail") for number in range(10_000)])


async def confirmations_of_nothing(stage: Stage) -> None:
    """The end of subscriptions that do not exist, from a peer with as many as it may have."""
    peer = await stage.peer()
    calls = [
        call_frame(number, "$push.subscribe", f"t-{number}", None, "drop oldest", number)
        for number in range(stage.limits.subscriptions)
    ]
    await send(peer, *calls)
    await settle(peer)
    await send(peer, Frame(FrameType.CONFIRM, id=2**31, payload=b"\xff" * 8), times=50_000)


async def channels_that_open_and_close(stage: Stage) -> None:
    """A channel that is opened and closed at once, many thousand times."""
    peer = await stage.peer()
    both = Frame(FrameType.OPEN, channel=1, payload=b"x"), Frame(FrameType.RESET, channel=1)
    await send(peer, *both, times=20_000)


async def answers_to_nothing(stage: Stage) -> None:
    """Results, faults, ends and unknown frames that nobody asked for."""
    peer = await stage.peer()
    kinds = [FrameType.RESULT, FrameType.FAULT, FrameType.CANCEL, FrameType.PUSH]
    payload = b"\x01" + CBOR.encode(["x"], [])
    frames = [Frame(kind, id=number, payload=payload) for number in range(5000) for kind in kinds]
    await send(peer, *frames)
    await send(peer, Frame(0x7F, Flag.IGNORABLE, payload=bytes(100)), times=20_000)


async def calls_of_nothing(stage: Stage) -> None:
    """Methods that do not exist, with names as long as may be."""
    peer = await stage.peer()
    await send(peer, *[call_frame(number, f"{'x' * 400}.{'y' * 400}") for number in range(5000)])


async def newcomers(stage: Stage) -> None:
    """Clients that shake hands, and are gone."""
    for _ in range(100):
        peer = await stage.peer()
        await trio.aclose_forcefully(peer.stream)


LIST_HEADS = {CborSerializer: b"\x9a", MsgpackSerializer: b"\xdd"}


def bomb(serializer: type[Serializer], items: int) -> bytes:
    """The arguments that cost their receiver most for their bytes: a list of so many empty lists."""
    if serializer is JsonSerializer:
        return b"[[" + b"[]," * (items - 1) + b"[]]]"
    one, empty = (b"\x81", b"\x80") if serializer is CborSerializer else (b"\x91", b"\x90")
    return one + LIST_HEADS[serializer] + items.to_bytes(4) + empty * items


async def _bombs(stage: Stage, serializer: type[Serializer]) -> None:
    head = CALL_HEAD.pack(serializer.content_id, 0, len(b"Shop.length"), 0) + b"Shop.length"
    # The arguments, their list and its items: as many as the server takes, and one more. What JSON has
    # between items counts as well.
    most = stage.limits.items // (2 if serializer is JsonSerializer else 1) - 2
    peer = await stage.peer()
    for number, items in enumerate((most, most + 1)):
        await send_message(peer, Frame(FrameType.CALL, id=number, payload=head + bomb(serializer, items)))
        await settle(peer)


async def value_bombs_in_cbor(stage: Stage) -> None:
    """As many empty lists as one value may have, and one more."""
    await _bombs(stage, CborSerializer)


async def value_bombs_in_json(stage: Stage) -> None:
    """The same as text."""
    await _bombs(stage, JsonSerializer)


async def value_bombs_in_msgpack(stage: Stage) -> None:
    """The same in MessagePack."""
    await _bombs(stage, MsgpackSerializer)


async def value_bombs_at_once(stage: Stage) -> None:
    """Many calls with such values, of which all last bytes come together."""
    peer = await stage.peer()
    items = min(stage.limits.items - 2, 64 * KIB)
    ends = []
    for number in range(min(40, stage.limits.share // (items + KIB))):
        *parts, last = fragments(call_frame(number, "Shop.length", [[]] * items), 60_000)
        more, end = last.payload[:-1], last.payload[-1:]
        await send(peer, *parts, Frame(FrameType.CALL, Flag.MORE, 0, number, more))
        ends.append(Frame(FrameType.CALL, 0, 0, number, end))
    await send(peer, *ends)
    await settle(peer)


async def sets_of_one_hash(stage: Stage) -> None:
    """Items of a set that were chosen so that all have the same hash."""
    peer = await stage.peer()
    ids = [str(UUID(int=number * (2**61 - 1))) for number in range(5000)]
    await send_message(peer, call_frame(0, "Shop.known", ids))
    await settle(peer)


async def heartbeat_beggars(stage: Stage) -> None:
    """Peers that want a sign of life as often as may be asked for."""
    for _ in range(30):
        await stage.peer(heartbeat=Heartbeat(interval=SHORTEST_TIMEOUT / 3, timeout=SHORTEST_TIMEOUT))
    await trio.sleep(0.5)


async def settle(peer: RawPeer) -> None:
    """Wait until the server has read all that was sent: it answers a PING behind it."""
    await send(peer, *[Frame(FrameType.PING, payload=MARK + bytes(8))])
    received = b""
    with trio.move_on_after(5):
        while MARK not in received:
            data = await peer.stream.receive_some()
            if not data:
                return  # it was shown the door
            received = received[-len(MARK) :] + data


@dataclass(frozen=True)
class Attack:
    """What is done, and what it may cost."""

    do: Callable[[Stage], Awaitable[None]]
    limits: str
    """The settings that bound it."""
    memory: Callable[[Limits], int]
    """Bytes that it may make the server hold, by its limits; what an attack wants is several times that."""

    @property
    def name(self) -> str:
        """As it stands in a table."""
        return self.do.__name__.replace("_", " ")


def _nothing(_limits: Limits) -> int:
    return 0


def _some(amount: int) -> Callable[[Limits], int]:
    return lambda _limits: amount


ATTACKS: list[Attack] = [
    Attack(answers_that_are_not_read, "memory", lambda limits: limits.share + 2 * limits.message_size),
    Attack(small_answers_that_are_not_read, "write_buffer, calls", _some(8 * MIB)),
    Attack(arguments_that_are_kept, "memory", lambda limits: limits.share),
    Attack(messages_that_nobody_accepts, "memory, window", lambda limits: 2 * limits.share),
    Attack(halves_of_messages, "memory", lambda limits: limits.share),
    Attack(uploads_that_are_cut, "lost_buffer", lambda limits: limits.lost_buffer),
    Attack(names_of_topics, "subscriptions", lambda limits: 4 * limits.subscriptions * 4 * KIB),
    Attack(pings, "write_buffer", _some(8 * MIB)),
    Attack(greetings_that_are_not_finished, "handshakes", lambda limits: limits.handshakes * 64 * KIB),
    Attack(garbage, "handshakes", _nothing),
    Attack(calls_that_raise, "calls", _nothing),
    Attack(confirmations_of_nothing, "subscriptions", lambda limits: limits.subscriptions * 4 * KIB),
    Attack(channels_that_open_and_close, "channels", _nothing),
    Attack(answers_to_nothing, "none needed", _nothing),
    Attack(calls_of_nothing, "calls", _nothing),
    Attack(value_bombs_in_cbor, "items", _some(24 * MIB)),
    Attack(value_bombs_in_json, "items", _some(24 * MIB)),
    Attack(value_bombs_in_msgpack, "items", _some(24 * MIB)),
    Attack(value_bombs_at_once, "items, memory", lambda limits: limits.share + 24 * MIB),
    Attack(sets_of_one_hash, "none needed", _nothing),
    Attack(heartbeat_beggars, "none needed", _nothing),
    Attack(newcomers, "handshakes", _nothing),
]  # fmt: skip


def by_name(name: str) -> Attack:
    """The attack of this name."""
    (found,) = [attack for attack in ATTACKS if attack.name == name]
    return found


__all__ = ["ATTACKS", "Attack", "Stage", "by_name"]
