"""The subscriber's side: an iterator of updates that outlives its sessions.

It keeps its place: the last offset received and the last one handled. In a new session it subscribes again
from there, so that every update comes once and in order, or a :class:`~heartline.HistoryGap` says that it
cannot. An update counts as handled, and is confirmed, when the next one is asked for or the block is left
without an exception.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from heartline.errors import (
    CallInterrupted,
    ConfigurationError,
    HeartlineError,
    HistoryGap,
    LocalProtocolError,
    Overloaded,
    PushError,
    RemoteProtocolError,
    SerializationError,
    SlowConsumer,
)
from heartline.link import Core
from heartline.push._types import Position, Since, SlowPolicy, Update
from heartline.push._wire import LEAVE, NOTICE, decode_update, parse_head, parse_notice
from heartline.wire import Frame

if TYPE_CHECKING:
    from heartline.push._part import Push

__all__ = ["Subscription"]

CONFIRM_COUNT = 16
"""Updates handled between confirmations while more are waiting; the last one is confirmed at once."""

CONFIRM_AFTER = 0.05
"""Seconds between confirmations when handling takes long: what a receipt may come later by."""

MAX_WAITING = 1024
"""Updates that a publisher may send without a confirmation before it counts as broken; ours sends 256."""

MAX_WAITING_SIZE = 16 * 1024 * 1024
"""Bytes of such updates, beside one more of any length; ours sends 1 MiB."""

OVERLOADED_PAUSE = 0.1
"""Seconds before subscribing again at a peer that has no room for the call after a loss."""


class _Gap:
    """What waits in the place of updates that were lost."""

    __slots__ = ("anew", "due", "newest", "position")

    def __init__(self, due: int, position: int, newest: Frame | None, *, anew: bool) -> None:
        self.due, self.position, self.newest, self.anew = due, position, newest, anew


class Subscription:
    """A subscription to a topic: an async context manager and iterator of :class:`Update`.

    Iterating raises :class:`HistoryGap` when updates were lost for good (iterate on: it continues after the
    newest), :class:`SerializationError` for an update that cannot be decoded (iterate on),
    :class:`SlowConsumer` or :class:`PushError` when the publisher ended it, and the connection's reason when
    that is closed. One task iterates at a time.
    """

    def __init__(
        self,
        core: Core,
        push: Push,
        key: int,
        topic: str,
        since: Since,
        policy: SlowPolicy | None,
    ) -> None:
        self.topic = topic
        self._core = core
        self._push = push
        self._key = key
        self._policy = SlowPolicy.DROP_OLDEST if policy is None else policy
        if not isinstance(self._policy, SlowPolicy):
            raise ConfigurationError(f"policy must be a heartline.SlowPolicy, not {policy!r}")
        if isinstance(since, Position):
            self._since: Any = [since.epoch, since.offset]
        elif since is None or since in ("newest", "oldest", "snapshot"):
            self._since = since
        else:
            raise ConfigurationError(
                f"since must be None, NEWEST, OLDEST, SNAPSHOT or a Position, not {since!r}"
            )
        self._stateful = since == "snapshot"
        if self._stateful and self._policy is SlowPolicy.KEEP_NEWEST:
            raise ConfigurationError("a state needs every update: SNAPSHOT does not go with KEEP_NEWEST")
        self._lot = trio.lowlevel.ParkingLot()
        self._entered = False
        self._ended: HeartlineError | None = None
        # The present session: under which number updates come, and what was handled and confirmed there.
        self._number: int | None = None
        self._done = 0
        self._confirmed = 0
        self._confirmed_at = 0.0
        # What has arrived. A gap is complete, and can be told, when the newest update has come behind it.
        self._epoch = ""
        self._received = 0
        self._gap: int | None = None
        self._state_due = False
        self._waiting: deque[tuple[int, Frame, bool] | _Gap] = deque()
        self.waiting_size: int = 0
        """Bytes of updates that have arrived and were not given out."""
        # What was given to the user, and what came back handled.
        self._taken: int | None = None
        self._handled: Position | None = since if isinstance(since, Position) else None

    @property
    def position(self) -> Position:
        """The place after the last update that was handled: a later subscription can begin there."""
        if self._handled is None:
            before = "its snapshot is handled" if self._entered else "it is entered"
            raise LocalProtocolError(f"the subscription has no position before {before}")
        return self._handled

    async def __aenter__(self) -> Subscription:
        if self._entered:
            raise LocalProtocolError("a subscription is entered once; make another with subscribe()")
        self._entered = True
        await self._attach()
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_rest: object) -> None:
        if error is None:
            self._settle()
        number, self._number = self._number, None
        self._ended = LocalProtocolError(f"the subscription to {self.topic!r} was left")
        self._waiting.clear()
        self._lot.unpark_all()
        if number is not None:
            self._confirm_handled(number)
            self._push.leave(self._key, number)
        if error is None:
            await trio.lowlevel.checkpoint()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Update:
        """The next update; confirms the one before."""
        await trio.lowlevel.checkpoint()
        if not self._entered:
            raise LocalProtocolError("enter the subscription first: async with connection.subscribe(...)")
        self._settle()
        while not self._waiting:
            if self._number is not None:
                self._confirm_handled(self._number)
            if self._ended is not None:
                raise self._ended
            if self._number is None:
                await self._attach()
            else:
                await self._lot.park()
        if self._number is not None and self._confirmation_due():
            self._confirm_handled(self._number)
        return self._take()

    def _take(self) -> Update:
        """The first of what waits; raises if that is a gap, or cannot be decoded."""
        item = self._waiting.popleft()
        if isinstance(item, _Gap):
            self._taken = item.position
            raise self._history_gap(item)
        offset, frame, is_state = item
        self._taken = offset
        self.waiting_size -= len(frame.payload)
        return Update(self.topic, self._epoch, offset, decode_update(frame.payload, frame.flags), is_state)

    def _history_gap(self, gap: _Gap) -> HistoryGap:
        newest, cause = None, None
        if gap.newest is not None:
            self.waiting_size -= len(gap.newest.payload)
            try:
                value = decode_update(gap.newest.payload, gap.newest.flags)
                newest = Update(self.topic, self._epoch, gap.position, value)
            except SerializationError as error:
                cause = error  # the loss must be told all the same
        told = HistoryGap(self.topic, expected=gap.due, newest=newest, anew=gap.anew)
        told.__cause__ = cause
        return told

    # Handled and confirmed

    def _settle(self) -> None:
        """What was given to the user is handled."""
        if self._taken is not None:
            self._done = self._taken
            self._handled = Position(self._epoch, self._taken)
            self._taken = None

    def _confirmation_due(self) -> bool:
        """Whether to confirm while more is waiting."""
        return (
            self._done - self._confirmed >= CONFIRM_COUNT
            or trio.current_time() - self._confirmed_at >= CONFIRM_AFTER
        )

    def _confirm_handled(self, number: int) -> None:
        if self._done > self._confirmed:
            self._confirmed = self._done
            self._confirmed_at = trio.current_time()
            self._push.confirm(number, self._done)

    # The connection's side

    async def _attach(self) -> None:
        """Subscribe, or subscribe again after a loss."""
        core = self._core
        while True:
            await core.wait_open()
            link = core.link
            try:
                answer = await self._push.ask(self.topic, self._since, self._policy.value, self._key)
                if core.link is link:  # otherwise it was lost again before this task was resumed
                    self._begin(answer)
                    return
            except CallInterrupted:
                continue
            except Overloaded:
                if not self._epoch:
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
        self._number, self._epoch = number, epoch
        self._received = self._done = self._confirmed = position
        begins_with_state = self._since == "snapshot"
        if not begins_with_state and ([epoch, position] == wanted or self._policy is SlowPolicy.KEEP_NEWEST):
            self._since = self._place(position)
        # Otherwise a gap will be told, or the state will come; until then this subscription has its place in
        # the topic's other life, or none.
        if self._handled is None and not begins_with_state:
            self._handled = Position(epoch, position)
        self._push.confirm(number, position)

    def _place(self, offset: int) -> list[Any]:
        """Where the next subscription goes on."""
        return [self._epoch, offset, "snapshot"] if self._stateful else [self._epoch, offset]

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
        skips = self._policy is SlowPolicy.KEEP_NEWEST
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
        if self._gap is None:
            self._waiting.append((offset, frame, is_state))
        else:
            self._wait_gap(self._gap, offset, frame)
        self._received = offset
        self._state_due = False
        self._since = self._place(offset)

    def _on_notice(self, due: int, what: list[Any]) -> None:
        if what[0] == "snapshot":
            self._on_state(due)
            return
        if what[0] != "gap":
            kind = SlowConsumer if what[0] == "slow" else PushError
            self._ended = kind(f"topic {self.topic!r}: {what[1]}")
            number, self._number = self._number, None
            self._push.leave(self._key, number)
            return
        _, position, newest_follows = what
        if position < self._received:
            raise RemoteProtocolError(
                f"a gap up to {position} of topic {self.topic!r} came after {self._received}"
            )
        self._received = position
        self._gap = due if self._gap is None else self._gap
        if not newest_follows:
            self._wait_gap(self._gap, position, None)
            self._since = self._place(position)

    def _wait_gap(self, due: int, position: int, newest: Frame | None) -> None:
        """The gap is complete. The place it was asked from tells whether it is one between two lives."""
        anew = position < due or (type(self._since) is list and self._since[0] != self._epoch)
        self._waiting.append(_Gap(due, position, newest, anew=anew))
        self._gap = None

    def _on_state(self, offset: int) -> None:
        """The state after this update comes next. It is confirmed too, be its offset confirmed already."""
        if not self._stateful or self._state_due or not self._received <= offset < LEAVE:
            raise RemoteProtocolError(
                f"a snapshot at {offset} of topic {self.topic!r} came after {self._received}, unasked for"
            )
        self._received = offset
        self._done, self._confirmed = min(self._done, offset - 1), min(self._confirmed, offset - 1)
        self._state_due = True

    def on_session_end(self) -> None:
        """The number is void; what has arrived stays, and the iterator subscribes again when it is through.

        A gap whose newest update has not come is not told: the next subscription will meet it again. So it is
        with a state.
        """
        self._number = None
        self._gap = None
        self._state_due = False
        self._lot.unpark()
