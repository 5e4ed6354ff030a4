"""The payloads of push frames.

PUSH
    The content id u8, the offset u64, the serialized value. Content id 0 is a notice instead: a CBOR list,
    ``["gap", newest offset, payload of that update or null, its flags]`` (the head's offset is the one that
    was due, updates go on behind the newest) or ``["end", reason]``.
CONFIRM
    An offset u64: every update up to it was handled. The first one after subscribing starts the flow;
    ``LEAVE`` ends the subscription.
"""

from __future__ import annotations

import struct
from typing import Any

from heartline.errors import RemoteProtocolError, SerializationError
from heartline.wire import CborSerializer, Flag, Frame, Serializer, get_serializer, unwrap, wrap

__all__ = [
    "CONFIRM",
    "LEAVE",
    "NOTICE",
    "PUSH_HEAD",
    "decode_update",
    "encode_notice",
    "encode_update",
    "parse_head",
    "parse_notice",
]

PUSH_HEAD = struct.Struct("!BQ")
CONFIRM = struct.Struct("!Q")
LEAVE = 0xFFFFFFFFFFFFFFFF
NOTICE = 0

_cbor = CborSerializer()


def encode_update(serializer: Serializer, offset: int, value: Any) -> tuple[bytes, int]:
    """The payload and flags of an update; raises :class:`SerializationError`."""
    segments: list[Any] = []
    payload = PUSH_HEAD.pack(serializer.content_id, offset) + serializer.encode(value, segments)
    return (wrap(payload, segments), int(Flag.RAW)) if segments else (payload, 0)


def encode_notice(offset: int, *what: Any) -> bytes:
    """The payload of a notice."""
    return PUSH_HEAD.pack(NOTICE, offset) + _cbor.encode(list(what), [])


def parse_head(frame: Frame) -> tuple[int, int]:
    """The content id and the offset of a PUSH."""
    payload = frame.payload
    try:
        if frame.flags & Flag.RAW:
            # The head stands behind the envelope's own header: u32 length, header, then the inner payload.
            (length,) = struct.unpack_from("!I", payload)
            return PUSH_HEAD.unpack_from(payload, 4 + length)
        return PUSH_HEAD.unpack_from(payload)
    except struct.error as error:
        raise RemoteProtocolError(f"malformed PUSH: {error}") from None


def parse_notice(payload: bytes) -> list[Any]:
    """What a notice says."""
    try:
        what = _cbor.decode(payload[PUSH_HEAD.size :])
    except SerializationError as error:
        raise RemoteProtocolError(f"malformed notice in PUSH: {error}") from None
    match what:
        case ["gap", int(), bytes() | None, int()] | ["end", str()]:
            return list(what)
    raise RemoteProtocolError(f"unknown notice in PUSH: {what!r:.80}")


def decode_update(payload: bytes, flags: int) -> Any:
    """The value of an update; raises :class:`SerializationError`."""
    segments: list[Any] = []
    if flags & Flag.RAW:
        payload, segments = unwrap(payload)
    return get_serializer(payload[0]).decode(payload[PUSH_HEAD.size :], segments)
