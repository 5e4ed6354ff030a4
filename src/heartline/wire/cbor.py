"""CBOR from a peer: cbor2 without what a peer must not be able to ask for.

No trailing bytes, no indefinite lengths, bounded nesting, map keys text or bytes only (a peer cannot craft
colliding hashes from them) and no duplicates, and of the semantic tags only the cheap and harmless ones (date
and time, UUID).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import cbor2

__all__ = ["MAX_DEPTH", "loads"]

MAX_DEPTH: Final = 32
"""Levels of nesting in one value: deeper than any honest message, harmless to every consumer."""


def _refuse_tag(_tag: Any, _immutable: bool) -> Any:
    raise ValueError("this CBOR tag is not accepted")


# What cbor2 would interpret: big numbers, decimals with huge exponents, regular expressions, MIME, shared
# references (cycles), sets, addresses and self-description.
_REFUSED = (1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 52, 54, 100, 256, 258, 260, 261, 43000, 55799)

_decoder = partial(
    cbor2.CBORDecoder,
    allow_indefinite=False,
    allow_duplicate_keys=False,
    strict_hashable_types=True,
    semantic_decoders=dict.fromkeys(_REFUSED, _refuse_tag),
)


def loads(
    data: bytes, *, max_depth: int = MAX_DEPTH, tag_hook: Callable[[Any, bool], Any] = _refuse_tag
) -> Any:
    """The value of exactly these bytes; whatever is wrong raises :class:`ValueError` or cbor2's errors."""
    decoder = _decoder(io.BytesIO(data), max_depth=max_depth, tag_hook=tag_hook)
    value = decoder.decode()
    # cbor2.loads is 1 µs faster, and silent about bytes behind the value.
    try:
        decoder.read(1)
    except cbor2.CBORDecodeEOF:
        return value
    raise ValueError("bytes behind the value")
