"""A topic at its publisher: the log, who listens, and what is on its way into the store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import trio

from heartline.errors import PushError
from heartline.link import Flusher
from heartline.observe import Tell
from heartline.push._keys import Keys
from heartline.push._log import TopicLog
from heartline.push._receipt import Wait
from heartline.push._served import Served
from heartline.push._state import State
from heartline.push._store import SavedKey, SavedState
from heartline.push._types import SlowPolicy

if TYPE_CHECKING:
    from heartline.push._journal import Journal

__all__ = ["Taken", "Topic"]


class Taken(NamedTuple):
    """An update that was published: its offset, and whom it goes to."""

    offset: int
    targets: list[Served]


class Topic:
    """A topic: its log, and who listens."""

    def __init__(self, name: str, log: TopicLog, flusher: Flusher, tell: Tell | None) -> None:
        self.name = name
        self.log = log
        self.flusher = flusher
        self._tell = tell
        """Tells observers of each update."""
        self.journal: Journal | None = None
        """The way into its store, if it has one."""
        self.state: State | None = None
        self.settled = False
        """It has settings, and stays although nobody uses it."""
        self.keys: Keys = Keys()
        self._expected = 0
        self._expected_size = 0
        self.served: dict[Served, None] = {}
        self.skipped = 0
        self.waits: list[Wait] = []
        """Publishers that wait for confirmations."""
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        """Wakes who waits for room, or for a cursor to move."""
        self._blocking: dict[Served, None] = {}

    @trio.lowlevel.enable_ki_protection
    def take(self, payload: bytes, flags: int, now: float, key: SavedKey | None) -> Taken:
        """Publish an update, whose payload has the next offset; nothing else happens meanwhile."""
        entry = self.log.append(payload, flags, now)
        if self.state is not None:
            self.state.apply(entry.offset, payload, flags)
        if key is not None:
            self.keys.add(replace(key, offset=entry.offset), self.log.history.keys)
        targets = list(self.served)
        for served in targets:
            served.advance()
        if self._tell is not None:
            self._tell(self.name, entry.offset, len(payload))
        return Taken(entry.offset, targets)

    # What is on its way into the store

    @property
    def next_offset(self) -> int:
        """The offset of the next update, if all that are expected are stored."""
        return self.log.last + self._expected + 1

    def expect(self, count: int, size: int) -> None:
        """So many more updates, of so many bytes, are on their way; or fewer."""
        self._expected += count
        self._expected_size += size
        if count < 0:
            self.changed.unpark_all()

    def state_to_save(self) -> SavedState | None:
        """The state, if the store has none from which the history leads to the newest update."""
        state = self.state
        if state is None or self.log.first <= state.saved + 1:
            return None
        try:
            return state.encode()
        except PushError:
            return None  # who asks for it is told

    # Who listens

    def join(self, served: Served) -> None:
        """A subscriber has come."""
        self.served[served] = None
        if served.policy is SlowPolicy.BLOCK:
            self._blocking[served] = None

    def leave(self, served: Served, *, lost: bool) -> None:
        """A subscriber has gone: of its own will, or ``lost`` with its session."""
        if served not in self.served:
            return
        del self.served[served]
        self._blocking.pop(served, None)
        if self.waits and all(other.who != served.who for other in self.served):  # it is not back already
            for wait in self.waits:
                wait.gone(served.who, lost=lost)
        self.changed.unpark_all()

    def note(self, served: Served) -> None:
        """A subscriber has confirmed."""
        for wait in self.waits:
            if served.start < wait.offset <= served.confirmed:
                wait.confirmed(served.who)
        self.changed.unpark_all()

    def blocked(self, length: int) -> bool:
        """Whether a subscription wants to be waited for before an update of this length is taken."""
        if not self._blocking:
            return False
        length, count = length + self._expected_size, 1 + self._expected
        return any(self.log.would_drop(length, served.cursor, count) for served in self._blocking)
