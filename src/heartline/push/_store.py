"""What a topic needs of a store, so that its updates, epoch and keys outlive the server.

The publisher hands over batches, one at a time, and publishes an update only when its batch is committed. So
a store needs no queue of its own, and nothing that a subscriber knows can be missing in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["SavedKey", "SavedState", "SavedTopic", "SavedUpdate", "Store", "StoredUpdate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedKey:
    """An idempotency key: the update that was published with it, and a digest of its value."""

    key: str
    offset: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """The state of a topic with a :class:`heartline.Fold` after the update ``offset``, encoded.

    An empty payload stands for what :attr:`heartline.Fold.initial` makes: a store that can drop a state
    then has it instead.
    """

    offset: int
    payload: bytes
    flags: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredUpdate:
    """An update to be stored, and what its topic no longer needs."""

    topic: str
    offset: int
    """One more than that of the topic's update before."""
    payload: bytes
    """The value as it is sent, without its offset."""
    flags: int
    """An opaque number below 256 that belongs to the payload."""
    key: SavedKey | None = None
    state: SavedState | None = None
    """Replaces the one that is saved, if there is one."""
    first: int = 0
    """Updates of the topic before this offset may be forgotten."""
    first_key: int = 0
    """Keys of the topic's updates before this offset may be forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedUpdate:
    """An update as it was stored."""

    offset: int
    payload: bytes
    flags: int
    age: float
    """Seconds since it was stored, by the store's clock; at least 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedTopic:
    """All that a store has of a topic."""

    epoch: str
    last: int
    """The offset of the newest update ever stored, whether it is still there or not."""
    updates: Sequence[SavedUpdate]
    """In order and without holes up to ``last``."""
    keys: Sequence[SavedKey]
    """In the order of their offsets."""
    state: SavedState | None = None


class Store(Protocol):
    """Keeps topics; :class:`heartline.SqliteStore` is one, and :func:`heartline.testing.check_store` checks
    any other.

    Whoever makes a store opens and closes it, around the servers that use it. A topic has one server at a
    time.
    """

    async def load(self, topic: str, epoch: str) -> SavedTopic:
        """What is kept of a topic; a new one is kept with this epoch from now on.

        Raises :class:`heartline.StoreError`.
        """
        ...

    async def append(self, batch: Sequence[StoredUpdate]) -> None:
        """Keep all these updates, or raise :class:`heartline.StoreError` and keep none of them.

        When it returns, they survive a crash of the program and, as far as the store promises, of the
        machine. An offset that does not follow its topic's last one is refused. The topics have been loaded
        before. There is one call at a time.
        """
        ...
