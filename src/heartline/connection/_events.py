"""The events in the life of a connection, and the feeds that deliver them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, final
from weakref import WeakValueDictionary

import trio

from heartline.errors import HeartlineError
from heartline.link import NoPublicConstructor

if TYPE_CHECKING:
    from heartline.connection._connection import Connection

__all__ = ["Closed", "ConnectionEvent", "Events", "Feeds", "Lost", "Opened", "Reconnected"]


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection is open for the first time."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Lost:
    """The link is lost; the client tries to get another one, and the server waits for the client."""

    connection: Connection
    reason: HeartlineError


@dataclass(frozen=True, slots=True)
class Reconnected:
    """There is a new link. If the session was not ``resumed``, what was in progress is lost."""

    connection: Connection
    resumed: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection has ended: closed on purpose, refused for good, or (on a server) lost."""

    connection: Connection
    reason: HeartlineError


ConnectionEvent: TypeAlias = Opened | Lost | Reconnected | Closed

E = TypeVar("E")


@final
class Events(Generic[E], metaclass=NoPublicConstructor):
    """An async iterator of the events since it was made; ends with the connection or server.

    It keeps ``Limits.events`` unread events. A reader that falls behind loses the oldest, which ``dropped``
    counts; the state itself can still be asked for. Cancelling the wait for the next event loses nothing. Any
    number of feeds can be read at the same time, each by one task.
    """

    __slots__ = ("__weakref__", "_buffer", "_lot", "_over", "_size", "dropped")

    def __init__(self, size: int) -> None:
        self._buffer: deque[E] = deque()
        self._lot = trio.lowlevel.ParkingLot()
        self._size = size
        self._over = False
        self.dropped: int = 0

    def _send(self, event: E) -> None:
        if len(self._buffer) == self._size:
            self._buffer.popleft()
            self.dropped += 1
        self._buffer.append(event)
        self._lot.unpark()

    def _end(self) -> None:
        self._over = True
        self._lot.unpark_all()

    def __aiter__(self) -> Events[E]:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> E:
        await trio.lowlevel.checkpoint()
        while not self._buffer:
            if self._over:
                raise StopAsyncIteration
            await self._lot.park()
        return self._buffer.popleft()


class Feeds(Generic[E]):
    """The feeds of one source of events; a feed without references is forgotten."""

    __slots__ = ("_feeds", "_over")

    def __init__(self) -> None:
        self._feeds: WeakValueDictionary[int, Events[E]] = WeakValueDictionary()
        self._over = False

    def open(self, size: int) -> Events[E]:
        """Open a feed of what happens from now on, which keeps up to ``size`` unread events."""
        events = Events[E]._create(size)
        self._feeds[id(events)] = events
        if self._over:
            events._end()
        return events

    def send(self, event: E) -> None:
        """Hand an event to every feed."""
        for events in list(self._feeds.values()):
            events._send(event)

    def end(self) -> None:
        """End every feed; readers still get the events that they have not read."""
        self._over = True
        for events in list(self._feeds.values()):
            events._end()

    def __len__(self) -> int:
        return len(self._feeds)

    @property
    def dropped(self) -> int:
        """Events that the present feeds have dropped."""
        return sum(events.dropped for events in self._feeds.values())
