"""Two sessions, a link between them that cuts and joins as it likes, and an observer who knows the rules.

The observer keeps, for each side, what was put and not yet taken, in the simplest way; every take and every
arrival is held against it. So a property is a script: any commands in any order, then :meth:`World.settle`.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from dataclasses import dataclass

from heartline.errors import LocalProtocolError
from heartline.session import GoAway, Heartbeat, Role, Session, State
from heartline.session.messages import render
from heartline.session.outbox import FRAGMENT_SIZE, MESSAGE_COST
from heartline.session.session import Event
from heartline.wire import CONTROL_TYPES, HEADER_SIZE, Flag, Frame, FrameDecoder, FrameType, Limits

BURST = 256 * 1024

HEARTBEAT = Heartbeat(interval=10, timeout=1e9)
"""PINGs are sent, and nobody is given up: that is another property."""

Key = tuple[int, int]
"""What stays in order: the family, and the channel or the id."""

_ANY = Limits(frame_size=2**24 - 1)
_LANE = FrameType.OPEN >> 4
_ENDS = (FrameType.CLOSE, FrameType.RESET)


def key_of(frame: Frame) -> Key:
    family = frame.type >> 4
    return family, frame.channel if family == _LANE else frame.id


def size_of(frame: Frame) -> int:
    return HEADER_SIZE + len(frame.payload)


@dataclass
class Waiting:
    """A message that waits for its turns."""

    frame: Frame
    taken: int = 0
    started: bool = False
    first_since: int = 0
    """When it became the first of its queue by its turn, counted in steps."""


class Side:
    """One session, its user, and the observer's notes about both."""

    def __init__(self, role: Role, limits: Limits) -> None:
        self.session = Session(role, limits=limits, heartbeat=HEARTBEAT, now=0.0)
        self.limits = limits
        self.peer = self
        self.pipe = bytearray()
        """Taken here, not yet arrived there."""
        self.said = 0
        """Bytes of control frames that this side's user asked for and that were not taken."""
        self.ready: list[Frame] = []
        """Small messages that nothing holds up."""
        self.waiting: dict[Key, deque[Waiting]] = defaultdict(deque)
        self.under_way: dict[Key, deque[Frame]] = defaultdict(deque)
        """Messages wholly taken that have not arrived."""
        self.credit: dict[int, int] = {}
        """What this side may still start to send, by channel."""
        self.owed: dict[int, int] = {}
        """Credit to give back with the next take, by channel."""
        self.frames = 0
        self._steps = 0
        self.gone_since: dict[Key, set[Key]] = {}
        """For each long message under way: whose fragments went since its own last one."""
        self.open: set[int] = set()
        self.closing: set[int] = set()
        self.next = 1 if role is Role.CLIENT else 2
        self.inbox: dict[int, deque[int]] = defaultdict(deque)
        self._taken = FrameDecoder(_ANY)
        self._arrived = FrameDecoder(_ANY)

    @property
    def is_open(self) -> bool:
        return self.session.state in (State.OPEN, State.LEAVING)

    @property
    def fragment(self) -> int:
        return min(FRAGMENT_SIZE, self.peer.limits.frame_size)

    @property
    def heads(self) -> list[Waiting]:
        return [queue[0] for queue in self.waiting.values() if queue]

    # Putting

    def put(self, frame: Frame) -> None:
        before = self.session.outbox.size
        try:
            self.session.send(frame.type, frame.channel, frame.id, frame.payload, frame.flags)
        except LocalProtocolError:
            assert len(frame.payload) > self.peer.limits.message_size
            assert self.session.outbox.size == before
            return
        assert len(frame.payload) <= self.peer.limits.message_size
        key = key_of(frame)
        if not self.waiting[key] and len(frame.payload) <= self.fragment and self._may_be_paid(frame):
            self._pay(frame)
            self.ready.append(frame)
        else:
            self._steps += 1
            self.waiting[key].append(Waiting(frame, first_since=self._steps))

    def _may_be_paid(self, frame: Frame) -> bool:
        return frame.type != FrameType.DATA or self.credit[frame.channel] > 0

    def _pay(self, frame: Frame) -> None:
        if frame.type == FrameType.DATA:
            self.credit[frame.channel] -= len(frame.payload) + MESSAGE_COST

    def open_channel(self) -> None:
        if sum(number % 2 == self.next % 2 for number in self.open) < self.peer.limits.channels:
            self._add(self.next)
            self.put(Frame(FrameType.OPEN, 0, self.next, 0, b"name"))
            self.next += 2

    def _add(self, number: int) -> None:
        self.open.add(number)
        self.credit[number] = self.peer.limits.window
        self.session.open_channel(number)

    def end_channel(self, number: int, kind: FrameType) -> None:
        if number not in self.closing:
            self.closing.add(number)
            self.put(Frame(kind, 0, number, 0, b""))

    def consume(self, number: int) -> None:
        if self.inbox[number]:
            length = self.inbox[number].popleft()
            self.session.consume(number, length)
            if number in self.credit:
                self.owed[number] = self.owed.get(number, 0) + length + MESSAGE_COST

    def withdraw(self) -> None:
        """Take the calls back that the peer cannot have seen."""
        unsent = self._unsent(FrameType.CALL)
        assert self.session.outbox.withdraw(FrameType.CALL) == unsent
        self.ready = [frame for frame in self.ready if frame.type != FrameType.CALL]
        for key in self.waiting:
            self._drop(key, FrameType.CALL)

    def _drop(self, key: Key, kind: FrameType) -> None:
        kept = [m for m in self.waiting[key] if m.started or m.frame.type != kind]
        if kept and kept[0] is not self.waiting[key][0]:
            kept[0].first_since = 0
        self.waiting[key] = deque(kept)

    def leave(self) -> None:
        self.session.go_away(1, "enough", drain=5.0)
        self.said += HEADER_SIZE + len(render(GoAway(code=1, reason="enough", drain=5.0)))

    # Taking

    def take(self, budget: int, now: float) -> int:
        """Take, and hold every frame against the notes; gives the number of bytes."""
        data = b"".join(self.session.take(budget, now))
        self.pipe += data
        frames = self._taken.feed(data)
        self._taken.close()
        control = 0
        while control < len(frames) and frames[control].type in CONTROL_TYPES:
            control += 1
        assert _grants(frames) == self.owed
        self.owed = {}
        self.said = 0
        self.frames += len(frames) - control
        small = control + len(self.ready)
        assert frames[control:small] == self.ready, "small frames go next, all of them, in order"
        for frame in self.ready:
            self.under_way[key_of(frame)].append(frame)
        self.ready = []
        taken = sum(map(size_of, frames[:small]))
        for place, fragment in enumerate(frames[small:]):
            assert taken < budget or place == 0, "more than the budget"
            taken += size_of(fragment)
            self._cut(fragment)
        if taken < budget or len(frames) == small:
            assert not any(map(self._could_go, self.heads)), "something could have gone"
        return len(data)

    def _could_go(self, message: Waiting) -> bool:
        if message.started:
            return True
        streams = sum(m.started for m in self.heads)
        full = self._is_long(message) and streams >= self.peer.limits.streams
        return self._may_be_paid(message.frame) and not full

    def _is_long(self, message: Waiting) -> bool:
        return len(message.frame.payload) > self.fragment

    def _start(self, message: Waiting) -> None:
        self._pay(message.frame)
        if message.frame.type != FrameType.DATA and self._is_long(message) and message.first_since:
            for other in self.heads:
                if other.frame.type != FrameType.DATA and self._is_long(other) and not other.started:
                    assert message.first_since <= (other.first_since or self._steps), (
                        "who waits longest is next"
                    )
        message.started = True

    def _cut(self, fragment: Frame) -> None:
        key = key_of(fragment)
        message = self.waiting[key][0]
        whole = message.frame
        assert self._could_go(message), "a fragment without a right to it"
        if not message.started:
            self._start(message)
        part = whole.payload[message.taken : message.taken + self.fragment]
        message.taken += len(part)
        done = message.taken == len(whole.payload)
        flags = whole.flags if done else whole.flags | Flag.MORE
        assert fragment == Frame(whole.type, flags, whole.channel, whole.id, part)
        self.gone_since[key] = set()
        if done:
            self.waiting[key].popleft()
            self._steps += 1
            for following in list(self.waiting[key])[:1]:
                following.first_since = self._steps
            self.under_way[key].append(whole)
            del self.gone_since[key]
        for other, gone in self.gone_since.items():
            if other != key:
                assert key not in gone, "two turns before another's one"
                gone.add(key)

    # Arriving

    def arrive(self, count: int, now: float) -> None:
        """The first bytes of the pipe get to the peer."""
        data = bytes(self.pipe[:count])
        del self.pipe[:count]
        peer = self.peer
        events = peer.session.receive(data, now)
        assert not peer.session.failed
        for number, amount in _grants(self._arrived.feed(data)).items():
            if number in peer.credit:
                peer.credit[number] += amount
        for event in events:
            peer.on_event(event)

    def on_event(self, event: Event) -> None:
        if not isinstance(event, Frame):
            return
        sent = self.peer.under_way[key_of(event)].popleft()
        assert event == sent, "messages of one key arrive as they were sent, in order"
        if event.type == FrameType.OPEN:
            self._add(event.channel)
        elif event.type in _ENDS:
            self._on_end(event.channel)
        elif event.type == FrameType.DATA:
            self.inbox[event.channel].append(len(event.payload))
            if event.channel in self.closing:
                self.consume(event.channel)

    def _on_end(self, number: int) -> None:
        """As the connection does it: forget what waits for credit that will not come, then answer."""
        self.session.close_channel(number)
        self.owed.pop(number, None)
        del self.credit[number]
        self._drop((_LANE, number), FrameType.DATA)
        self.end_channel(number, FrameType.CLOSE)
        self.open.discard(number)
        self.closing.discard(number)

    # What must hold at any time

    def check(self) -> None:
        session = self.session
        assert session.sent == self.frames
        assert session.confirmed <= session.sent
        assert session.confirmed <= self.peer.session.received <= session.sent
        assert session.outbox.size == self.said + self._size()
        for kind in (FrameType.CALL, FrameType.DATA, FrameType.PUSH):
            assert session.outbox.unsent(kind) == self._unsent(kind)
        queued = [message.frame for queue in self.waiting.values() for message in queue]
        assert session.outbox.answers == sum(f.type in (FrameType.RESULT, FrameType.FAULT) for f in queued)
        assert session.outbox.small == self.said + sum(map(size_of, self.ready))
        assert session.outbox.waiting == len(self.ready) + len(self.heads)

    def _unsent(self, kind: FrameType) -> set[int]:
        queued = [m.frame for queue in self.waiting.values() for m in queue if not m.started]
        return {frame.id for frame in [*queued, *self.ready] if frame.type == kind}

    def _size(self) -> int:
        """Bytes that the notes say are still to be taken, headers of fragments included."""
        total = sum(map(size_of, self.ready))
        for queue in self.waiting.values():
            for message in queue:
                rest = len(message.frame.payload) - message.taken
                total += rest + HEADER_SIZE * max(1, -(-rest // self.fragment))
        return total


def _grants(frames: list[Frame]) -> dict[int, int]:
    grants: dict[int, int] = defaultdict(int)
    for frame in frames:
        if frame.type == FrameType.CREDIT:
            grants[frame.id] += int.from_bytes(frame.payload, "big")
    return grants


class World:
    """Both sides, and the time."""

    def __init__(self, client: Limits, server: Limits) -> None:
        self.now = 0.0
        self.sides = (Side(Role.CLIENT, client), Side(Role.SERVER, server))
        self.client, self.server = self.sides
        self.client.peer, self.server.peer = self.server, self.client
        self._random = random.Random(0)

    def payload(self, length: int) -> bytes:
        """Bytes unlike any others: what is lost, doubled or mixed up shows."""
        return self._random.randbytes(length)

    def greet(self) -> None:
        """Shake hands; the WELCOME has not arrived when it is done."""
        self.client.session.hello()
        self.client.take(BURST, self.now)
        self.client.arrive(BURST, self.now)
        self.server.session.welcome("id")
        self.server.take(BURST, self.now)
        for side in self.sides:
            side.credit[0] = side.peer.limits.window

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for side in self.sides:
            assert side.session.check(self.now) > self.now
            assert side.session.outbox.size == side.said + side._size()

    def check(self) -> None:
        for side in self.sides:
            side.check()

    def settle(self) -> None:
        """Read, take and deliver until nothing moves; then everything must have arrived."""
        moving = True
        while moving:
            moving = False
            for side in self.sides:
                for number in list(side.inbox):
                    while side.inbox[number]:
                        side.consume(number)
                moving |= side.take(BURST, self.now) > 0 or bool(side.pipe)
                side.arrive(len(side.pipe), self.now)
            self.check()
        for side in self.sides:
            assert not any(side.under_way.values()), "not delivered"
            assert not side.heads, "not sent"
            assert side.session.outbox.size == 0
            assert not side.session.has_output
            assert side.session.sent == side.peer.session.received
            assert side.credit == dict.fromkeys((0, *side.open), side.peer.limits.window)
            assert not side.closing
        assert self.client.open == self.server.open
