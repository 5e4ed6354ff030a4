"""The history of a topic, without I/O: a bounded log of encoded updates.

Every subscriber is a cursor into the same log, so a slow one costs nothing but its place in it.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from heartline.errors import ConfigurationError
from heartline.push._receipt import Who
from heartline.push._types import is_seconds
from heartline.push._wire import OFFSET, PUSH_HEAD, stamp
from heartline.wire import HEADER, HEADER_SIZE, FrameType
from heartline.wire.payload import ItemCount

__all__ = ["Entry", "History", "TopicLog"]


SHARED_SIZE = 16 * 1024
"""Bytes; a longer update is joined with its header for each subscriber, cheap against its transfer. Not above
``LEAST_ITEMS``, for nobody counts the items of a small one."""

_STAMPED_HEADER = struct.Struct(HEADER.format + "Q")
"""The header of a frame and the offset of the update in it."""


@dataclass(frozen=True, kw_only=True)
class History:
    """How much of a topic is retained; whichever bound is reached first drops the oldest updates.

    The newest update is always retained while ``age`` allows, however long it is.

    - ``count``: updates.
    - ``size``: bytes of encoded updates.
    - ``age``: seconds. A published topic that nobody is subscribed to is forgotten when its history has aged
      away; with the default, which is for ever, it never is.
    - ``keys``: keys of publishes that are remembered, so that a repeated one publishes nothing.
    """

    count: int = 1024
    """Updates: a minute of 17 a second, which outlasts a reconnect with backoff."""
    size: int = 64 * 1024 * 1024
    """Bytes of encoded updates."""
    age: float = math.inf
    """Seconds."""
    keys: int = 1024
    """Keys of publishes that are remembered, the newest: as many as updates."""

    def __post_init__(self) -> None:
        for name in ("count", "size", "age", "keys"):
            value = getattr(self, name)
            counts = name in ("count", "keys")
            # Below 1 a count would not even keep the newest.
            if not is_seconds(value) or value == 0 or (counts and value < 1):
                least = "of at least 1" if counts else "above 0"
                raise ConfigurationError(f"History.{name} must be a number {least}, not {value!r}")


class Entry:
    """One retained update: here its offset is written into the bytes that all subscribers share."""

    __slots__ = ("_long", "flags", "frame", "items", "length", "offset", "refused", "time", "total")

    def __init__(self, offset: int, value: bytes, flags: int, time: float, total: int, number: int) -> None:
        self.offset: int = offset
        self.flags: int = flags
        self.time: float = time
        self.length: int = len(value)
        """Bytes of the value, with its content id."""
        self.total: int = total
        """Bytes of all updates up to this one, for the length of any range."""
        self.refused: set[Who] | None = None
        """Subscriptions to which it is too long."""
        self.frame: bytes = b""
        """The whole frame of a small update, encoded once for all that share the topic's number."""
        self.items: ItemCount | None = None
        """Those of a longer one; every peer takes as many as a small one can have."""
        self._long = b""
        length = len(value) + OFFSET.size
        if length <= SHARED_SIZE:
            self.frame = _STAMPED_HEADER.pack(length, FrameType.PUSH, flags, 0, number, offset) + value
        else:
            self._long = stamp(offset, value)
            self.items = ItemCount(value[0], self._long, flags, PUSH_HEAD.size)

    @property
    def payload(self) -> bytes:
        """The payload of its frame."""
        return self._long or self.frame[HEADER_SIZE:]


class TopicLog:
    """The retained updates of one topic."""

    __slots__ = ("_entries", "epoch", "history", "last", "number", "total")

    def __init__(self, epoch: str, number: int, history: History) -> None:
        self.epoch: str = epoch
        self.number: int = number
        self.history: History = history
        self.last: int = 0
        """The newest offset given out."""
        self.total: int = 0
        """Bytes of all updates so far."""
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    @property
    def first(self) -> int:
        """The oldest offset that is retained; one beyond :attr:`last` when nothing is."""
        return self.last - len(self._entries) + 1

    @property
    def size(self) -> int:
        """Bytes retained."""
        return self.total - self.total_before(self.first)

    @property
    def newest(self) -> Entry | None:
        """The newest update, if it is retained."""
        return self._entries[-1] if self._entries else None

    def get(self, offset: int) -> Entry | None:
        """The update with this offset, if it is retained."""
        index = offset - self.first
        return self._entries[index] if 0 <= index < len(self._entries) else None

    def total_before(self, offset: int) -> int:
        """Bytes of all updates before this one; for a dropped one the least that is known."""
        entry = self.get(max(offset, self.first))
        return self.total if entry is None else entry.total - entry.length

    def append(self, value: bytes, flags: int, now: float) -> Entry:
        """Take the next update and drop what the history no longer holds."""
        self.last += 1
        self.total += len(value)
        entry = Entry(self.last, value, flags, now, self.total, self.number)
        self._entries.append(entry)
        self.trim(now)
        return entry

    def would_drop(self, length: int, offset: int, count: int = 1) -> bool:
        """Whether taking so many updates, of this length together, would drop the one with this offset.

        It may be one of them.
        """
        if offset < self.first or offset >= self.last + count:
            return False  # it is gone already, or the newest then, which stays
        entry = self.get(offset)
        kept = length + (0 if entry is None else self.total - entry.total + entry.length)
        return self.last - offset + 1 + count > self.history.count or kept > self.history.size

    def trim(self, now: float) -> None:
        """Drop what the history no longer holds."""
        entries, history = self._entries, self.history
        while len(entries) > history.count or (len(entries) > 1 and self.size > history.size):
            entries.popleft()
        while entries and now - entries[0].time > history.age:
            entries.popleft()
