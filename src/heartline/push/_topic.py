"""A topic at its publisher: the log, the subscribers, and what is on its way into the store."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import trio

from heartline.errors import PushError
from heartline.link import Flusher
from heartline.observe import Tell
from heartline.push._keys import Key, Keys
from heartline.push._log import Entry, TopicLog
from heartline.push._receipt import Wait, Who
from heartline.push._served import Served
from heartline.push._settings import USUAL_POLICIES
from heartline.push._state import State
from heartline.push._store import SavedState

if TYPE_CHECKING:
    from heartline.push._journal import Journal

__all__ = ["TURN", "Taken", "Topic"]

TURN = 512
"""Cursors that are moved, or updates put into logs, before other tasks run: about half a millisecond. In
shorter turns the flusher would write more often, and join less."""

_offset = attrgetter("offset")


class Taken(NamedTuple):
    """An update that was published: its offset, and the subscriptions that get it."""

    offset: int
    targets: list[Served]


class Topic:
    """A topic: its log, and its subscribers."""

    __slots__ = (
        "_blocking",
        "_expected",
        "_expected_size",
        "_on_idle",
        "_spread",
        "_tell",
        "_waits",
        "changed",
        "deleted",
        "flusher",
        "journal",
        "keys",
        "log",
        "name",
        "policies",
        "publishing",
        "served",
        "settled",
        "skipped",
        "state",
    )

    def __init__(
        self, name: str, log: TopicLog, flusher: Flusher, on_idle: Callable[[Topic], None], tell: Tell | None
    ) -> None:
        self.name: str = name
        self.log: TopicLog = log
        self.flusher: Flusher = flusher
        self.journal: Journal | None = None
        """The way into its store, if it has one."""
        self.state: State | None = None
        self.policies: frozenset[str] = USUAL_POLICIES
        """What a subscriber may ask for."""
        self.settled: bool = False
        """It was declared, and stays although nobody uses it."""
        self.deleted: bool = False
        self.publishing: int = 0
        """Publishes in progress."""
        self.keys: Keys = Keys()
        self.served: dict[Who, Served] = {}
        """The subscriptions. One that comes back replaces that of the connection before."""
        self.skipped: int = 0
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        """Wakes the tasks that wait for room, or for a cursor to move."""
        self._on_idle = on_idle
        self._tell = tell
        """Tells observers of each update."""
        self._expected = 0
        self._expected_size = 0
        self._spread = 0
        self._waits: list[Wait] = []
        self._blocking: dict[Served, None] = {}

    @trio.lowlevel.enable_ki_protection
    def take(self, value: bytes, flags: int, now: float, key: Key | None) -> Taken:
        """Give an update the next offset and keep it; it reaches nobody before :meth:`spread`."""
        entry = self.log.append(value, flags, now)
        if self.state is not None:
            self.state.apply(entry.offset, value, flags)
        if key is not None:
            self.keys.add(key.at(entry.offset), self.log.history.keys)
        if self._tell is not None:
            self._tell(self.name, entry.offset, entry.length)
        return Taken(entry.offset, list(self.served.values()))

    @trio.lowlevel.enable_ki_protection
    async def spread(self, offset: int) -> None:
        """Move the cursor of every subscriber that has room, up to this update at least.

        The cursors move in turns, between which other tasks run. What was published must reach everybody, so
        this cannot be cancelled. An update that another publisher's turn has already sent costs nothing.
        """
        if self._spread >= offset:
            return
        last = self.log.last
        for count, served in enumerate(list(self.served.values()), 1):
            served.advance()
            if count % TURN == 0:
                await trio.lowlevel.cancel_shielded_checkpoint()
        self._spread = max(self._spread, last)

    # What is on its way into the store

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
            return None  # asking for it says why

    # Subscribers

    def join(self, served: Served) -> None:
        """A subscriber has come."""
        self.served[served.who] = served
        if served.policy == "block":
            self._blocking[served] = None

    def leave(self, served: Served, *, lost: bool) -> None:
        """A subscriber has gone: of its own will, or ``lost`` with its session."""
        counted = served.confirmed if served.flowing else served.start
        served.flowing = False
        self._blocking.pop(served, None)
        if not self.has(served):  # it has left before, or is back already
            return
        del self.served[served.who]
        for wait in self._waits[self._first_wait(counted) :]:
            wait.gone(served.who, lost=lost)
        self.changed.unpark_all()
        if not self.served:
            self._on_idle(self)

    def has(self, served: Served) -> bool:
        """Whether this subscription goes on."""
        return self.served.get(served.who) is served

    def confirmed(self, served: Served, before: int) -> None:
        """A subscriber has confirmed what follows the update ``before``, up to ``served.confirmed``."""
        for index in range(self._first_wait(before), len(self._waits)):
            wait = self._waits[index]
            if wait.offset > served.confirmed:
                break
            wait.confirmed(served.who)
        self.changed.unpark_all()

    def lose(self, served: Served, entry: Entry) -> None:
        """An update is longer than this subscriber accepts: it will never have it."""
        self.skipped += 1
        if entry.refused is None:
            entry.refused = set()
        entry.refused.add(served.who)
        for index in range(self._first_wait(entry.offset - 1), len(self._waits)):
            if self._waits[index].offset > entry.offset:
                break
            self._waits[index].refused(served.who)

    def _first_wait(self, offset: int) -> int:
        """The place of the first that waits for an update after this one."""
        return bisect_right(self._waits, offset, key=_offset)

    def add_wait(self, wait: Wait) -> None:
        """A publisher waits for confirmations."""
        insort(self._waits, wait, key=_offset)

    def discard_wait(self, wait: Wait) -> None:
        """It waits no more."""
        self._waits.remove(wait)

    def blocked(self, length: int) -> bool:
        """Whether a subscription wants to be waited for before an update of this length is taken."""
        if not self._blocking:
            return False
        length, count = length + self._expected_size, 1 + self._expected
        return any(self.log.would_drop(length, served.cursor, count) for served in self._blocking)
