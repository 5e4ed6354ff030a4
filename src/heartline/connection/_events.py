"""What happens to a connection, and the feeds that tell it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import trio

from heartline.connection._channels import decode_message
from heartline.errors import HeartlineError
from heartline.wire import Frame

if TYPE_CHECKING:
    from heartline.connection._connection import Connection

__all__ = ["Closed", "ConnectionEvent", "Events", "Lost", "Message", "Opened", "Reconnected"]


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection is open for the first time."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Lost:
    """The link is gone; a client tries to get another one, and its server waits for that."""

    connection: Connection
    reason: HeartlineError


@dataclass(frozen=True, slots=True)
class Reconnected:
    """There is a new link. If the session was not ``resumed``, what was in progress is lost."""

    connection: Connection
    resumed: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """The end of the connection: closed on purpose, refused for good, or (on a server) lost."""

    connection: Connection
    reason: HeartlineError


class Message:
    """A message arrived on the default channel."""

    __slots__ = ("_frame", "_link", "connection")

    def __init__(self, connection: Connection, frame: Frame) -> None:
        self.connection: Connection = connection
        self._frame = frame
        self._link = connection.link

    @property
    def value(self) -> Any:
        """The message: bytes, or a value; raises :class:`SerializationError` if it cannot be decoded."""
        return decode_message(self._frame)

    def take(self) -> None:
        """Give its credit back to the sender; done when the message is read."""
        if self.connection.link is self._link:  # a new session began with a whole window
            self.connection.give_credit(0, len(self._frame.payload))


ConnectionEvent: TypeAlias = Opened | Lost | Reconnected | Closed | Message

T = TypeVar("T")


class Events(Generic[T]):
    """The events from its making on: an async iterator that ends with the connection or server.

    State events (not messages) are bounded by ``size``: a reader that lags loses the oldest, and
    ``dropped`` counts them; they tell of a state that can be asked for. Messages are never dropped: the
    sender's credit comes back only when the reader takes them.
    """

    __slots__ = ("_buffer", "_lot", "_over", "_size", "_states", "dropped")

    def __init__(self, size: int) -> None:
        self._buffer: deque[T] = deque()
        self._lot = trio.lowlevel.ParkingLot()
        self._size = size
        self._states = 0
        self._over = False
        self.dropped: int = 0

    def send(self, event: T) -> None:
        """Hand an event to the reader."""
        if not isinstance(event, Message):
            self._states += 1
            if self._states > self._size:
                self._drop_oldest()
        self._buffer.append(event)
        self._lot.unpark()

    def _drop_oldest(self) -> None:
        oldest = next(event for event in self._buffer if not isinstance(event, Message))
        self._buffer.remove(oldest)
        self._states -= 1
        self.dropped += 1

    def take_over(self, older: Events[Any]) -> None:
        """Take the messages that the reader of ``older`` has not read, and end it."""
        buffer, older._buffer = older._buffer, deque()
        for event in buffer:
            (self if isinstance(event, Message) else older)._buffer.append(event)
        self._lot.unpark_all()
        older.end()

    def end(self) -> None:
        """No event comes any more; the reader still gets those that are here."""
        self._over = True
        self._lot.unpark_all()

    def __aiter__(self) -> Events[T]:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> T:
        await trio.lowlevel.checkpoint()
        while not self._buffer:
            if self._over:
                raise StopAsyncIteration
            await self._lot.park()
        event = self._buffer.popleft()
        if isinstance(event, Message):
            event.take()
        else:
            self._states -= 1
        return event
