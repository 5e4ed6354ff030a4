"""What waits to be sent, and in which order it goes.

- Control frames go first.
- A message that fits in one frame goes next, in the order of sending.
- A longer one is cut into fragments; such messages take turns, so none delays the others for longer than a
  frame, and they take turns with the small ones too: each :meth:`Outbox.take` begins with those, and has
  room for at least one fragment behind them.

Order is kept where someone can see it: frames of one lane, of one call and of one subscription (the *key*)
never overtake each other. Everything else may. A call that has a lane belongs to it: its CALL goes before
what is sent there, and its answer after.

What the peer holds of us is bounded, and what starts never stops half way. A long message starts while the
lengths of those under way are together within the peer's share for halves (``PeerLimits.share``); one always
may. A message on a lane starts when the lane has any credit left, and is charged whole (see
:mod:`heartline.session.lanes`). Each costs its length and ``MESSAGE_COST``, so that empty ones are bounded
too. A message that waits for what all share is not passed by others that need it.
"""

from __future__ import annotations

from collections import deque

from heartline.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from heartline.session.lanes import ENDS, Lanes
from heartline.session.messages import UNKNOWN, PeerLimits
from heartline.wire import HEADER, HEADER_SIZE, Flag, FrameType, Limits

__all__ = ["MESSAGE_COST", "Buffer", "Outbox"]

MESSAGE_COST = 32
"""Bytes of credit that a message costs besides its payload: about what the receiver's bookkeeping takes."""

FRAGMENT_SIZE = 64 * 1024
"""Bytes in a fragment: 20 µs of loopback, 5 ms of a 100 Mbit/s line; the longest that others wait."""

STREAMS = 8
"""Long messages under way at a time: more would not be faster, and each end later."""

STUCK_LIMIT = 8 * 1024 * 1024
"""Bytes of small frames (answers, confirmations) for a peer that does not read, beyond what those who wait
for room may queue (``Limits.write_buffer``); then the peer is given up."""

_LANE_FAMILY = FrameType.OPEN >> 4
_LAST_LANE = int(FrameType.RESET)
_DATA = int(FrameType.DATA)
_ANSWERS = frozenset({FrameType.RESULT, FrameType.FAULT})
_ASKED_FOR = _ANSWERS | {FrameType.PUSH}
_MESSAGES = frozenset({FrameType.DATA})
_ANY = frozenset(FrameType)
_ALL_BUT_CALL = _ANY - {FrameType.CALL}

Buffer = bytes | memoryview


class _Message:
    """One message that waits for its turn or is under way."""

    __slots__ = ("channel", "flags", "id", "payload", "position", "type")

    def __init__(self, frame_type: int, flags: int, channel: int, number: int, payload: bytes) -> None:
        self.type, self.flags, self.channel, self.id = frame_type, flags, channel, number
        self.payload = memoryview(payload)
        self.position = 0


class Outbox:
    """The frames of one session that were not yet handed to the transport.

    Every queue's key is either in ``_turns`` (its head may be able to go) or in ``_halted`` (its head lacks
    credit, or room at the peer), never in both: what ends the lack moves it back.
    """

    __slots__ = (
        "_begun",
        "_bulk",
        "_control",
        "_fragment",
        "_halted",
        "_lanes",
        "_queues",
        "_ready",
        "_room_awaited",
        "_share",
        "_streams",
        "_stuck",
        "_turned",
        "_turns",
        "answers",
        "asked_for",
        "limits",
        "size",
    )

    def __init__(self, limits: Limits, lanes: Lanes) -> None:
        self._lanes = lanes
        self._control: list[bytes] = []
        self._ready: list[bytes] = []
        self._queues: dict[int, deque[_Message]] = {}
        # A list, because a deque takes 600 bytes and there are a few keys at most.
        self._turns: list[int] = []
        self._halted: dict[int, None] = {}
        # Long messages under way: their number, their lengths, and the bytes of them that have left.
        self._streams = self._begun = self._turned = 0
        self._room_awaited = False
        self._fragment = FRAGMENT_SIZE
        self._stuck = limits.write_buffer + STUCK_LIMIT
        self._share = limits.share
        self._bulk = 0
        self.limits: PeerLimits = UNKNOWN
        """The peer's limits, once the handshake has told them."""
        self.size: int = 0
        """Bytes waiting, headers included."""
        self.answers: int = 0
        """Answers to calls in fragments, waiting or under way."""
        self.asked_for: int = 0
        """Their bytes and those of updates in fragments."""

    def open(self, limits: PeerLimits) -> None:
        """Take the peer's limits, from the handshake."""
        self.limits = limits
        self._fragment = min(FRAGMENT_SIZE, limits.frame_size, limits.message_size)
        self._lanes.agree(limits)

    @property
    def waiting(self) -> int:
        """Small frames that wait, and queues of longer messages."""
        return len(self._ready) + len(self._queues)

    @property
    def small(self) -> int:
        """Bytes waiting in small frames and control frames."""
        return self.size - self._bulk

    @property
    def laden(self) -> bool:
        """Whether more than a share of this side's memory waits for the peer, of what it asked for."""
        return self.asked_for > self._share

    @property
    def held(self) -> int:
        """Bytes held: what is waiting, and long messages as a whole until their last fragment was taken."""
        return self.size + self._turned

    @property
    def has_turns(self) -> bool:
        """Whether fragments wait that could go now."""
        return bool(self._turns)

    def holds(self, frame_type: int, channel: int, number: int) -> bool:
        """Whether messages of this key take turns: one too long for a frame, and those behind it."""
        return _key(frame_type, channel, number) in self._queues

    def put_control(self, frame_type: int, number: int = 0, payload: bytes = b"") -> None:
        """Queue a control frame, ahead of everything else."""
        self._control.append(HEADER.pack(len(payload), frame_type, 0, 0, number) + payload)
        self.size += HEADER_SIZE + len(payload)

    def put_encoded_control(self, frame: Buffer) -> None:
        """Queue a control frame that is encoded already."""
        self._control.append(bytes(frame))
        self.size += len(frame)

    def put(self, frame_type: int, channel: int, number: int, payload: bytes, flags: int = 0) -> None:
        """Queue a message.

        On a lane it takes the lane's step: OPEN, or a CALL that names a channel, opens it. Raises
        :class:`LocalProtocolError` when the peer would refuse it, and :class:`ConnectionLost` when it
        waits behind more small frames than a peer that reads would leave.
        """
        length = len(payload)
        if length <= self._fragment and not channel and frame_type != _DATA and not self._queues:
            self._ready.append(HEADER.pack(length, frame_type, flags, channel, number) + payload)
            self.size += HEADER_SIZE + length
            if self.size > self._stuck:
                raise self._stuck_error()
            return
        self._put_slowly(frame_type, channel, number, payload, flags)

    def put_encoded(self, frame: bytes) -> bool:
        """Queue a PUSH frame that was encoded for many peers; ``False`` when it has to go the usual way."""
        if self._queues or len(frame) - HEADER_SIZE > self._fragment:
            return False
        self._ready.append(frame)
        self.size += len(frame)
        return True

    def offer(self, frame: bytes) -> bool:
        """Queue a DATA frame for channel 0 that was encoded for many peers.

        ``False`` when it has no room: no credit, a message before it, or longer than the peer's frames.
        """
        length = len(frame) - HEADER_SIZE
        lane = self._lanes.default
        cost = length + MESSAGE_COST
        if length > self._fragment or self._queues:
            return False
        if lane.credit >= cost:  # the usual case of Lanes.pay, written out: this runs once per peer
            lane.credit -= cost
        elif not self._lanes.pay(lane, cost):
            return False
        self._ready.append(frame)
        self.size += len(frame)
        return True

    def _put_slowly(self, frame_type: int, channel: int, number: int, payload: bytes, flags: int) -> None:
        length = len(payload)
        self._check_length(length)
        if (channel or frame_type <= _LAST_LANE) and frame_type != FrameType.CANCEL:
            self._lanes.send(frame_type, channel)
        key = _key(frame_type, channel, number)
        queue = self._queues.get(key)
        small = length <= self._fragment
        if queue is None and small and (frame_type != _DATA or self._charge(channel, length)):
            self._ready.append(HEADER.pack(length, frame_type, flags, channel, number) + payload)
            self.size += HEADER_SIZE + length
            if channel and frame_type in ENDS:
                self._lanes.end_left(channel)
            if self.size - self._bulk > self._stuck:
                raise self._stuck_error()
            return
        if queue is None:
            queue = self._queues[key] = deque()
            self._turns.append(key)
        message = _Message(frame_type, flags, channel, number, payload)
        queue.append(message)
        size = self._size_of(message)
        self.size += size
        self._bulk += size
        self._count(message, 1)

    def _count(self, message: _Message, change: int) -> None:
        if message.type in _ASKED_FOR:
            self.asked_for += change * len(message.payload)
            self.answers += change * (message.type in _ANSWERS)

    def _check_length(self, length: int) -> None:
        if length > self.limits.message_size:
            raise LocalProtocolError(
                f"a message of {length} bytes: the peer accepts {self.limits.message_size} bytes "
                "(Limits.message_size)"
            )

    def _size_of(self, message: _Message) -> int:
        """Bytes of what is left of a message and of the headers of its fragments."""
        length = len(message.payload) - message.position
        return length + HEADER_SIZE * max(1, -(-length // self._fragment))

    def _stuck_error(self) -> ConnectionLost:
        return ConnectionLost(f"the peer does not read: {self.small} bytes of small frames wait for it")

    def unsent(self, frame_type: int) -> set[int]:
        """The ids of the messages of this type of which no byte was taken."""
        heads = [HEADER.unpack_from(frame) for frame in self._ready]
        ids = {number for _, kind, _, _, number in heads if kind == frame_type}
        for queue in self._queues.values():
            ids |= {m.id for m in queue if m.type == frame_type and not m.position}
        return ids

    def withdraw(self, frame_type: int) -> set[int]:
        """Take the :meth:`unsent` messages of this type back, so that they never leave; their ids.

        A call takes with it what waits behind it on its lane, which the peer will never know.
        """
        ids = self.unsent(frame_type)
        kept: list[bytes] = []
        void: set[int] = set()
        for frame in self._ready:
            _, kind, _, channel, _ = HEADER.unpack_from(frame)
            if kind == frame_type and channel:
                void.add(channel)
            if kind != frame_type and channel not in void:
                kept.append(frame)
        self.size -= sum(map(len, self._ready)) - sum(map(len, kept))
        self._ready[:] = kept
        for key, queue in list(self._queues.items()):
            first = queue[0]
            if first.type == frame_type and first.channel and not first.position:
                void.add(first.channel)
            self._drop(key, _ANY if key in void else frozenset({frame_type}))
        for channel in void:
            self._lanes.forget(channel)
        return ids

    def clear(self) -> None:
        """Forget everything: the session is over."""
        for held in (self._control, self._ready, self._queues, self._turns, self._halted):
            held.clear()
        self.size = self._bulk = self.answers = self.asked_for = 0
        self._streams = self._begun = self._turned = 0

    # Credit

    def abandon(self, channel: int) -> None:
        """Drop the messages that wait on a channel, and the rest of one that is under way.

        Our CLOSE, if it waits there, goes at once; otherwise it must be put next: with it the peer forgets
        its half.
        """
        if channel in self._queues:
            self._drop(channel, _MESSAGES, begun=True)

    def break_off(
        self, frame_type: int, channel: int, number: int = 0, payload: bytes = b"", flags: int = 0
    ) -> None:
        """End our direction of a lane at once, by this frame, instead of all that waits, an end too.

        Only the CALL that opens the lane still goes before it. Void where our end has left, or began to.
        Raises as :meth:`put`.
        """
        self._check_length(len(payload))
        queue = self._queues.get(channel)
        if queue is not None and queue[0].type in ENDS and queue[0].position:
            return
        if self._lanes.take_end_back(channel):
            if queue is not None:
                self._drop(channel, _ALL_BUT_CALL, begun=len(payload) <= self._fragment)
            self.put(frame_type, channel, number, payload, flags)

    def _drop(self, key: int, types: frozenset[int], *, begun: bool = False) -> None:
        """Drop the messages of these types in one queue: those that have not begun, or all."""
        queue = self._queues[key]
        head = queue[0]
        kept = deque(m for m in queue if m.type not in types or (m.position and not begun))
        size = sum(map(self._size_of, queue)) - sum(map(self._size_of, kept))
        self.size -= size
        self._bulk -= size
        for message in queue:
            self._count(message, -1)
        for message in kept:
            self._count(message, 1)
        self._queues[key] = kept
        if not kept or kept[0] is not head:
            if head.position:  # it was long: only long ones stop half way
                self._turned -= head.position
                self._free_stream(head)
            self._release_small(key)

    def _release_small(self, key: int) -> None:
        """What waited behind the dropped messages lacks nothing now: the small frames go next."""
        queue = self._queues[key]
        while queue and len(queue[0].payload) <= self._fragment and queue[0].type != _DATA:
            message = queue.popleft()
            self._bulk -= HEADER_SIZE + len(message.payload)
            self._ready.append(b"".join(self._cut(message)))
            self._has_left(message)
        if queue:
            self._resume_queue(key)
        else:
            del self._queues[key]
            self._halted.pop(key, None)
            if key in self._turns:
                self._turns.remove(key)

    def grant(self, channel: int, returned: int) -> None:
        """The peer has given back so much credit on a channel so far; for one that was closed it is void.

        The sum travels, not the last part of it, so that a CREDIT that was lost with its link is made good by
        the next one. Raises :class:`RemoteProtocolError` when it falls, or exceeds what was spent.
        """
        lane = self._lanes.find(channel)
        if lane is None:
            return
        more = returned - lane.refunded
        if more < 0 or lane.credit + more > self.limits.window:
            raise RemoteProtocolError(
                f"CREDIT of {returned} bytes in all on channel {channel}: the peer's window of "
                f"{self.limits.window} bytes has {lane.credit} left, after {lane.refunded} bytes came back"
            )
        lane.refunded = returned
        self._lanes.refund(lane, more)
        self._resume_queue(channel)

    def _resume_queue(self, key: int) -> None:
        if key in self._halted:
            del self._halted[key]
            self._turns.append(key)

    def blocked(self, channel: int) -> bool:
        """Whether a message on this channel would have to wait for credit or for its predecessors.

        On a channel that is not open nothing waits: there, sending is an error at once.
        """
        if channel in self._queues:
            return True
        lane = self._lanes.find(channel)
        return lane is not None and lane.credit <= 0

    def _charge(self, channel: int, length: int) -> bool:
        lane = self._lanes.find(channel)
        assert lane is not None  # a lane lasts until its end has left, behind all messages
        return self._lanes.pay(lane, length + MESSAGE_COST)

    # Taking turns

    def take_control(self) -> list[Buffer]:
        """The control frames: they go first."""
        if not self._control:
            return []
        control: list[Buffer] = [*self._control]
        self._control.clear()
        self.size -= sum(map(len, control))
        return control

    def take(self, budget: int, *, fragments: bool = True) -> tuple[list[Buffer], int]:
        """What to write next, and how many frames it holds: all are sequenced.

        All small frames, joined, then fragments until ``budget`` bytes are reached: at least one, so that no
        stream of small frames holds them up. Without ``fragments`` only the small frames.
        """
        ready = self._ready
        count = len(ready)
        buffers: list[Buffer] = []
        taken = 0
        if ready:
            buffers.append(b"".join(ready) if count > 1 else ready[0])
            taken = len(buffers[0])
            ready.clear()
        if not self._queues or not fragments:
            self.size -= taken
            return buffers, count
        bulk = 0
        if self._room_awaited or self._lanes.loan_awaited:
            self._try_again()
        # Ends: each turn sends a fragment, or takes a key out until credit or room brings it back.
        while self._turns and (taken + bulk < budget or not bulk):
            key = self._turns.pop(0)
            message = self._queues[key][0]
            if not message.position and not self._may_start(message):
                self._halted[key] = None
                continue
            head, part = self._cut(message)
            buffers += (head, part)
            bulk += HEADER_SIZE + len(part)
            self._turned += len(part)
            count += 1
            self._end_turn(key, message)
        self.size -= taken + bulk
        self._bulk -= bulk
        return buffers, count

    def _may_start(self, message: _Message) -> bool:
        """Whether the first fragment may go: the peer has room for a half, and credit where it is needed."""
        length = len(message.payload)
        is_long = length > self._fragment
        if (
            is_long
            and self._streams
            and (self._room_awaited or self._streams == STREAMS or self._begun + length > self.limits.share)
        ):
            self._room_awaited = True
            return False
        if message.type == FrameType.DATA and not self._charge(message.channel, length):
            return False  # looked at last, for what was charged has to go
        if is_long:
            self._streams += 1
            self._begun += length
        return True

    def _cut(self, message: _Message) -> tuple[bytes, memoryview]:
        start = message.position
        part = message.payload[start : start + self._fragment]
        message.position = start + len(part)
        more = Flag.MORE if message.position < len(message.payload) else 0
        return HEADER.pack(len(part), message.type, message.flags | more, message.channel, message.id), part

    def _end_turn(self, key: int, message: _Message) -> None:
        queue = self._queues[key]
        if message.position >= len(message.payload):
            queue.popleft()
            self._turned -= message.position
            self._has_left(message)
            if message.position > self._fragment:
                self._free_stream(message)
        if queue:
            self._turns.append(key)
        else:
            del self._queues[key]

    def _has_left(self, message: _Message) -> None:
        self._count(message, -1)
        if message.channel and message.type in ENDS:
            self._lanes.end_left(message.channel)
            if self._lanes.loan_awaited:
                self._try_again()

    def _free_stream(self, message: _Message) -> None:
        self._streams -= 1
        self._begun -= len(message.payload)
        self._try_again()

    def _try_again(self) -> None:
        """The peer may have room: what waited longest is first, and what lacks something halts again."""
        self._room_awaited = self._lanes.loan_awaited = False
        self._turns[:0] = self._halted
        self._halted.clear()


def _key(frame_type: int, channel: int, number: int) -> int:
    """What must stay in order: a lane, or the id within its family."""
    family = frame_type >> 4
    return channel if channel or family == _LANE_FAMILY else family << 32 | number
