"""Lanes: what carries messages on credit, as a table of states.

A lane is a channel, or belongs to a call that streams. OPEN opens a channel; a CALL that names a channel
opens the lane of that call. Both take the next free number of the side that opens: odd for the client, even
for the server. Lane 0 is always open, and has no end.

On an open lane both sides send DATA, each as much as the other has given it credit for. Each side ends its
own direction, by one frame: CLOSE after everything that it sent, or RESET at once, with a reason. Only when a
call is answered, the answer is the end: a callee says RESULT or FAULT instead of CLOSE. When both directions
have ended, the number is free.

So the end of one direction says nothing about the other. A caller closes its own and reads on. A callee may
answer while items of the caller are on their way: they are received, and dropped by the layer above, until
the caller's end comes. A call that is refused ends like that too.

An end can wait in the outbox behind messages that lack credit. The lane lasts until it has left: credit still
comes for the messages before it, and whatever this side opens later leaves later. Until then it can be taken
back: a side that gives up says RESET instead, because without those messages CLOSE would be a lie.

Messages on lanes are paid for with credit, and a lane has a window of it. A message may be longer than what
is left: then its sender borrows the rest from an account that all lanes share, ``PeerLimits.share``, until
the reader has taken enough. If nothing is borrowed, one message may always borrow. So a message that fits in
its window waits only for the reader of its own lane; a longer one waits for the others too.

A frame without a row in the present state is a protocol error: ours (``LocalProtocolError``) when we were
about to send it, the peer's (``RemoteProtocolError``) when it came from there.
"""

from __future__ import annotations

import enum

from heartline.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from heartline.session.messages import UNKNOWN, PeerLimits
from heartline.session.states import Role
from heartline.wire import FrameType, Limits

__all__ = ["ENDS", "LANE_TRANSITIONS", "MOST_LANES", "Lane", "LaneState", "LaneStep", "Lanes"]

MOST_LANES = 1 << 14
"""Lanes that one side has open at a time at most, whatever the peer allows: half of its numbers. Numbers go
round, so before one is used again another lane was opened after its end had left, and has ended too. The peer
said that end after all that it had to say about the first lane, credit too: none of it is on its way."""


class LaneState(enum.Enum):
    """The state of a lane, seen from one side."""

    FREE = "not open"
    """There is no lane with this number."""
    OPEN = "open"
    """Both sides may send."""
    ENDING = "ending here"
    """Our end waits behind what we sent; the peer may send."""
    HALF_CLOSED_LOCAL = "half-closed here"
    """Our end has left; the peer may send."""
    HALF_CLOSED_REMOTE = "half-closed by the peer"
    """The peer's end has come; we may send."""
    ENDING_LAST = "ending on both sides"
    """The peer's end has come, ours waits behind what we sent."""


class LaneStep(enum.Enum):
    """What moves a lane."""

    SEND_OPEN = "send OPEN"
    RECEIVE_OPEN = "receive OPEN"
    SEND_DATA = "send DATA"
    RECEIVE_DATA = "receive DATA"
    SEND_END = "send the end"
    END_LEFT = "the end has left"
    END_TAKEN_BACK = "take the end back"
    """Another one goes at once, instead of the end and of what it waits for."""
    RECEIVE_END = "receive the end"


_S, _T = LaneState, LaneStep

LANE_TRANSITIONS: dict[tuple[LaneState, LaneStep], LaneState] = {
    (_S.FREE, _T.SEND_OPEN): _S.OPEN,
    (_S.FREE, _T.RECEIVE_OPEN): _S.OPEN,
    (_S.OPEN, _T.SEND_DATA): _S.OPEN,
    (_S.OPEN, _T.RECEIVE_DATA): _S.OPEN,
    (_S.OPEN, _T.SEND_END): _S.ENDING,
    (_S.OPEN, _T.RECEIVE_END): _S.HALF_CLOSED_REMOTE,
    (_S.ENDING, _T.RECEIVE_DATA): _S.ENDING,
    (_S.ENDING, _T.END_LEFT): _S.HALF_CLOSED_LOCAL,
    (_S.ENDING, _T.END_TAKEN_BACK): _S.OPEN,
    (_S.ENDING, _T.RECEIVE_END): _S.ENDING_LAST,
    (_S.HALF_CLOSED_LOCAL, _T.RECEIVE_DATA): _S.HALF_CLOSED_LOCAL,
    (_S.HALF_CLOSED_LOCAL, _T.RECEIVE_END): _S.FREE,
    (_S.HALF_CLOSED_REMOTE, _T.SEND_DATA): _S.HALF_CLOSED_REMOTE,
    (_S.HALF_CLOSED_REMOTE, _T.SEND_END): _S.ENDING_LAST,
    (_S.ENDING_LAST, _T.END_LEFT): _S.FREE,
    (_S.ENDING_LAST, _T.END_TAKEN_BACK): _S.HALF_CLOSED_REMOTE,
}

_CALLER_ENDS = frozenset({FrameType.CLOSE, FrameType.RESET})
_CALLEE_ENDS = frozenset({FrameType.RESULT, FrameType.FAULT, FrameType.RESET})
ENDS = _CALLER_ENDS | _CALLEE_ENDS
"""What ends a direction of a lane: on a channel as on the caller's side of a call CLOSE or RESET."""

_STEPS: dict[int, tuple[LaneStep, LaneStep]] = {
    FrameType.OPEN: (LaneStep.SEND_OPEN, LaneStep.RECEIVE_OPEN),
    FrameType.CALL: (LaneStep.SEND_OPEN, LaneStep.RECEIVE_OPEN),
    FrameType.DATA: (LaneStep.SEND_DATA, LaneStep.RECEIVE_DATA),
    **dict.fromkeys(ENDS, (LaneStep.SEND_END, LaneStep.RECEIVE_END)),
}
"""The step of each frame, for its sender and for its receiver."""

# For every DATA frame: a look into a tuple of a few states costs less than one into the table.
_MAY_SEND = tuple(state for state in LaneState if (state, LaneStep.SEND_DATA) in LANE_TRANSITIONS)
_MAY_RECEIVE = tuple(state for state in LaneState if (state, LaneStep.RECEIVE_DATA) in LANE_TRANSITIONS)


class Lane:
    """One lane: its state, and the accounts of both directions, in bytes; what is below 0 is borrowed."""

    __slots__ = ("credit", "is_call", "left", "refunded", "returned", "state")

    def __init__(self, *, credit: int, left: int, is_call: bool = False) -> None:
        self.state: LaneState = LaneState.OPEN
        self.is_call: bool = is_call
        self.credit: int = credit
        """What we may still send; a message may begin while it is above 0."""
        self.refunded: int = 0
        """What the peer has given back so far."""
        self.left: int = left
        """What the peer may still send."""
        self.returned: int = 0
        """What we have given back so far."""

    @property
    def may_receive(self) -> bool:
        """Whether the peer's direction has not ended."""
        return self.state in _MAY_RECEIVE


class Lanes:
    """The lanes of one session."""

    __slots__ = (
        "_borrowed",
        "_lent",
        "_limits",
        "_next",
        "_others",
        "_ours",
        "_parity",
        "_peer",
        "_theirs",
        "default",
        "loan_awaited",
        "unread",
    )

    def __init__(self, role: Role, limits: Limits) -> None:
        self._parity = int(role is Role.CLIENT)
        self._limits = limits
        self._peer = UNKNOWN
        self._others: dict[int, Lane] = {}
        self._ours = self._theirs = 0  # how many of the others were opened by which side
        self._next = 1 if role is Role.CLIENT else 2
        self.default: Lane = Lane(credit=0, left=limits.window)
        """Lane 0."""
        self.loan_awaited: bool = False
        """Whether a message waits to borrow credit: no other one passes it."""
        self.unread: int = 0
        """What the peer's messages cost that the readers have not taken."""
        self._borrowed = self._lent = 0

    def agree(self, peer: PeerLimits) -> None:
        """The handshake has told the peer's limits."""
        self._peer = peer
        self.default.credit = peer.window

    def find(self, channel: int) -> Lane | None:
        """The lane with this number, if it is not free."""
        return self._others.get(channel) if channel else self.default

    def all(self) -> list[tuple[int, Lane]]:
        """All lanes that are not free, with their numbers."""
        return [(0, self.default), *self._others.items()]

    def next_number(self) -> int:
        """A number for the next lane that this side opens; raises LocalProtocolError at the peer's limit."""
        self._check_room()
        while self._next in self._others:
            self._advance()
        number = self._next
        self._advance()
        return number

    def _advance(self) -> None:
        self._next = self._next + 2 if self._next + 2 <= 0xFFFF else 2 - self._parity

    def _check_room(self) -> None:
        if self._ours >= min(self._peer.channels, MOST_LANES):
            raise LocalProtocolError(f"the peer accepts {self._peer.channels} channels (Limits.channels)")

    def send(self, frame_type: int, channel: int) -> Lane:
        """Take the step of a frame that is to be queued; raises :class:`LocalProtocolError`."""
        if frame_type == FrameType.DATA:
            lane = self.find(channel)
            if lane is not None and lane.state in _MAY_SEND:
                return lane
        return self._step(frame_type, channel, sent=True)

    def receive(self, frame_type: int, channel: int) -> Lane:
        """Take the step of a frame that has come; raises :class:`RemoteProtocolError`."""
        if frame_type == FrameType.DATA:
            lane = self.find(channel)
            if lane is not None and lane.state in _MAY_RECEIVE:
                return lane
        return self._step(frame_type, channel, sent=False)

    def forget(self, channel: int) -> None:
        """The frame that was to open this lane is taken back."""
        self._move(channel, self._others[channel], LaneState.FREE)

    def end_left(self, channel: int) -> None:
        """Our end was handed to the transport, or waits for it with nothing of this lane before it."""
        lane = self._others[channel]
        self._move(channel, lane, LANE_TRANSITIONS[lane.state, LaneStep.END_LEFT])

    def take_end_back(self, channel: int) -> bool:
        """Our end, if it waits, will not be sent; tells whether another one can be."""
        lane = self.find(channel)
        if lane is None:
            return False
        lane.state = LANE_TRANSITIONS.get((lane.state, LaneStep.END_TAKEN_BACK), lane.state)
        return lane.state in _MAY_SEND

    # Accounts

    def pay(self, lane: Lane, cost: int) -> bool:
        """Charge a message that starts; ``False`` when it has to wait, for credit or for a loan."""
        if lane.credit <= 0:
            return False
        credit = lane.credit - cost
        if credit < 0:
            if self._borrowed and (self.loan_awaited or self._borrowed - credit > self._peer.share):
                self.loan_awaited = True
                return False
            self._borrowed -= credit
        lane.credit = credit
        return True

    def refund(self, lane: Lane, amount: int) -> None:
        """The peer's reader has taken so much."""
        self._borrowed -= min(amount, max(0, -lane.credit))
        lane.credit += amount

    def charge(self, lane: Lane, channel: int, cost: int) -> None:
        """A message of the peer has come; raises :class:`RemoteProtocolError` if it could not pay."""
        if lane.left <= 0:
            raise RemoteProtocolError(f"DATA on channel {channel} without credit (Limits.window)")
        lane.left -= cost
        self.unread += cost
        if lane.left < 0:
            borrowed, self._lent = self._lent, self._lent - lane.left
            if borrowed and self._lent > self._limits.share:
                raise RemoteProtocolError(
                    f"DATA on channel {channel} beyond its window, with {borrowed} bytes beyond the windows "
                    "of all channels (Limits.memory)"
                )

    def give_back(self, lane: Lane, cost: int) -> None:
        """The reader has taken a message of the peer."""
        self._lent -= min(cost, max(0, -lane.left))
        lane.left += cost
        self.unread -= cost

    def _close_accounts(self, lane: Lane) -> None:
        self._borrowed -= max(0, -lane.credit)
        self._lent -= max(0, -lane.left)
        self.unread -= self._limits.window - lane.left

    def _step(self, frame_type: int, channel: int, *, sent: bool) -> Lane:
        error: type[ProtocolError] = LocalProtocolError if sent else RemoteProtocolError
        steps = _STEPS.get(frame_type)
        name = f"{FrameType(frame_type).name} on channel {channel}"
        if steps is None:
            raise error(f"{name}: only lanes and their calls have one")
        lane = self.find(channel)
        state = lane.state if lane is not None else LaneState.FREE
        following = LANE_TRANSITIONS.get((state, steps[0 if sent else 1]))
        if following is None:
            raise error(f"{name}, which is {state.value}")
        if lane is None:
            return self._open(frame_type, channel, sent=sent)
        self._check_end(frame_type, channel, lane, sent=sent)  # nothing else moves a lane that is open
        self._move(channel, lane, following)
        return lane

    def _check_end(self, frame_type: int, channel: int, lane: Lane, *, sent: bool) -> None:
        error: type[ProtocolError] = LocalProtocolError if sent else RemoteProtocolError
        if not channel:
            raise error(f"{FrameType(frame_type).name} on channel 0, which is always open")
        answers = lane.is_call and (channel % 2 == self._parity) is not sent
        if frame_type not in (_CALLEE_ENDS if answers else _CALLER_ENDS):
            raise error(f"{FrameType(frame_type).name} on channel {channel}, which does not end with that")

    def _open(self, frame_type: int, channel: int, *, sent: bool) -> Lane:
        ours = channel % 2 == self._parity
        if ours is not sent:
            who = "this side" if sent else "the peer"
            error: type[ProtocolError] = LocalProtocolError if sent else RemoteProtocolError
            raise error(f"{who} cannot open channel {channel}: clients open odd ones, servers even ones")
        if sent:
            self._check_room()
            self._ours += 1
        elif self._theirs >= self._limits.channels:
            raise RemoteProtocolError(
                f"more than {self._limits.channels} channels opened by the peer (Limits.channels)"
            )
        else:
            self._theirs += 1
        lane = Lane(credit=self._peer.window, left=self._limits.window, is_call=frame_type == FrameType.CALL)
        self._others[channel] = lane
        return lane

    def _move(self, channel: int, lane: Lane, following: LaneState) -> None:
        lane.state = following
        if following is LaneState.FREE:
            del self._others[channel]
            self._close_accounts(lane)
            if channel % 2 == self._parity:
                self._ours -= 1
            else:
                self._theirs -= 1
