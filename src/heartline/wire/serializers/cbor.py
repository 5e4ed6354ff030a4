"""Values as CBOR, the default.

What a peer may ask of the decoder is little: see :mod:`heartline.wire.cbor`.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import ipaddress
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import cbor2

from heartline.errors import SerializationError
from heartline.wire.cbor import loads, loads_with
from heartline.wire.segments import Segment
from heartline.wire.serializers.plain import ROWS, SCALARS, is_segment, plain, segment_at, whole_minutes

__all__ = ["SEGMENT_TAG", "CborSerializer"]

SEGMENT_TAG: Final = 0x68656172
"""The CBOR tag (``hear`` in ASCII) of a placeholder: an index into the raw segments of the envelope."""


def _refuse_value(_encoder: Any, value: Any) -> None:
    raise SerializationError(
        f"a value of type {type(value).__name__} cannot be sent: make it text or a number first"
    )


class _HasSegments(Exception):
    """The value holds arrays: the fast path without a place for them does not do."""


def _encode_other(encoder: cbor2.CBOREncoder, value: Any) -> None:
    if is_segment(value):
        raise _HasSegments
    encoder.encode(plain(value))


def _encode_list(encoder: cbor2.CBOREncoder, value: Any) -> None:
    encoder.encode(list(value))


def _encode_datetime(encoder: cbor2.CBOREncoder, value: datetime.datetime) -> None:
    encoder.encode_datetime(whole_minutes(value))


# cbor2 would encode these in ways that the hardened decoder refuses (a datetime: its own decoder too), and a
# memoryview as a list of integers, a hundred times slower than its bytes.
_ENCODERS: dict[type, Any] = {
    decimal.Decimal: _refuse_value,
    fractions.Fraction: _refuse_value,
    complex: _refuse_value,
    re.Pattern: _refuse_value,
    ipaddress.IPv4Address: _refuse_value,
    ipaddress.IPv6Address: _refuse_value,
    ipaddress.IPv4Interface: _refuse_value,
    ipaddress.IPv6Interface: _refuse_value,
    ipaddress.IPv4Network: _refuse_value,
    ipaddress.IPv6Network: _refuse_value,
    set: _encode_list,
    frozenset: _encode_list,
    datetime.datetime: _encode_datetime,
    cbor2.CBORTag: _refuse_value,
    cbor2.CBORSimpleValue: _refuse_value,
    type(cbor2.undefined): _refuse_value,
    memoryview: _encode_other,
}
_dumps = partial(cbor2.dumps, default=_encode_other, encoders=_ENCODERS)


class CborSerializer:
    """CBOR (RFC 8949), the default."""

    name = "cbor"
    content_id = 1
    is_text = False

    def encode(self, value: Any, segments: list[Segment]) -> bytes:
        """The bytes of ``value``; its arrays are appended to ``segments``."""
        try:
            try:
                kind = type(value)
                if kind in SCALARS or (kind in ROWS and SCALARS.issuperset(map(type, value))):
                    return cbor2.dumps(value)  # twice as fast without a look at the encoders
                return _dumps(value)
            except _HasSegments:
                return self._encode_with(value, segments)
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(f"cannot encode this {type(value).__name__} as CBOR: {error}") from error

    def _encode_with(self, value: Any, segments: list[Segment]) -> bytes:
        def other(encoder: cbor2.CBOREncoder, value: Any) -> None:
            if is_segment(value):
                segments.append(value)
                encoder.encode_semantic(SEGMENT_TAG, len(segments) - 1)
            else:
                encoder.encode(plain(value))

        return cbor2.dumps(value, default=other, encoders=_ENCODERS | {memoryview: other})

    def decode(self, data: bytes, segments: Sequence[Segment] = (), target: Any = Any) -> Any:
        """The value of exactly these bytes; the target plays no part."""
        try:
            if not segments:
                return loads(data)
            return loads_with(data, lambda tag, _immutable: _placed(segments, tag))
        except Exception as error:
            raise SerializationError(f"cannot decode CBOR: {error}") from None


def _placed(segments: Sequence[Segment], tag: cbor2.CBORTag) -> Segment:
    if tag.tag != SEGMENT_TAG:
        raise ValueError(f"tag {tag.tag} is not accepted")
    return segment_at(segments, tag.value)
