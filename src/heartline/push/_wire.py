"""The payloads of push frames.

PUSH
    The content id u8, the offset u64, the serialized value. Content id 0 is a notice instead, a CBOR list:

    - ``["gap", position, newest]``: the updates from the head's offset to ``position`` are lost; if
      ``newest`` is true, the next update is the newest one of the topic.
    - ``["snapshot"]``: the next update has the head's offset, and its value is the state after that one.
    - ``["slow", reason]`` or ``["end", reason]``: no update will come any more, because the subscriber was
      too slow, or for another reason.
CONFIRM
    An offset u64: every update up to it was handled. The first one, of the position that subscribing gave,
    starts the flow. ``LEAVE`` in its place ends the subscription; the frame's id is then not its number but
    its key, because a subscriber that gives up early does not know the number yet.
"""

from __future__ import annotations

import struct
from typing import Any

from heartline.errors import ConfigurationError, RemoteProtocolError, SerializationError
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
    "with_offset",
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


def with_offset(payload: bytes, flags: int, offset: int) -> bytes:
    """The payload of an update with another offset in its head."""
    at = _head_at(payload, flags) + 1
    packed = CONFIRM.pack(offset)
    if payload.startswith(packed, at):
        return payload
    return payload[:at] + packed + payload[at + CONFIRM.size :]


def _head_at(payload: bytes, flags: int) -> int:
    """Where the head stands: with arrays behind the envelope's own header, which has its length before it."""
    if flags & Flag.RAW:
        (length,) = struct.unpack_from("!I", payload)
        return int(4 + length)
    return 0


def parse_head(frame: Frame) -> tuple[int, int]:
    """The content id and the offset of a PUSH."""
    try:
        return PUSH_HEAD.unpack_from(frame.payload, _head_at(frame.payload, frame.flags))
    except struct.error as error:
        raise RemoteProtocolError(f"malformed PUSH: {error}") from None


def parse_notice(payload: bytes) -> list[Any]:
    """What a notice says."""
    try:
        what = _cbor.decode(payload[PUSH_HEAD.size :])
    except SerializationError as error:
        raise RemoteProtocolError(f"malformed notice in PUSH: {error}") from None
    match what:
        case ["gap", int(position), bool()] if 0 <= position < LEAVE:
            return list(what)
        case ["snapshot"] | ["slow" | "end", str()]:
            return list(what)
    raise RemoteProtocolError(f"unknown notice in PUSH: {what!r:.80}")


def decode_update(frame: Frame) -> Any:
    """The value of an update; raises :class:`SerializationError`."""
    segments: list[Any] = []
    payload = frame.payload
    if frame.flags & Flag.RAW:
        payload, segments = unwrap(payload)
    try:
        serializer = get_serializer(payload[0])
    except (IndexError, ConfigurationError) as error:
        raise SerializationError(f"an update of unknown content: {error}") from None
    return serializer.decode(payload[PUSH_HEAD.size :], segments)
