"""Decodes CBOR from a peer: cbor2 without the features that a peer must not be able to use.

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

__all__ = ["MAX_DEPTH", "loads", "loads_with"]

MAX_DEPTH: Final = 32
"""Levels of nesting in one value: deeper than any honest message, harmless to every consumer."""


def _refuse_tag(_tag: Any, _immutable: bool) -> Any:
    raise ValueError("this CBOR tag is not accepted")


# What cbor2 would interpret: big numbers, decimals with huge exponents, regular expressions, MIME, shared
# references (cycles), sets, addresses and self-description.
_REFUSED = (1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 52, 54, 100, 256, 258, 260, 261, 43000, 55799)

_HARDENED: dict[str, Any] = {
    "allow_indefinite": False,
    "allow_duplicate_keys": False,
    "strict_hashable_types": True,
    "semantic_decoders": dict.fromkeys(_REFUSED, _refuse_tag),
}
_decoder: Callable[..., cbor2.CBORDecoder] = partial(cbor2.CBORDecoder, **_HARDENED)
_loads: Callable[[bytes], Any] = partial(
    cbor2.loads, max_depth=MAX_DEPTH + 1, tag_hook=_refuse_tag, **_HARDENED
)

_PAIR: Final = b"\x82"
_END: Final = b"\x1b\xc0\xff\xee\x68\x65\x61\x72\x74"
_END_VALUE: Final = int.from_bytes(_END[1:])
_SHORT: Final = 4096


def loads(data: bytes) -> Any:
    """Return the value of exactly these bytes; raises :class:`ValueError` or an error of cbor2.

    ``cbor2.loads`` says nothing about bytes behind the value, and the decoder that can be asked costs a
    microsecond more than a small value itself. So a short value is decoded as the first of a pair whose
    second is a known number: the pair ends with that number only if the value ended where its bytes did. (The
    number's nine bytes are not in ``data``, and they do not overlap themselves, so nothing else can be taken
    for it.)
    """
    if len(data) > _SHORT or _END in data:
        return loads_with(data, _refuse_tag)
    value, end = _loads(_PAIR + data + _END)
    if end != _END_VALUE or type(end) is not int:
        raise ValueError("bytes behind the value")
    return value


def loads_with(data: bytes, tag_hook: Callable[[Any, bool], Any]) -> Any:
    """Like :func:`loads`, with a function that returns the value of a tag."""
    decoder = _decoder(io.BytesIO(data), max_depth=MAX_DEPTH, tag_hook=tag_hook)
    value = decoder.decode()
    try:
        decoder.read(1)
    except cbor2.CBORDecodeEOF:
        return value
    raise ValueError("bytes behind the value")
