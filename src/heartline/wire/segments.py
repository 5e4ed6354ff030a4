"""Raw segments: arrays travel beside the value, not inside it.

In a payload with ``Flag.RAW`` an envelope stands behind the frame's head, in the place of the value::

    u32 header length | CBOR header [inner length, [dtype, [shape…]], …] | inner | pad | segment | pad | …

``inner`` is what would stand there without the flag; in it each array is a placeholder that holds the
segment's index. Segments start at multiples of 8 from the payload's start, so a head whose length is a
multiple of 8 may be put before an envelope later. ``dtype`` is NumPy's string (``"<f4"``); the empty string
stands for plain bytes.

The sender copies each array once, into the envelope, so that it may be changed as soon as the call
returns. The receiver copies nothing: its arrays are writable views of the envelope.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from collections.abc import Sequence
from typing import Any

import cbor2
import msgspec

from heartline.errors import SerializationError
from heartline.wire.cbor import loads

__all__ = [
    "ALIGNMENT",
    "MAX_SEGMENTS",
    "Segment",
    "Segments",
    "describe",
    "header_of",
    "inner_of",
    "unwrap",
    "wrap",
]

ALIGNMENT = 8
"""Bytes; the widest number that NumPy wants aligned."""

MAX_SEGMENTS = 65_536
"""Segments in one envelope: more layers than any model has, and a bounded header."""

MAX_DIMENSIONS = 32
"""Dimensions of one array: what every version of NumPy can hold."""

_LENGTH = struct.Struct("!I")
# No long double: its bits differ between machines.
_DTYPE = re.compile(r"\|[biu]1|[<>]([iu][248]|f[248]|c8|c16)")

_POINTERS = re.compile("[OPz&]")

Segment = Any
"""A NumPy array or a memoryview of bytes."""


class Segments(list[Segment]):
    """The arrays of a value on its way out, whose bytes are counted before any is copied."""

    __slots__ = ("limit", "taken")  # set by the maker: each value has one, and __init__ costs a call

    limit: float
    """Bytes that the message may have."""
    taken: int
    """Bytes counted."""

    def append(self, segment: Segment) -> None:
        """Add an array; raises :class:`SerializationError` when it makes the message too long."""
        self.take(segment.nbytes)
        super().append(segment)

    def take(self, size: int) -> None:
        """Count bytes that travel inside of the value."""
        self.taken += size
        if self.taken > self.limit:
            raise SerializationError(
                f"up to here a message of {self.taken} bytes at least, and it may have {self.limit} bytes "
                "(Limits.message_size)"
            )


def wrap(inner: bytes, segments: Sequence[Segment], head: bytes = b"") -> bytes:
    """``head``, and the envelope that carries ``inner`` and the raw bytes of ``segments``."""
    if len(segments) > MAX_SEGMENTS:
        raise SerializationError(f"{len(segments)} arrays in one value, the limit is {MAX_SEGMENTS}")
    header = cbor2.dumps([len(inner), *map(describe, segments)])
    parts: list[bytes | memoryview] = [head, _LENGTH.pack(len(header)), header, inner]
    size = len(head) + _LENGTH.size + len(header) + len(inner)
    for segment in segments:
        data = _bytes_of(segment)
        padding = -size % ALIGNMENT
        parts.append(bytes(padding))
        parts.append(data)
        size += padding + len(data)
    return b"".join(parts)


def header_of(payload: bytes, start: int = 0) -> bytes:
    """The header of the envelope that begins at ``start``, as it is encoded: as much as there is of it."""
    start += _LENGTH.size
    return payload[start : start + int.from_bytes(payload[start - _LENGTH.size : start])]


def inner_of(payload: bytes, start: int = 0) -> bytes:
    """The inner bytes of an envelope that this side has made."""
    header = header_of(payload, start)
    position = start + _LENGTH.size + len(header)
    return payload[position : position + loads(header)[0]]


def unwrap(payload: bytes, start: int = 0) -> tuple[bytes, list[Segment]]:
    """The inner bytes and the segments of the envelope that begins at ``start``, behind the head.

    Raises :class:`SerializationError`.
    """
    try:
        (header_length,) = _LENGTH.unpack_from(payload, start)
        start += _LENGTH.size
        position = start + header_length
        header = loads(payload[start:position])
        inner_length, *descriptions = msgspec.convert(header, list[Any])
        inner_length = msgspec.convert(inner_length, int)
        shapes = msgspec.convert(descriptions, list[tuple[str, list[int]]])
    except (struct.error, ValueError, cbor2.CBORError) as error:
        raise SerializationError(f"malformed envelope of raw segments: {error}") from None
    if not 0 <= inner_length <= len(payload) - position or len(shapes) > MAX_SEGMENTS:
        raise SerializationError("malformed envelope of raw segments: its header does not fit its length")
    inner = bytes(payload[position : position + inner_length])
    position += inner_length
    # Views need a writable buffer: a bytearray (a message made of fragments) is used as it is, bytes are
    # copied.
    buffer = memoryview(payload if isinstance(payload, bytearray) else bytearray(payload))
    segments: list[Segment] = []
    for dtype, shape in shapes:
        position += -position % ALIGNMENT
        segment, position = _view(buffer, position, dtype, shape)
        segments.append(segment)
    if position != len(payload):
        raise SerializationError(f"{len(payload) - position} bytes behind the last raw segment")
    return inner, segments


def describe(segment: Segment) -> list[Any]:
    """The dtype and shape of an array; raises :class:`SerializationError` for one that cannot travel."""
    if isinstance(segment, memoryview):
        if _POINTERS.search(segment.format):
            raise SerializationError("a memoryview of pointers cannot be sent: they lead nowhere elsewhere")
        return ["", [segment.nbytes]]
    dtype = segment.dtype.str
    if not _DTYPE.fullmatch(dtype):
        raise SerializationError(f"an array of dtype {segment.dtype!s:.80} cannot be sent; use numbers")
    if hasattr(segment, "mask"):
        raise SerializationError("a masked array cannot be sent: its mask would be lost; fill it first")
    if segment.ndim > MAX_DIMENSIONS:
        raise SerializationError(f"an array has at most {MAX_DIMENSIONS} dimensions, not {segment.ndim}")
    return [dtype, list(segment.shape)]


def _bytes_of(segment: Segment) -> memoryview:
    view = memoryview(segment)
    if view.nbytes == 0:
        return memoryview(b"")
    return (view if view.c_contiguous else memoryview(view.tobytes())).cast("B")


def _view(buffer: memoryview, position: int, dtype: str, shape: list[int]) -> tuple[Segment, int]:
    """The segment that starts at ``position``, and where it ends."""
    item = 1
    if dtype:
        if not _DTYPE.fullmatch(dtype):
            raise SerializationError(f"raw segment with dtype {dtype!r:.40}; only plain numbers are accepted")
        item = int(dtype[2:])
    if len(shape) > MAX_DIMENSIONS or any(n < 0 for n in shape):
        raise SerializationError(f"raw segment with shape {shape!s:.200}")
    stop = position + math.prod(shape) * item
    if stop > len(buffer):
        raise SerializationError(f"a raw segment ends at byte {stop} of a payload of {len(buffer)}")
    if not dtype:
        return buffer[position:stop], stop
    numpy = sys.modules.get("numpy") or _import_numpy()
    try:
        array = numpy.frombuffer(buffer[position:stop], dtype=dtype).reshape(shape)
    except (TypeError, ValueError) as error:
        raise SerializationError(f"raw segment with dtype {dtype!r} and shape {shape}: {error}") from None
    return array, stop


def _import_numpy() -> Any:
    try:
        import numpy
    except ImportError:
        raise SerializationError("the peer sent an array; install heartline[federated] for NumPy") from None
    return numpy
