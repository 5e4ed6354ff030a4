"""The keys of recent publishes, so that one that is repeated publishes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import trio

from heartline.errors import ConfigurationError, KeyReused
from heartline.push._store import SavedKey
from heartline.wire import Serializer, encode_value
from heartline.wire.text import is_name

__all__ = ["MAX_KEY", "Keys", "make_key"]

MAX_KEY = 256
"""Characters in a key: any name or UUID, so that the memory of a topic's keys is bounded."""

DIGEST_SIZE = 16
"""Bytes: values that differ by chance are told apart."""


def make_key(serializer: Serializer, key: str, value: Any) -> SavedKey:
    """A key and its value, for an update that has no offset yet; raises :class:`ConfigurationError`."""
    if not is_name(key, MAX_KEY):
        raise ConfigurationError(f"a key is text of 1 to {MAX_KEY} printable characters, not {key!r:.80}")
    payload, _ = encode_value(serializer, value)
    return SavedKey(key=key, offset=0, digest=blake2b(payload, digest_size=DIGEST_SIZE).digest())


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

    async def claim(self, topic: str, key: SavedKey) -> int | None:
        """The offset of the update with this key, or ``None``, and then this caller publishes it.

        Who publishes one calls :meth:`release` at the end. Waits while another does. Raises
        :class:`KeyReused`.
        """
        while (other := self._claims.get(key.key)) is not None:
            await other.wait()
        known = self._known.get(key.key)
        if known is None:
            self._claims[key.key] = trio.Event()
            return None
        if known.digest != key.digest:
            raise KeyReused(topic, key=key.key, offset=known.offset)
        return known.offset

    def release(self, key: SavedKey) -> None:
        """The publish that claimed the key is over."""
        self._claims.pop(key.key).set()
