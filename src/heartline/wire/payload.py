"""Values as payloads of frames, and back.

A payload with a value is a head, which depends on the frame's type, and a body, which a serializer wrote.
With ``Flag.RAW`` an envelope holds the body and the value's arrays (see :mod:`heartline.wire.segments`). The
content id, which names the serializer, stands in the byte before the body (RESULT and PUSH), in the head
(CALL), or in the frame's id (DATA).
"""

from __future__ import annotations

import math
from typing import Any

from heartline.errors import LocalProtocolError, SerializationError
from heartline.wire.frames import Flag
from heartline.wire.segments import Segments, unwrap, wrap
from heartline.wire.serializers.registry import Serializer, registered, unknown

__all__ = ["decode_body", "decode_value", "encode_body", "encode_value"]

_RAW = int(Flag.RAW)


def encode_value(serializer: Serializer, value: Any, size: float = math.inf) -> tuple[bytes, int]:
    """A value with its content id, and the flags of the frame; raises as :func:`encode_body`."""
    return encode_body(serializer, value, serializer.content_id.to_bytes(), size)


def decode_value(payload: bytes, flags: int, target: Any = Any, start: int = 0) -> Any:
    """The value whose content id is at ``start``; raises :class:`SerializationError`."""
    if start >= len(payload):
        raise SerializationError("the payload ends where its value should begin")
    serializer = registered.get(payload[start])
    if serializer is not None and not flags & _RAW:  # the usual case of decode_body, written out
        return serializer.decode(payload[start + 1 :], (), target)
    return decode_body(payload[start], payload, flags, target, start + 1)


def encode_body(
    serializer: Serializer, value: Any, head: bytes = b"", size: float = math.inf
) -> tuple[bytes, int]:
    """A payload of this head and a value, and the flags of the frame.

    ``size`` is how many bytes the message may have: a value whose arrays and bytes alone are more raises
    :class:`LocalProtocolError` before any is copied. A value that cannot be sent raises
    :class:`SerializationError`.
    """
    segments = Segments()
    segments.limit, segments.taken = size, 0
    try:
        body = serializer.encode(value, segments)
    except SerializationError as error:
        if segments.taken > size:
            raise LocalProtocolError(str(error)) from None
        raise
    return (wrap(body, segments, head), _RAW) if segments else (head + body, 0)


def decode_body(content_id: int, payload: bytes, flags: int, target: Any = Any, start: int = 0) -> Any:
    """The value whose body begins at ``start``; raises :class:`SerializationError`.

    ``target`` is the annotation that it will be converted to; see :meth:`Serializer.decode`.
    """
    serializer = registered.get(content_id)
    if serializer is None:
        raise SerializationError(f"the value cannot be decoded: {unknown(content_id)}")
    if flags & _RAW:
        body, segments = unwrap(payload, start)
        return serializer.decode(body, segments, target)
    return serializer.decode(payload[start:], (), target)
