"""Values of a user that others must be able to read later: configs, and the state of a strategy."""

from __future__ import annotations

from typing import Any

from heartline.errors import SerializationError
from heartline.wire import CborSerializer, Segment, unwrap, wrap

__all__ = ["pack", "unpack"]

_cbor = CborSerializer()


def pack(name: str, value: Any) -> bytes:
    """A copy of a value, arrays included, in the wire's envelope.

    Raises :class:`SerializationError`, with the value's ``name``, unless the value can be read again as well.
    """
    segments: list[Segment] = []
    try:
        body = _cbor.encode(value, segments)
        packed = wrap(body, segments)
        _cbor.decode(body, segments)  # the arrays are only put in their places: nothing of them is copied
    except SerializationError as error:
        raise SerializationError(f"{name} holds what cannot be sent or kept: {error}") from error
    return packed


def unpack(packed: bytes) -> Any:
    """The value; its arrays are its own, and tuples have become lists."""
    return _cbor.decode(*unwrap(packed))
