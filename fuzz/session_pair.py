"""Two sessions, links that cut, join and break as they like, and an observer who knows the rules.

The observer keeps, for each side, what was put and not yet taken, and what was taken and not yet confirmed,
in the simplest way; every take and every arrival is held against it. So a property is a script: any commands
in any order, then :meth:`World.settle`.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import pytest

from heartline.errors import LocalProtocolError
from heartline.session import GoAway, Heartbeat, Hello, Role, Session, State, Welcome
from heartline.session.messages import render
from heartline.session.outbox import FRAGMENT_SIZE, MESSAGE_COST, STREAMS
from heartline.session.replay import SMALL
from heartline.session.session import Event
from heartline.wire import CONTROL_TYPES, HEADER_SIZE, Flag, Frame, FrameDecoder, FrameType, Limits

BURST = 256 * 1024

HEARTBEAT = Heartbeat(interval=10, timeout=1e9)
"""PINGs are sent, and nobody is given up: that is another property."""

Key = tuple[int, int]
"""What stays in order: the family and the id, or 1 (that of lanes) and the channel."""

_ANY = Limits(frame_size=2**24 - 1)
_LANE = FrameType.OPEN >> 4
_ANSWERS = (FrameType.RESULT, FrameType.FAULT)
_ENDS = (FrameType.CLOSE, FrameType.RESET, FrameType.RESULT, FrameType.FAULT)
_MARKS = (FrameType.PING, FrameType.PONG, FrameType.ACK)


def key_of(frame: Frame) -> Key:
    family = frame.type >> 4
    return (_LANE, frame.channel) if frame.channel or family == _LANE else (family, frame.id)


def is_end(frame: Frame) -> bool:
    """Whether its sender has ended its direction of a lane with it."""
    return frame.type in _ENDS and frame.channel > 0


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


class Kept(NamedTuple):
    """A frame that was taken and that the peer has not confirmed."""

    position: int
    take: int
    """Which take it was part of: frames of one take are sent again together, and short takes count as one."""
    frame: Frame


@dataclass
class Lane:
    """What a side's user knows of a lane other than 0."""

    ours: bool
    call: int | None
    """The id of the call that opened it; ``None`` for a channel."""
    ending: bool = False
    """Our end was put."""
    left: bool = False
    """Our end was taken, or is one of the small messages that nothing holds up."""
    over: bool = False
    """The peer's end has come."""

    @property
    def answers(self) -> bool:
        """Whether our end is an answer."""
        return self.call is not None and not self.ours


class Wire:
    """The bytes of one link that were taken and have not arrived, by the side that sent them."""

    def __init__(self) -> None:
        self.sent_by = {Role.CLIENT: bytearray(), Role.SERVER: bytearray()}
        self.decoders = {role: FrameDecoder(_ANY) for role in Role}

    def pop(self, sender: Role, count: int) -> tuple[bytes, list[Frame]]:
        """The first bytes of one direction, and the frames that they complete."""
        pipe = self.sent_by[sender]
        data = bytes(pipe[:count])
        del pipe[:count]
        return data, self.decoders[sender].feed(data)


class Side:
    """One session, its user, and the observer's notes about both."""

    def __init__(self, role: Role, limits: Limits, marks: Counter[str]) -> None:
        self.role = role
        self.session = Session(role, limits=limits, heartbeat=HEARTBEAT, now=0.0)
        self.limits = limits
        self.peer = self
        self.marks = marks
        self.wire: Wire | None = Wire()
        self.fresh: Session | None = None
        """Client: it shakes hands on the wire, for the session that is lost."""
        self.late: list[Frame] = []
        """Came behind a WELCOME; the session looks at them with the next arrival."""
        self.kept: deque[Kept] = deque()
        self.again: deque[Kept] = deque()
        """What is kept and has to be sent again."""
        self.confirmed = 0
        self.received = 0
        self.halves: set[tuple[int, int, int]] = set()
        """Messages of which some fragments arrived here."""
        self.tokens = 0
        self.lost_welcomes = 0
        """Times in a row that the client came with a token that it had shown before."""
        self.said = 0
        """Bytes of control frames that this side's user asked for and that were not taken."""
        self.ready: list[Frame] = []
        """Small messages that nothing holds up."""
        self.waiting: dict[Key, deque[Waiting]] = defaultdict(deque)
        self.under_way: dict[Key, deque[Frame]] = defaultdict(deque)
        """Messages wholly taken that have not arrived."""
        self.credit: dict[int, int] = {}
        """What this side may still start to send, by channel."""
        self.returned: dict[int, int] = {}
        """Credit given back so far, by channel."""
        self.owed: set[int] = set()
        """Channels whose credit the next take has to tell."""
        self.told: dict[int, int] = {}
        """The last CREDIT that arrived here, by channel."""
        self.frames = 0
        self.takes = 0
        self._steps = 0
        self.gone_since: dict[Key, set[Key]] = {}
        """For each long message under way: whose fragments went since its own last one."""
        self.lanes: dict[int, Lane] = {}
        """Those that are not free, without lane 0."""
        self.inbox: dict[int, deque[int]] = defaultdict(deque)
        self._taken = FrameDecoder(_ANY)

    @property
    def is_open(self) -> bool:
        """Whether its user may send."""
        return self.session.state in (State.OPEN, State.LEAVING, State.LOST)

    @property
    def keeps(self) -> bool:
        """Whether what is taken now is kept."""
        resumable = self.limits.resume_window and self.peer.limits.resume_window
        return bool(resumable) and self.session.state is State.OPEN

    @property
    def is_full(self) -> bool:
        return self.keeps and self._kept_size() >= self.limits.replay_buffer

    @property
    def fragment(self) -> int:
        return min(FRAGMENT_SIZE, self.peer.limits.frame_size)

    @property
    def heads(self) -> list[Waiting]:
        return [queue[0] for queue in self.waiting.values() if queue]

    # Putting

    def put(self, frame: Frame) -> None:
        before = self.session.outbox.size
        may_borrow = not self.session._lanes.loan_awaited  # who waits longest for a loan is believed here
        try:
            self.session.send(frame.type, frame.channel, frame.id, frame.payload, frame.flags)
        except LocalProtocolError:
            assert len(frame.payload) > self.peer.limits.message_size
            assert self.session.outbox.size == before
            return
        assert len(frame.payload) <= self.peer.limits.message_size
        self._note_put(frame, may_borrow=may_borrow)

    def _note_put(self, frame: Frame, *, may_borrow: bool = True) -> None:
        key = key_of(frame)
        if frame.type in (FrameType.OPEN, FrameType.CALL) and frame.channel:
            self._add(frame, ours=True)
        if is_end(frame):
            self.lanes[frame.channel].ending = True
        may_be_paid = self._may_be_paid(frame) and (may_borrow or not self._loan(frame))
        if key not in self.waiting and len(frame.payload) <= self.fragment and may_be_paid:
            self._pay(frame)
            self._is_ready(frame)
        else:
            self._steps += 1
            self.waiting[key].append(Waiting(frame, first_since=self._steps))

    def _is_ready(self, frame: Frame) -> None:
        self.ready.append(frame)
        if is_end(frame):
            self._end_left(frame.channel)

    def _may_be_paid(self, frame: Frame) -> bool:
        if frame.type != FrameType.DATA:
            return True
        loan, share = self._loan(frame), self.peer.limits.share
        return self.credit[frame.channel] > 0 and (
            not loan or not self.borrowed or self.borrowed + loan <= share
        )

    def _loan(self, frame: Frame) -> int:
        """What a message has to borrow from the account of all lanes."""
        if frame.type != FrameType.DATA:
            return 0
        return max(0, len(frame.payload) + MESSAGE_COST - self.credit[frame.channel])

    @property
    def borrowed(self) -> int:
        """Credit that this side has spent beyond its windows."""
        return sum(max(0, -credit) for credit in self.credit.values())

    def _pay(self, frame: Frame) -> None:
        if frame.type == FrameType.DATA:
            self.credit[frame.channel] -= len(frame.payload) + MESSAGE_COST

    def open_lane(self, kind: FrameType, payload: bytes) -> None:
        """Open a channel, or call with a lane."""
        if sum(lane.ours for lane in self.lanes.values()) < self.peer.limits.channels:
            number = self.session.next_channel()
            self.put(Frame(kind, 0, number, 1000 + number if kind == FrameType.CALL else 0, payload))
        else:
            with pytest.raises(LocalProtocolError, match=r"Limits\.channels"):
                self.session.next_channel()

    def _add(self, frame: Frame, *, ours: bool) -> None:
        self.lanes[frame.channel] = Lane(ours, frame.id if frame.type == FrameType.CALL else None)
        self.credit[frame.channel] = self.peer.limits.window

    def usable(self) -> list[int]:
        """The lanes on which this side may send."""
        return [0, *sorted(number for number, lane in self.lanes.items() if not lane.ending)]

    def end_lane(self, number: int, kind: FrameType, payload: bytes) -> None:
        """End our direction behind what was sent."""
        self.put(Frame(kind, 0, number, self._end_id(number, kind), payload))

    def break_off(self, number: int, kind: FrameType, payload: bytes = b"") -> None:
        """End our direction at once."""
        frame = Frame(kind, 0, number, self._end_id(number, kind), payload)
        if len(payload) > self.peer.limits.message_size:
            return
        self.session.break_off(frame.type, number, frame.id, payload)
        lane = self.lanes.get(number)
        waiting = self.waiting.get((_LANE, number))
        leaving = waiting is not None and waiting[0].started and is_end(waiting[0].frame)
        if lane is not None and not lane.left and not leaving:
            self.marks["end taken back"] += lane.ending
            self._abandon((_LANE, number), begun=len(payload) <= self.fragment)
            self._note_put(frame)

    def _end_id(self, number: int, kind: FrameType) -> int:
        lane = self.lanes.get(number)
        return lane.call or 0 if lane is not None and kind in _ANSWERS else 0

    def cancel(self, number: int) -> None:
        """Give a call with a lane up, whatever was put on it."""
        lane = self.lanes[number]
        self.break_off(number, FrameType.RESET)
        self.put(Frame(FrameType.CANCEL, 0, number, lane.call or 0))

    def consume(self, number: int) -> None:
        if self.inbox[number]:
            length = self.inbox[number].popleft()
            self.session.consume(number, length)
            if not number or (number in self.lanes and not self.lanes[number].over):
                self.returned[number] = self.returned.get(number, 0) + length + MESSAGE_COST
                self.owed.add(number)

    def withdraw(self) -> None:
        """Take the calls back that the peer cannot have seen."""
        unsent = self._unsent(FrameType.CALL)
        assert self.session.outbox.withdraw(FrameType.CALL) == unsent
        void = {n for n, lane in self.lanes.items() if lane.ours and lane.call in unsent}
        self.marks["withdrawn with its lane"] += bool(void)
        self.ready = [f for f in self.ready if f.type != FrameType.CALL and f.channel not in void]
        for key in list(self.waiting):
            if key[0] == _LANE and key[1] in void:
                del self.waiting[key]
            else:
                self._leave_waiting(
                    key, [m for m in self.waiting[key] if m.started or m.frame.type != FrameType.CALL]
                )
        for number in void:
            self._free(number)

    def _abandon(self, key: Key, *, begun: bool) -> None:
        """Nothing but the CALL is sent of what waits on a lane."""
        if key not in self.waiting:
            return
        head = self.waiting[key][0]
        kept = [message for message in self.waiting[key] if message.frame.type == FrameType.CALL]
        if head.started and head.frame.type == FrameType.DATA:
            if not begun:
                kept.insert(0, head)
            else:
                self.marks["broken off inside a message"] += 1
                del self.gone_since[key]
        self._leave_waiting(key, kept)

    def _leave_waiting(self, key: Key, kept: list[Waiting]) -> None:
        """This is left of a queue; small frames that are first now lack nothing."""
        if kept and kept[0] is not self.waiting[key][0]:
            while kept and not self._is_long(kept[0]) and kept[0].frame.type != FrameType.DATA:
                self._is_ready(kept.pop(0).frame)
            for message in kept[:1]:
                message.first_since = 0
        self.waiting[key] = deque(kept)
        if not kept:
            del self.waiting[key]

    def _end_left(self, number: int) -> None:
        lane = self.lanes[number]
        lane.left = True
        if lane.over:
            self._free(number)

    def _free(self, number: int) -> None:
        del self.lanes[number], self.credit[number]
        self.inbox.pop(number, None)
        self.told.pop(number, None)

    def leave(self) -> None:
        self.session.go_away(1, "enough", drain=5.0)
        self.said += HEADER_SIZE + len(render(GoAway(code=1, reason="enough", drain=5.0)))

    # Taking

    def take(self, budget: int, now: float) -> int:
        """Take, and hold every frame against the notes; gives the number of bytes."""
        if self.wire is None or self.fresh is not None:
            return 0  # there is nothing to write to
        room = budget
        if self.keeps:
            # How much of long messages the line carries is the pace's own property, and believed here.
            room = min(budget, int(self.session._pace.limit) - self._kept_size())
        data = b"".join(self.session.take(budget, now))
        self.wire.sent_by[self.role] += data
        frames = self._taken.feed(data)
        self._taken.close()
        control = list(takewhile(lambda frame: frame.type in CONTROL_TYPES, frames))
        assert self.keeps or all(frame.type != FrameType.ACK for frame in control)
        assert _grants(frames) == {number: self.returned[number] for number in self.owed}
        self.owed.clear()
        self.said = 0
        new = self._check_again(frames[len(control) :], budget)
        if self.again or self.is_full:
            assert not new, "nothing new while something is to be sent again, or as much as may be is kept"
            self.marks["full"] += self.is_full and bool(self.ready or self.heads)
        else:
            self._check_new(new, room)
            self._keep(new)
        return len(data)

    def _check_again(self, frames: list[Frame], budget: int) -> list[Frame]:
        """What has to be sent again goes first: whole takes, until the budget is reached; gives the rest."""
        sent: list[Kept] = []
        size = 0
        while self.again and (size < budget or not sent):
            take = self.again[0].take
            while self.again and self.again[0].take == take:
                sent.append(self.again.popleft())
                size += size_of(sent[-1].frame)
        assert frames[: len(sent)] == [kept.frame for kept in sent], "what was lost is sent again, in order"
        self.marks["replay in parts"] += bool(sent and self.again)
        return frames[len(sent) :]

    def _check_new(self, frames: list[Frame], budget: int) -> None:
        small = len(self.ready)
        assert frames[:small] == self.ready, "small frames go next, all of them, in order"
        for frame in self.ready:
            self.under_way[key_of(frame)].append(frame)
        self.ready = []
        taken = sum(map(size_of, frames[:small]))
        if budget <= 0 and self.keeps:
            assert len(frames) == small, "more than the line carries"
            return
        for place, fragment in enumerate(frames[small:]):
            assert taken < budget or place == 0, "more than the budget"
            taken += size_of(fragment)
            self._cut(fragment)
        if taken < budget or len(frames) == small:
            waiting = [message for message in self.heads if not self._could_go(message)]
            assert not any(self._could_go(m) and not self._gives_way(m, waiting) for m in self.heads), (
                "something could have gone"
            )

    def _keep(self, frames: list[Frame]) -> None:
        if not self._joins(frames):
            self.takes += 1
        if self.keeps:
            positions = range(self.frames + 1, self.frames + len(frames) + 1)
            self.kept += [
                Kept(position, self.takes, frame) for position, frame in zip(positions, frames, strict=True)
            ]
        self.frames += len(frames)

    def _joins(self, frames: list[Frame]) -> bool:
        """Whether a short take is kept together with the one before it."""
        if not self.kept or sum(map(size_of, frames)) >= SMALL:
            return False
        last = [kept.frame for kept in self.kept if kept.take == self.kept[-1].take]
        return sum(map(size_of, last)) < SMALL

    def _kept_size(self) -> int:
        return sum(size_of(kept.frame) for kept in self.kept)

    def _confirm(self, count: int) -> None:
        self.confirmed = count
        for frames in (self.kept, self.again):
            while frames and frames[0].position <= count:
                frames.popleft()

    def _could_go(self, message: Waiting) -> bool:
        if message.started:
            return True
        return self._may_be_paid(message.frame) and self._has_room(message)

    def _has_room(self, message: Waiting) -> bool:
        """Whether the peer has room for the half of it."""
        begun = [len(m.frame.payload) for m in self.heads if m.started]
        if not self._is_long(message) or not begun:
            return True
        return len(begun) < STREAMS and sum(begun) + len(message.frame.payload) <= self.peer.limits.share

    def _gives_way(self, message: Waiting, waiting: list[Waiting]) -> bool:
        """Whether it needs what another one waits for, and may have to stay behind it."""
        if message.started:
            return False
        return any(
            (self._is_long(message) and not self._has_room(other))
            or (self._loan(message.frame) > 0 and self._loan(other.frame) > 0)
            for other in waiting
        )

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
            if not self.waiting[key]:
                del self.waiting[key]
            self.under_way[key].append(whole)
            del self.gone_since[key]
            if is_end(whole):
                self.marks["end waited for credit"] += whole.type in _ANSWERS
                self._end_left(whole.channel)
        for other, gone in self.gone_since.items():
            if other != key:
                assert key not in gone, "two turns before another's one"
                gone.add(key)
                self.marks["interleaved"] += 1

    # Arriving

    def arrive(self, count: int, now: float) -> None:
        """The first bytes that the peer sent on this side's wire get here."""
        if self.wire is None:
            return
        data, frames = self.wire.pop(self.peer.role, count)
        if self.role is Role.CLIENT and (self.fresh is not None or self.session.state is State.GREETING):
            self._shake_hands(data, frames, now)
            return
        frames, self.late = self.late + frames, []
        assert not self.session.holds_back or frames
        events = self.session.receive(data, now)
        while self.session.holds_back:
            events += self.session.receive(b"", now)
        assert not self.session.failed
        for frame in frames:
            self._note(frame)
        for event in events:
            self.on_event(event)

    def _note(self, frame: Frame) -> None:
        """What the session does by itself."""
        if frame.type in _MARKS:
            count = int.from_bytes(frame.payload[-8:], "big")
            assert self.confirmed <= count <= self.peer.received
            self._confirm(count)
        elif frame.type == FrameType.CREDIT and frame.id in self.credit:
            returned = int.from_bytes(frame.payload, "big")
            self.credit[frame.id] += returned - self.told.get(frame.id, 0)
            self.told[frame.id] = returned
        elif frame.type not in CONTROL_TYPES:
            self.received += 1
            name = (frame.type, frame.channel, frame.id)
            self.halves = self.halves | {name} if frame.flags & Flag.MORE else self.halves - {name}
            if is_end(frame) and not frame.flags & Flag.MORE:
                self.halves = {half for half in self.halves if half[1] != frame.channel}

    def _shake_hands(self, data: bytes, frames: list[Frame], now: float) -> None:
        """The WELCOME, or a part of it; what comes behind it is held back."""
        session = self.fresh or self.session
        events = session.receive(data, now)
        if not frames:
            assert not events
            return
        (welcome,) = events
        assert isinstance(welcome, Welcome)
        self.late = frames[1:]
        if self.fresh is not None:
            assert welcome.resumed
            self._resume(self.fresh, welcome.received)
            self.fresh = None
        assert self.session.holds_back == bool(self.late)
        self.marks["held back"] += bool(self.late)

    # Losing and resuming

    def lose(self) -> None:
        """The link is lost, as far as this side knows."""
        if self.fresh is not None:
            self.marks["lost in the handshake"] += 1
        else:
            self.session.lose()
        self.wire = self.fresh = None
        self.late = []

    def dial(self, wire: Wire, arriving: int, now: float) -> None:
        """Client: begin a link; this many bytes of its HELLO get to the server."""
        self.wire = wire
        self.fresh = Session(Role.CLIENT, limits=self.limits, heartbeat=HEARTBEAT, now=now)
        self.fresh.hello(identity="client", resume=self.session.ticket)
        wire.sent_by[Role.CLIENT] += b"".join(self.fresh.take(BURST, now))
        if arriving >= len(wire.sent_by[Role.CLIENT]):
            self.peer.take_over(wire, now)
        else:
            self.marks["lost HELLO"] += 1

    def take_over(self, wire: Wire, now: float) -> None:
        """Server: a HELLO on another link names this session."""
        fresh = Session(Role.SERVER, limits=self.limits, heartbeat=HEARTBEAT, now=now)
        data, _ = wire.pop(Role.CLIENT, BURST)
        (hello,) = fresh.receive(data, now)
        assert isinstance(hello, Hello)
        assert hello.resume is not None
        assert self.session.admits(hello.resume, hello.limits)
        if self.wire is not None:
            self.marks["taken over"] += 1
            self.lose()
        self.lost_welcomes = 0 if hello.resume[0] == self.session.token else self.lost_welcomes + 1
        self.marks["lost WELCOME"] += self.lost_welcomes == 1
        self.marks["lost WELCOME after a lost one"] += self.lost_welcomes == 2
        self.tokens += 1
        fresh.welcome("client", token=b"%d" % self.tokens, resumed=True, received=self.session.received)
        welcome = fresh.outbox.size
        self._resume(fresh, hello.resume[1])
        self.wire, self.said = wire, welcome

    def _resume(self, fresh: Session, received: int) -> None:
        self.session.resume(fresh, received)
        assert self.confirmed <= received == self.peer.received
        first_takes = [kept.take for kept in self.kept if kept.position <= received]
        self._confirm(received)
        self.again = deque(self.kept)
        self.owed = {number for number in self.credit if self.returned.get(number)}
        self.said = 0
        if self.again:
            self.marks["replay"] += 1
            self.marks["replay of half a take"] += self.again[0].take in first_takes
            self.marks["replay inside a message"] += bool(self.peer.halves)
            self.marks["replay inside two messages"] += len(self.peer.halves) > 1
        self.marks["credit awaited over a loss"] += any(
            not m.started and not self._may_be_paid(m.frame) for m in self.heads
        )

    def on_event(self, event: Event) -> None:
        if not isinstance(event, Frame):
            return
        sent = self.peer.under_way[key_of(event)].popleft()
        assert event == sent, "messages of one key arrive as they were sent, in order"
        number = event.channel
        if event.type in (FrameType.OPEN, FrameType.CALL) and number:
            self._add(event, ours=False)
        elif is_end(event):
            self._on_end(number)
        elif event.type == FrameType.CANCEL and number in self.lanes:
            self.break_off(number, FrameType.RESET)
        elif event.type == FrameType.DATA:
            self.inbox[number].append(len(event.payload))
            if number and self.lanes[number].ending:
                self.consume(number)

    def _on_end(self, number: int) -> None:
        """The peer has ended its direction: who is not asked for an answer ends ours too."""
        lane = self.lanes[number]
        lane.over = True
        self.owed.discard(number)
        self.returned.pop(number, None)
        if lane.left:
            self._free(number)
        elif not lane.answers:
            self.break_off(number, FrameType.CLOSE if lane.call is None else FrameType.RESET)

    # What must hold at any time

    def check(self) -> None:
        session = self.session
        assert session.sent == self.frames
        assert session.received == self.received
        assert session.confirmed == self.confirmed
        assert session.confirmed <= self.peer.session.received <= session.sent
        assert session.replay.size == self._kept_size()
        assert session.replay.due == bool(self.again)
        assert session.outbox.size == self.said + self._size()
        for kind in (FrameType.CALL, FrameType.DATA, FrameType.PUSH):
            assert session.outbox.unsent(kind) == self._unsent(kind)
        queued = [message.frame for queue in self.waiting.values() for message in queue]
        assert session.outbox.held == session.outbox.size + sum(message.taken for message in self.heads)
        assert session.outbox.asked_for == sum(
            len(frame.payload) for frame in queued if frame.type in (*_ANSWERS, FrameType.PUSH)
        )
        self._check_bounds()
        assert session.outbox.answers == sum(frame.type in _ANSWERS for frame in queued)
        assert session.outbox.small == self.said + sum(map(size_of, self.ready))
        assert session.outbox.waiting == len(self.ready) + len(self.heads)

    def _check_bounds(self) -> None:
        """What the peer made this side hold is counted, and within its share."""
        session, share = self.session, self.limits.share
        assert session._lanes.unread == sum(
            length + MESSAGE_COST
            for number, lengths in self.inbox.items()
            if not number or number in self.lanes
            for length in lengths
        )
        assert session._assembly.size <= share
        windows = (1 + len(self.lanes)) * self.limits.window
        assert session._lanes.unread <= windows + max(share, self.limits.message_size + MESSAGE_COST)

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
    grants = [(f.id, int.from_bytes(f.payload, "big")) for f in frames if f.type == FrameType.CREDIT]
    assert len(grants) == len(dict(grants)), "one CREDIT for each channel"
    return dict(grants)


class World:
    """Both sides, and the time."""

    def __init__(self, client: Limits, server: Limits) -> None:
        self.now = 0.0
        self.marks: Counter[str] = Counter()
        """How often the script came by what is easily missed."""
        self.sides = (Side(Role.CLIENT, client, self.marks), Side(Role.SERVER, server, self.marks))
        self.client, self.server = self.sides
        self.client.peer, self.server.peer = self.server, self.client
        self.client.wire = self.server.wire
        self._random = random.Random(0)

    def payload(self, length: int) -> bytes:
        """Bytes unlike any others: what is lost, doubled or mixed up shows."""
        return self._random.randbytes(length)

    def greet(self) -> None:
        """Shake hands; the WELCOME has not arrived when it is done."""
        self.client.session.hello()
        self.client.take(BURST, self.now)
        self.server.arrive(BURST, self.now)
        self.server.session.welcome("client", token=b"0")
        self.server.take(BURST, self.now)
        for side in self.sides:
            side.credit[0] = side.peer.limits.window

    @property
    def linked(self) -> bool:
        """Whether what one side sends gets to the other."""
        return self.client.wire is self.server.wire is not None and self.client.fresh is None

    def lose(self, side: Side) -> None:
        """One side loses its link, if the session outlives that."""
        if side.wire is not None and self.client.session.resumable and self.server.session.resumable:
            side.lose()

    def dial(self, arriving: int) -> None:
        """The client begins another link, if it has none."""
        if self.client.wire is None:
            self.client.dial(Wire(), arriving, self.now)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for side in self.sides:
            if side.wire is not None and side.fresh is None:
                assert side.session.check(self.now) > self.now
            assert side.session.outbox.size == side.said + side._size()

    def check(self) -> None:
        for side in self.sides:
            side.check()

    def settle(self) -> None:
        """Read, take and deliver until nothing moves; then everything must have arrived."""
        if self.client.wire is not self.server.wire:
            self.lose(self.client)
        self.dial(BURST)
        self._exchange()
        for side in self.sides:
            assert not any(side.under_way.values()), "not delivered"
            assert not side.heads, "not sent"
            assert side.session.outbox.size == 0
            assert not side.session.has_output
            assert side.session.sent == side.peer.session.received
            for number, credit in side.credit.items():
                if not number or not side.lanes[number].left:
                    assert credit == side.peer.limits.window
            assert side.lanes.keys() == side.peer.lanes.keys()
            for number, lane in side.lanes.items():
                other = side.peer.lanes[number]
                assert (lane.call, lane.ours, lane.left) == (other.call, not other.ours, other.over)
                assert lane.ending == lane.left
                assert lane.call is not None or not lane.left, "a channel ends on both sides"
        self.tick(HEARTBEAT.interval)
        self._exchange()
        for side in self.sides:
            assert side.session.confirmed == side.session.sent, "PINGs tell the count"
            assert side.session.replay.size == 0

    def _exchange(self) -> None:
        moving = True
        while moving:
            moving = False
            for side in self.sides:
                assert side.wire is not None
                for number in list(side.inbox):
                    while side.inbox[number]:
                        side.consume(number)
                taken = side.take(BURST, self.now)
                arrives = len(side.wire.sent_by[side.peer.role])
                moving |= taken > 0 or arrives > 0 or bool(side.late)
                side.arrive(arrives, self.now)
            self.check()
