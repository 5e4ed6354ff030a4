"""Commands to a pair of sessions, as the connection's user, its peer, the link and the clock give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from fuzz.session_pair import BURST, World
from heartline.session.outbox import FRAGMENT_SIZE, MESSAGE_COST
from heartline.wire import Flag, Frame, FrameType, Limits
from heartline.wire.limits import SHARES, SMALL_CALL

KIB = 1024

WINDOW = 500
"""Bytes; a small window, and messages that use it up to the last byte, or leave one."""


@dataclass(frozen=True)
class Put:
    """A call or a push of so many whole fragments and some bytes."""

    side: int
    kind: FrameType
    number: int
    flags: int
    fragments: int
    more: int

    def __call__(self, world: World) -> None:
        side = world.sides[self.side]
        if side.is_open:
            payload = world.payload(self.fragments * side.fragment + self.more)
            side.put(Frame(self.kind, self.flags, 0, self.number, payload))


@dataclass(frozen=True)
class Data:
    """A message on one of the channels that are open here."""

    side: int
    channel: int
    fragments: int
    more: int

    def __call__(self, world: World) -> None:
        side = world.sides[self.side]
        if side.is_open:
            payload = world.payload(self.fragments * side.fragment + self.more)
            usable = side.usable()
            side.put(Frame(FrameType.DATA, 0, usable[self.channel % len(usable)], 0, payload))


@dataclass(frozen=True)
class Open:
    """A channel, or a call with a lane."""

    side: int
    kind: FrameType
    fragments: int
    more: int

    def __call__(self, world: World) -> None:
        side = world.sides[self.side]
        if side.is_open:
            length = self.fragments * side.fragment + self.more if self.kind == FrameType.CALL else self.more
            side.open_lane(self.kind, world.payload(length))


@dataclass(frozen=True)
class End:
    """One side ends its direction of a lane, behind what was sent or at once."""

    side: int
    channel: int
    breaks_off: bool
    at_once: bool
    fragments: int

    def __call__(self, world: World) -> None:
        side = world.sides[self.side]
        lanes = side.usable()[1:]
        if not lanes:
            return
        number = lanes[self.channel % len(lanes)]
        payload = b""
        kind = FrameType.RESET if self.breaks_off else FrameType.CLOSE
        if side.lanes[number].answers:
            kind = FrameType.FAULT if self.breaks_off else FrameType.RESULT
            payload = world.payload(self.fragments * side.fragment + 1)
        if self.at_once:
            side.break_off(number, kind, payload)
        else:
            side.end_lane(number, kind, payload)


@dataclass(frozen=True)
class Cancel:
    """A caller gives up a call with a lane, whether it has said all of its items or not."""

    side: int
    call: int

    def __call__(self, world: World) -> None:
        side = world.sides[self.side]
        calls = [n for n, lane in side.lanes.items() if lane.ours and lane.call is not None and not lane.over]
        if calls:
            side.cancel(sorted(calls)[self.call % len(calls)])


@dataclass(frozen=True)
class Consume:
    """The reader of a channel takes some messages."""

    side: int
    channel: int
    count: int

    def __call__(self, world: World) -> None:
        side = world.sides[self.side]
        if side.inbox:
            number = sorted(side.inbox)[self.channel % len(side.inbox)]
            for _ in range(self.count):
                side.consume(number)


@dataclass(frozen=True)
class Leave:
    side: int

    def __call__(self, world: World) -> None:
        if world.linked and world.sides[self.side].is_open:
            world.sides[self.side].leave()


@dataclass(frozen=True)
class Withdraw:
    side: int

    def __call__(self, world: World) -> None:
        world.sides[self.side].withdraw()


@dataclass(frozen=True)
class Take:
    side: int
    budget: int

    def __call__(self, world: World) -> None:
        world.sides[self.side].take(self.budget, world.now)


@dataclass(frozen=True)
class Arrive:
    """Some bytes get to this side."""

    side: int
    count: int

    def __call__(self, world: World) -> None:
        world.sides[self.side].arrive(self.count, world.now)


@dataclass(frozen=True)
class Lose:
    """One side finds its link lost; the other may be told in time, later, or by the next link."""

    side: int

    def __call__(self, world: World) -> None:
        world.lose(world.sides[self.side])


@dataclass(frozen=True)
class Break:
    """The link breaks for both; some bytes still get through, in each direction on its own."""

    arriving: tuple[int, int]

    def __call__(self, world: World) -> None:
        for side, count in zip(world.sides, self.arriving, strict=True):
            side.arrive(count, world.now)
        for side in world.sides:
            world.lose(side)


@dataclass(frozen=True)
class Dial:
    """The client begins another link; some bytes of its HELLO get through, and of the WELCOME."""

    hello: int
    budget: int
    welcome: int

    def __call__(self, world: World) -> None:
        world.dial(self.hello)
        world.server.take(self.budget, world.now)
        world.client.arrive(self.welcome, world.now)


@dataclass(frozen=True)
class Tick:
    seconds: float

    def __call__(self, world: World) -> None:
        world.tick(self.seconds)


Command = Callable[[World], None]

_sides = st.integers(0, 1)
_small = st.integers(0, 3)
_budgets = st.sampled_from([0, 1, 5000, BURST, BURST])
_counts = st.integers(0, 100) | st.sampled_from([2 * KIB, 50 * KIB, 10_000 * KIB])
_kinds = st.sampled_from([kind for kind in FrameType if kind >= FrameType.CALL])
_fragments = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3, 6])
_more = st.sampled_from([0, 1, WINDOW - MESSAGE_COST]) | st.integers(0, 40)

_put = st.builds(Put, _sides, _kinds, _small, st.sampled_from([0, int(Flag.RAW)]), _fragments, _more)
_data = st.builds(Data, _sides, _small, _fragments, _more)
_take = st.builds(Take, _sides, _budgets)
_arrive = st.builds(Arrive, _sides, _counts)
_rare = st.one_of(
    st.builds(Open, _sides, st.sampled_from([FrameType.OPEN, FrameType.CALL]), _fragments, _more),
    st.builds(End, _sides, _small, st.booleans(), st.booleans(), _fragments),
    st.builds(Cancel, _sides, _small),
    st.builds(Consume, _sides, _small, st.integers(1, 5)),
    st.builds(Tick, st.sampled_from([0.1, 1.0, 10.0, 1000.0])),
    st.builds(Withdraw, _sides),
    st.builds(Leave, _sides),
)
_dial = st.builds(Dial, st.sampled_from([BURST, BURST, BURST, 0, 100]), _budgets, _counts)
_loss = st.one_of(st.builds(Lose, _sides), st.builds(Break, st.tuples(_counts, _counts)), _dial, _dial)
commands: st.SearchStrategy[Command] = st.one_of(_put, _data, _take, _arrive, _rare, _rare, _loss)


def _limits(
    frame_size: int, messages: int, more: int, window: int, channels: int, resume: float, replay: int
) -> Limits:
    buffer = KIB
    settled = (channels + 1) * window + SMALL_CALL + replay + buffer
    return Limits(
        frame_size=frame_size,
        message_size=frame_size * messages,
        memory=SHARES * max(settled, frame_size * messages + more),
        calls=1,
        write_buffer=buffer,
        window=window,
        channels=channels,
        resume_window=resume,
        replay_buffer=replay,
    )


limits = st.builds(
    _limits,
    st.sampled_from([2 * KIB, 3000, FRAGMENT_SIZE, 256 * KIB]),
    st.sampled_from([1, 3, 100]),
    st.sampled_from([0, 0, 10 * KIB, 10_000 * KIB]),
    st.sampled_from([1, WINDOW, WINDOW, 256 * KIB]),
    st.sampled_from([1, 2, 256]),
    st.sampled_from([60.0, 60.0, 60.0, 0.0]),
    st.sampled_from([1, 1000, 100 * KIB, 4096 * KIB, 4096 * KIB]),
)
