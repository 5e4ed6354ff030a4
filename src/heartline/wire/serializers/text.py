"""Values as text, for places that hold no bytes: a URL, a header, a field of JSON."""

from __future__ import annotations

import base64
from typing import Any, TypeVar

from heartline.errors import SerializationError
from heartline.wire.segments import Segment
from heartline.wire.serializers.conversion import convert
from heartline.wire.serializers.registry import Serializer

__all__ = ["decode_text", "encode_text"]

T = TypeVar("T")


def encode_text(serializer: Serializer, value: Any) -> str:
    """A value as text: that of a serializer that writes text as it is, anything else in base64url."""
    segments: list[Segment] = []
    data = serializer.encode(value, segments)
    if segments:
        raise SerializationError("arrays cannot be written as text")
    return data.decode() if serializer.is_text else base64.urlsafe_b64encode(data).decode()


def decode_text(serializer: Serializer, text: str, target: type[T] | Any = Any) -> T | Any:
    """The inverse of :func:`encode_text`, converted to ``target`` when one is given."""
    try:
        data = text.encode() if serializer.is_text else base64.b64decode(text, b"-_", validate=True)
    except ValueError as error:
        raise SerializationError(f"not a serialized text: {error}") from None
    return convert(serializer.decode(data, (), target), target)
