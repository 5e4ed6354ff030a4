"""Counts the items of an encoded value before it is built: values, keys of maps, and containers.

What a value costs its receiver goes by its items, not by its bytes: an empty list is one byte of CBOR, and 56
bytes and a third of a microsecond when it is built. No item takes less than a byte, so a body no longer than
the bound need not be looked at. In a longer one CBOR and MessagePack are walked head by head, past the bytes
of texts, and no further than to the bound; JSON is counted by what stands between its items.

A count is never less than the items that a decoder builds of the same bytes, even of broken ones: it stops
where a decoder does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from heartline.errors import SerializationError
from heartline.wire.serializers.cbor import CborSerializer
from heartline.wire.serializers.json import JsonSerializer
from heartline.wire.serializers.msgpack import COUNTED, SIZES, MsgpackSerializer

__all__ = ["CBOR", "check_items", "count_items"]

CBOR: Final = CborSerializer.content_id

# CBOR: three bits of the first byte tell the kind, five a number, or the width of one that follows.


def _cbor_heads() -> tuple[bytes, dict[int, tuple[int, int, int]], bytes]:
    """Sizes and counted heads as MessagePack has them, and the sizes of tags, which stand before an item."""
    sizes, tags = bytearray(256), bytearray(256)
    counted: dict[int, tuple[int, int, int]] = {}
    for number in range(28):
        width = 0 if number < 24 else 1 << (number - 24)
        for kind in (0x00, 0x20, 0xE0):  # integers; simple values and floats
            sizes[kind + number] = 1 + width
        for kind in (0x40, 0x60):  # bytes and text
            if width:
                counted[kind + number] = width, 0, 0
            else:
                sizes[kind + number] = 1 + number
        counted[0x80 + number] = width, 1, 0  # arrays
        counted[0xA0 + number] = width, 2, 0  # maps
        tags[0xC0 + number] = 1 + width
    return bytes(sizes), counted, bytes(tags)


_CBOR_SIZES, _CBOR_COUNTED, _CBOR_TAGS = _cbor_heads()


def _count_cbor(data: bytes, most: float) -> int:
    return _walk(data, most, _CBOR_SIZES, _CBOR_COUNTED, _CBOR_TAGS, 0x1F)


def _count_msgpack(data: bytes, most: float) -> int:
    return _walk(data, most, SIZES, COUNTED, bytes(256), 0x0F)


def _walk(
    data: bytes,
    most: float,
    sizes: bytes,
    counted: Mapping[int, tuple[int, int, int]],
    tags: bytes,
    short: int,
) -> int:
    items = left = 1
    position = 0
    try:
        while left and items <= most:
            head = data[position]
            size = sizes[head]
            if size:
                position += size
                left -= 1
            elif tags[head]:
                position += tags[head]
                items += 1
            else:
                width, each, before = counted[head]
                start = position + 1 + width
                count = int.from_bytes(data[position + 1 : start]) if width else head & short
                position = start if each else start + before + count
                # What a container announces counts at once, whether it comes or not.
                items += count * each
                left += count * each - 1
    except LookupError:
        pass  # it ends early, or has a head that no decoder takes
    return items


# JSON: an item stands behind each opening bracket, comma and colon, and at the beginning.

_NEITHER_QUOTE_NOR_MARK: Final = bytes(set(range(256)) - set(b'"[{,:'))


def _count_json(data: bytes, most: float) -> int:
    if b"\\" in data:  # quotes that are escaped end no text
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = data.translate(None, _NEITHER_QUOTE_NOR_MARK)
    # Every other piece between quotes is a text, and an item; the rest of too many is not cut up.
    pieces = marks.split(b'"', -1 if most == math.inf else 2 * int(most) + 2)
    if len(pieces) > 2 * most + 2:
        return int(most) + 1
    return 1 + sum(map(len, pieces[::2]))


_COUNTS: Final[Mapping[int, Callable[[bytes, float], int]]] = {
    CBOR: _count_cbor,
    JsonSerializer.content_id: _count_json,
    MsgpackSerializer.content_id: _count_msgpack,
}


def count_items(content_id: int, body: bytes, most: float) -> int:
    """Items in a body, or some number above ``most``; 0 for a serializer that a user has registered."""
    count = _COUNTS.get(content_id)
    return count(body, most) if count is not None else 0


def check_items(content_id: int, body: bytes, most: float) -> None:
    """Raise :class:`SerializationError` for a body of more items than its receiver takes."""
    if len(body) > most and count_items(content_id, body, most) > most:
        raise SerializationError(
            f"more than {most} items in one value (Limits.items, the peer's or this side's own): rows of "
            "numbers can be arrays, which are one item each; other values can be sent in parts"
        )
