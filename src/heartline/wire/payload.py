"""Values as payloads of frames, and back.

A payload with a value is a head, which depends on the frame's type, and a body, which a serializer wrote.
With ``Flag.RAW`` an envelope holds the body and the value's arrays (see :mod:`heartline.wire.segments`). The
content id, which names the serializer, stands in the byte before the body (RESULT and PUSH), in the head
(CALL), or in the frame's id (DATA).

``most`` bounds the items of a value that is decoded, see ``items.py``. The list of an envelope's arrays is
bounded by as many on its own.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from heartline.errors import LocalProtocolError, SerializationError
from heartline.wire.frames import Flag
from heartline.wire.items import CBOR, check_items, count_items
from heartline.wire.segments import Segments, header_of, inner_of, unwrap, wrap
from heartline.wire.serializers.registry import Serializer, registered, unknown

__all__ = ["ItemCount", "MessageLimits", "decode_body", "decode_value", "encode_body", "encode_value"]

_RAW = int(Flag.RAW)


class MessageLimits(Protocol):
    """What one message may have: a :class:`Limits`, or what a peer has announced of its own."""

    @property
    def message_size(self) -> int:
        """Bytes."""

    @property
    def items(self) -> int:
        """Values, keys of maps, and containers."""


def encode_value(
    serializer: Serializer, value: Any, limits: MessageLimits | None = None
) -> tuple[bytes, int]:
    """A value with its content id, and the flags of the frame; raises as :func:`encode_body`."""
    return encode_body(serializer, value, serializer.content_id.to_bytes(), limits)


def decode_value(
    payload: bytes, flags: int, target: Any = Any, start: int = 0, most: float = math.inf
) -> Any:
    """The value whose content id is at ``start``; raises :class:`SerializationError`."""
    length = len(payload)
    if start >= length:
        raise SerializationError("the payload ends where its value should begin")
    serializer = registered.get(payload[start])
    # The usual case of decode_body, written out.
    if serializer is not None and not flags & _RAW and length <= most:
        return serializer.decode(payload[start + 1 :], (), target)
    return decode_body(payload[start], payload, flags, target, start + 1, most)


def encode_body(
    serializer: Serializer, value: Any, head: bytes = b"", limits: MessageLimits | None = None
) -> tuple[bytes, int]:
    """A payload of this head and a value, and the flags of the frame.

    A value that cannot be sent, or has more items than ``limits`` allow, raises :class:`SerializationError`.
    One whose arrays and bytes alone are longer than they allow raises :class:`LocalProtocolError`, before any
    is copied.
    """
    segments = Segments()
    segments.limit, segments.taken = math.inf if limits is None else limits.message_size, 0
    try:
        body = serializer.encode(value, segments)
    except SerializationError as error:
        if segments.taken > segments.limit:
            raise LocalProtocolError(str(error)) from None
        raise
    if segments or (limits is not None and len(body) > limits.items):
        return _joined(serializer.content_id, head, body, segments, limits)
    return head + body, 0


def _joined(
    content_id: int, head: bytes, body: bytes, segments: Segments, limits: MessageLimits | None
) -> tuple[bytes, int]:
    most = math.inf if limits is None else limits.items
    check_items(content_id, body, most)
    if not segments:
        return head + body, 0
    payload = wrap(body, segments, head)
    check_items(CBOR, header_of(payload, len(head)), most)
    return payload, _RAW


def decode_body(
    content_id: int,
    payload: bytes,
    flags: int,
    target: Any = Any,
    start: int = 0,
    most: float = math.inf,
) -> Any:
    """The value whose body begins at ``start``; raises :class:`SerializationError`.

    ``target`` is the annotation that it will be converted to; see :meth:`Serializer.decode`.
    """
    serializer = registered.get(content_id)
    if serializer is None:
        raise SerializationError(f"the value cannot be decoded: {unknown(content_id)}")
    if not flags & _RAW:
        body = payload[start:]
        if len(body) > most:  # looked at here, for all arguments of calls come by
            check_items(content_id, body, most)
        return serializer.decode(body, (), target)
    check_items(CBOR, header_of(payload, start), most)
    body, segments = unwrap(payload, start)
    check_items(content_id, body, most)
    return serializer.decode(body, segments, target)


class ItemCount:
    """The items of a value that was encoded for many peers, counted when one takes fewer than its bytes."""

    __slots__ = ("_content_id", "_count", "_flags", "_payload", "_start")

    def __init__(self, content_id: int, payload: bytes, flags: int, start: int = 0) -> None:
        self._content_id = content_id
        self._payload = payload
        self._flags = flags
        self._start = start
        self._count = -1

    def exceeds(self, most: int) -> bool:
        """Whether a peer that takes so many items would refuse the value."""
        if len(self._payload) <= most:
            return False
        if self._count < 0:
            self._count = self._counted()
        return self._count > most

    def _counted(self) -> int:
        if not self._flags & _RAW:
            return count_items(self._content_id, self._payload[self._start :], math.inf)
        header, inner = header_of(self._payload, self._start), inner_of(self._payload, self._start)
        return max(count_items(CBOR, header, math.inf), count_items(self._content_id, inner, math.inf))
