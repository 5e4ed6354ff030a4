"""Values as MessagePack: about as small as CBOR, and read by more programs.

msgspec encodes and decodes; what a peer must not be able to ask for is looked for before it decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from heartline.errors import SerializationError
from heartline.wire.cbor import MAX_DEPTH
from heartline.wire.segments import Segment
from heartline.wire.serializers.plain import QUICK, Form, lower, refusal, segment_at

__all__ = ["COUNTED", "SEGMENT_CODE", "SIZES", "MsgpackSerializer"]

SEGMENT_CODE: Final = 0x68
"""The extension type (``h`` in ASCII) of a placeholder: an index u32 into the raw segments."""

_INDEX_SIZE: Final = 4

# Dates and UUIDs msgspec writes as text of its own accord, by the rules by which ``convert`` reads it.
_FORM = Form(
    keys=frozenset({str, bytes}),
    place=lambda index: msgspec.msgpack.Ext(SEGMENT_CODE, index.to_bytes(_INDEX_SIZE)),
    leaf=lambda value: value,
)


class MsgpackSerializer:
    """MessagePack. Dates and UUIDs travel as text, instants as timestamps in UTC, arrays as raw segments."""

    name = "msgpack"
    content_id = 3
    is_text = False

    def encode(self, value: Any, segments: list[Segment]) -> bytes:
        """The bytes of ``value``; its arrays are appended to ``segments``."""
        try:
            return msgspec.msgpack.encode(value if type(value) in QUICK else lower(_FORM, value, segments))
        except Exception as error:
            raise refusal(_FORM, value, "MessagePack", error) from error

    def decode(self, data: bytes, segments: Sequence[Segment] = (), target: Any = Any) -> Any:
        """The value of exactly these bytes; the target plays no part."""
        try:
            _check_structure(data)
            return msgspec.msgpack.decode(data, ext_hook=lambda code, index: _placed(segments, code, index))
        except Exception as error:
            raise SerializationError(f"cannot decode MessagePack: {error}") from None


def _placed(segments: Sequence[Segment], code: int, index: memoryview) -> Segment:
    if code != SEGMENT_CODE or len(index) != _INDEX_SIZE:
        raise ValueError(f"extension {code} of {len(index)} bytes is not accepted")
    return segment_at(segments, int.from_bytes(index))


# Decoding


def _sizes() -> bytes:
    """By first byte: the bytes of an item whose first byte tells its length, 0 for one that has a count."""
    sizes = bytearray(256)
    for head in (*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)):  # numbers, nil, false, true
        sizes[head] = 1
    for length in range(32):  # short text
        sizes[0xA0 + length] = 1 + length
    for head, size in {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}.items():  # floats, unsigned
        sizes[head] = 1 + size
    for head, size in {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}.items():  # signed
        sizes[head] = 1 + size
    for power in range(5):  # extensions of 1, 2, 4, 8 and 16 bytes, behind their type
        sizes[0xD4 + power] = 2 + 2**power
    return bytes(sizes)


SIZES: Final = _sizes()

COUNTED: Final[dict[int, tuple[int, int, int]]] = (
    dict.fromkeys(range(0x80, 0x90), (0, 2, 0))  # short maps
    | dict.fromkeys(range(0x90, 0xA0), (0, 1, 0))  # short arrays
    | {0xC4 + power: (2**power, 0, 0) for power in range(3)}  # bytes
    | {0xC7 + power: (2**power, 0, 1) for power in range(3)}  # extensions
    | {0xD9 + power: (2**power, 0, 0) for power in range(3)}  # text
    | {0xDC: (2, 1, 0), 0xDD: (4, 1, 0), 0xDE: (2, 2, 0), 0xDF: (4, 2, 0)}  # arrays, maps
)
"""By first byte: the bytes of the count (none: it is in the first byte's lower half), the items that each
counted one stands for (0 for bytes of content), and the bytes in front of the content."""

_KEYS: Final = frozenset([*range(0xA0, 0xC0), 0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB])
"""The first bytes of text and bytes."""


def _check_structure(data: bytes) -> None:
    """Raise :class:`ValueError` unless ``data`` is one item, of bounded nesting, with harmless map keys.

    msgspec gives no choice in either: it nests as deep as the stack allows, and takes anything for a key,
    arrays too, whose hashes a peer can make collide. It does linear work with what this lets pass.
    """
    position = 0
    left, in_map = 1, False
    outer: list[tuple[int, bool]] = []
    try:
        while True:
            while not left:
                if not outer:
                    if position != len(data):
                        raise ValueError("its length does not fit the value")
                    return
                left, in_map = outer.pop()
            left -= 1
            head = data[position]
            if in_map and left & 1 and head not in _KEYS:
                raise ValueError("a map has a key that is neither text nor bytes")
            size = SIZES[head]
            if size:
                position += size
                continue
            width, items, before = COUNTED[head]
            start = position + 1 + width
            count = int.from_bytes(data[position + 1 : start]) if width else head & 0x0F
            position = start
            if not items:
                position += before + count
            elif len(outer) == MAX_DEPTH:
                raise ValueError(f"more than {MAX_DEPTH} levels of nesting")
            else:
                outer.append((left, in_map))
                left, in_map = count * items, items == 2
    except LookupError:
        raise ValueError(f"it is broken at byte {position} of {len(data)}") from None
