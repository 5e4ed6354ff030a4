"""The engine of a subscription: its place in the topic, and what has arrived and waits for the user.

It keeps its place: the last offset received and the last one handled. In a new session it subscribes again
from there, so that every update comes once and in order, or a gap says that it cannot.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from heartline.errors import (
    CallInterrupted,
    HeartlineError,
    Overloaded,
    PushError,
    RemoteProtocolError,
    SlowConsumer,
)
from heartline.link import Core
from heartline.push._types import Gap, Position, Since, SlowPolicy
from heartline.push._wire import LEAVE, NOTICE, parse_head, parse_notice
from heartline.wire import Frame
from heartline.wire.text import printable

if TYPE_CHECKING:
    from heartline.push._part import Push

__all__ = ["Arrival", "Following"]

CONFIRM_COUNT = 16
"""Updates handled between confirmations while more are waiting; the last one is confirmed at once."""

CONFIRM_AFTER = 0.05
"""Seconds between confirmations when handling takes long: a receipt may come so much later."""

MAX_WAITING = 1024
"""Updates that a publisher may send without a confirmation before it counts as broken; ours sends 256."""

MAX_WAITING_SIZE = 16 * 1024 * 1024
"""Bytes of such updates, beside one more of any length; ours sends 1 MiB."""

OVERLOADED_PAUSE = 0.1
"""Seconds before subscribing again at a peer that has no room for the call after a loss."""


class Arrival(NamedTuple):
    """What waits for the user: an update, a state or a gap."""

    offset: int | None
    """What is handled with it; ``None`` for a gap that the newest update follows, which stands for it."""
    what: Frame | Gap
    is_state: bool


class Following:
    """A subscription below the iterator that its user holds."""

    __slots__ = (
        "_confirmed",
        "_confirmed_at",
        "_core",
        "_key",
        "_lot",
        "_policy",
        "_push",
        "_received",
        "_since",
        "_state_due",
        "_stateful",
        "_waiting",
        "ended",
        "epoch",
        "handled",
        "number",
        "position",
        "topic",
        "waiting_size",
    )

    def __init__(self, core: Core, push: Push, topic: str, since: Since, policy: SlowPolicy) -> None:
        self.topic: str = topic
        self._core = core
        self._push = push
        self._key = push.next_key()
        self._policy: SlowPolicy = policy
        self._since: Any = [since.epoch, since.offset] if isinstance(since, Position) else since
        self._stateful = since == "snapshot"
        self._lot = trio.lowlevel.ParkingLot()
        self.ended: HeartlineError | None = None
        """Why nothing more will come."""
        # The present session: under which number updates come, and what was handled and confirmed there.
        self.number: int | None = None
        self.handled: int = 0
        self._confirmed = 0
        self._confirmed_at = 0.0
        # What has arrived.
        self.epoch: str = ""
        self._received = 0
        self._state_due = False
        self._waiting: deque[Arrival] = deque()
        self.waiting_size: int = 0
        """Bytes of updates that have arrived and were not given out."""
        self.position: Position | None = since if isinstance(since, Position) else None
        """The place after the last update that was handled."""

    # The user's side

    async def wait(self) -> None:
        """Wait until something is there to be taken, subscribing again if that is necessary.

        Raises the reason when nothing more will come. What was handled is confirmed meanwhile.
        """
        while not self._waiting:
            self._confirm_handled()
            if self.ended is not None:
                raise self.ended
            if self.number is None:
                await self.attach()
            else:
                await self._lot.park()
        if self._confirmation_due():
            self._confirm_handled()

    def take(self) -> Arrival:
        """What has arrived first."""
        arrival = self._waiting.popleft()
        if type(arrival.what) is Frame:
            self.waiting_size -= len(arrival.what.payload)
        return arrival

    def settle(self, offset: int) -> None:
        """The user has handled everything up to this offset."""
        self.handled = offset
        self.position = Position(self.epoch, offset)

    def leave(self, error: HeartlineError) -> None:
        """The user wants no more; what was handled is confirmed."""
        self.ended = error
        self._waiting.clear()
        self._lot.unpark_all()
        if self.number is not None:
            self._confirm_handled()
            self._end_number()

    def _end_number(self) -> None:
        number, self.number = self.number, None
        self._push.leave(self._key, number)

    def _confirmation_due(self) -> bool:
        """Whether to confirm while more is waiting."""
        return (
            self.handled - self._confirmed >= CONFIRM_COUNT
            or trio.current_time() - self._confirmed_at >= CONFIRM_AFTER
        )

    def _confirm_handled(self) -> None:
        if self.number is not None and self.handled > self._confirmed:
            self._confirmed = self.handled
            self._confirmed_at = trio.current_time()
            self._push.confirm(self.number, self.handled)

    # The publisher's side

    async def attach(self) -> None:
        """Subscribe, or subscribe again after a loss; if it is cancelled, the peer is told to forget it."""
        core = self._core
        while True:
            await core.wait_open()
            link = core.link
            try:
                answer = await self._push.ask(self.topic, self._since, self._policy, self._key)
                if core.link is link:  # otherwise it was lost again before this task was resumed
                    self._begin(answer)
                    return
            except CallInterrupted:
                continue
            except Overloaded:
                if not self.epoch:
                    raise
                await trio.sleep(OVERLOADED_PAUSE)
            except BaseException:
                # Given up, but the peer may have begun it, or be about to.
                if core.link is link:
                    self._push.leave(self._key, None)
                raise

    def _begin(self, answer: Any) -> None:
        """Take the peer's answer: the number, the epoch and the position before the first update."""
        match answer:
            case [int(number), str(epoch), int(position)] if 0 <= number < 2**32 and 0 <= position < LEAVE:
                pass
            case _:
                raise RemoteProtocolError(f"malformed answer to a subscription: {answer!r:.80}")
        wanted: list[Any] = self._since[:2] if type(self._since) is list else [epoch, position]
        if epoch == wanted[0] and position > wanted[1]:
            raise RemoteProtocolError(f"topic {self.topic!r} goes on at {position}, not at {wanted[1]}")
        self._push.attach(number, self)
        self.number, self.epoch = number, epoch
        self._received = self.handled = self._confirmed = position
        begins_with_state = self._since == "snapshot"
        if not begins_with_state and ([epoch, position] == wanted or self._policy == "keep newest"):
            self._since = self._place(position)
        # Otherwise a gap will be told, or the state will come; until then this subscription has its place in
        # the topic's other life, or none.
        if self.position is None and not begins_with_state:
            self.position = Position(epoch, position)
        self._push.confirm(number, position)

    def _place(self, offset: int) -> list[Any]:
        """Where the next subscription goes on."""
        return [self.epoch, offset, "snapshot"] if self._stateful else [self.epoch, offset]

    def deliver(self, frame: Frame) -> None:
        """Take a frame that arrived; raises :class:`RemoteProtocolError`."""
        offset, content_id = parse_head(frame.payload)
        if len(self._waiting) >= MAX_WAITING or self.waiting_size >= MAX_WAITING_SIZE:
            raise RemoteProtocolError(
                f"more than {MAX_WAITING} updates or {MAX_WAITING_SIZE} bytes of topic {self.topic!r} "
                "without a confirmation"
            )
        if content_id == NOTICE:
            self._on_notice(offset, parse_notice(frame.payload))
        else:
            self._on_update(offset, frame)
        self._lot.unpark()

    def _on_update(self, offset: int, frame: Frame) -> None:
        skips = self._policy == "keep newest"
        is_state = self._state_due
        due = offset == self._received if is_state else self._received < offset < LEAVE
        if not (due and (skips or is_state or offset == self._received + 1)):
            raise RemoteProtocolError(
                f"update {offset} of topic {self.topic!r} came after {self._received}, out of order"
            )
        if skips:
            self._waiting.clear()
            self.waiting_size = 0
        self.waiting_size += len(frame.payload)
        self._waiting.append(Arrival(offset, frame, is_state))
        self._received = offset
        self._state_due = False
        self._since = self._place(offset)

    def _on_notice(self, due: int, what: list[Any]) -> None:
        if what[0] == "snapshot":
            self._on_state(due)
        elif what[0] == "gap":
            self._on_gap(due, what[1], newest_follows=what[2])
        else:
            kind = SlowConsumer if what[0] == "slow" else PushError
            self.ended = kind(f"topic {self.topic!r}: {printable(what[1])}")
            self._end_number()

    def _on_gap(self, due: int, position: int, *, newest_follows: bool) -> None:
        if position < self._received:
            raise RemoteProtocolError(
                f"a gap up to {position} of topic {self.topic!r} came after {self._received}"
            )
        # The place from which it was asked tells whether the gap is one between two lives.
        anew = position < due or (type(self._since) is list and self._since[0] != self.epoch)
        gap = Gap(topic=self.topic, epoch=self.epoch, first=due, last=position, anew=anew)
        self._waiting.append(Arrival(None if newest_follows else position, gap, False))
        self._received = position
        self._since = self._place(position)

    def _on_state(self, offset: int) -> None:
        """The state after this update comes next. It is confirmed too, even if its offset was before."""
        if not self._stateful or self._state_due or not self._received <= offset < LEAVE:
            raise RemoteProtocolError(
                f"a snapshot at {offset} of topic {self.topic!r} came after {self._received}, unasked for"
            )
        self._received = offset
        self.handled, self._confirmed = min(self.handled, offset - 1), min(self._confirmed, offset - 1)
        self._state_due = True

    def on_session_end(self) -> None:
        """The number is void; what has arrived stays, and the user's next wait subscribes again after it.

        A state that was announced and has not come will come in the next session.
        """
        self.number = None
        self._state_due = False
        self._lot.unpark()
