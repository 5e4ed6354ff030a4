"""The keys of recent publishes, so that one that is repeated publishes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

import trio

from heartline.errors import ConfigurationError, KeyReused
from heartline.push._store import SavedKey
from heartline.wire.text import is_name

__all__ = ["MAX_KEY", "Key", "Keys", "make_key"]

MAX_KEY = 256
"""Characters in a key: any name or UUID, so that the memory of a topic's keys is bounded."""

DIGEST_SIZE = 16
"""Bytes: values that differ by chance are told apart."""


class Key(NamedTuple):
    """The key of an update that has no offset yet, and a digest of its value."""

    text: str
    digest: bytes

    def at(self, offset: int) -> SavedKey:
        """What is remembered once the update has an offset."""
        return SavedKey(key=self.text, offset=offset, digest=self.digest)


def make_key(text: str, value: bytes) -> Key:
    """The key of an update with this encoded value; raises :class:`ConfigurationError`."""
    if not is_name(text, MAX_KEY):
        raise ConfigurationError(f"a key is text of 1 to {MAX_KEY} printable characters, not {text!r:.80}")
    return Key(text, blake2b(value, digest_size=DIGEST_SIZE).digest())


class Keys:
    """The keys of one topic: those of the newest updates that had one, and those being published."""

    __slots__ = ("_claims", "_known")

    def __init__(self) -> None:
        self._known: dict[str, SavedKey] = {}
        self._claims: dict[str, trio.Event] = {}

    def __iter__(self) -> Iterator[SavedKey]:
        return iter(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    @property
    def first(self) -> int:
        """The offset of the oldest update whose key is remembered; 0 if none is."""
        return next((key.offset for key in self), 0)

    def add(self, key: SavedKey, limit: int) -> None:
        """Remember the key of a newer update, and no more keys than the limit."""
        self._known[key.key] = key
        while len(self._known) > limit:
            del self._known[next(iter(self._known))]

    async def claim(self, topic: str, key: Key) -> int | None:
        """The offset of the update with this key, or ``None``: then this caller is the one to publish it.

        That one calls :meth:`release` at the end, and others with the same key wait for it here. Raises
        :class:`KeyReused`.
        """
        while (other := self._claims.get(key.text)) is not None:
            await other.wait()
        known = self._known.get(key.text)
        if known is None:
            self._claims[key.text] = trio.Event()
            return None
        if known.digest != key.digest:
            raise KeyReused(topic, key=key.text, offset=known.offset)
        return known.offset

    def release(self, key: Key) -> None:
        """The publish that claimed the key is over."""
        self._claims.pop(key.text).set()
