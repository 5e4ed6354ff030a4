"""Values as CBOR, the default.

What a peer may ask of the decoder is little: see :mod:`heartline.wire.cbor`.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, Final

import cbor2
import msgspec

from heartline.errors import SerializationError
from heartline.wire.cbor import loads, loads_with
from heartline.wire.segments import Segment
from heartline.wire.serializers.plain import HIGHEST, QUICK, Form, lower_narrow, refusal, segment_at

__all__ = ["SEGMENT_TAG", "CborSerializer"]

SEGMENT_TAG: Final = 0x68656172
"""The CBOR tag (``hear`` in ASCII) of a placeholder: an index into the raw segments of the envelope."""

_LOWEST: Final = -(2**64)


def _leaf(value: Any) -> Any:
    return msgspec.to_builtins(value) if isinstance(value, datetime.time) else value


_FORM = Form(
    keys=frozenset({str, bytes}),
    place=lambda index: cbor2.CBORTag(SEGMENT_TAG, index),
    leaf=_leaf,
    lowest=_LOWEST,
)


class CborSerializer:
    """CBOR (RFC 8949), the default. Times of a day travel as text, arrays as raw segments."""

    name = "cbor"
    content_id = 1
    is_text = False

    def encode(self, value: Any, segments: list[Segment]) -> bytes:
        """The bytes of ``value``; its arrays are appended to ``segments``."""
        try:
            kind = type(value)
            if kind in QUICK and (kind is not int or _LOWEST <= value <= HIGHEST):
                return cbor2.dumps(value)
            return cbor2.dumps(lower_narrow(_FORM, value, segments))
        except Exception as error:
            raise refusal(_FORM, value, "CBOR", error) from error

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
