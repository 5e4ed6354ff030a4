"""The payloads of push frames.

PUSH
    The offset u64, the content id u8, the serialized value. Content id 0 is a notice instead, a CBOR list:

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

from heartline.errors import RemoteProtocolError, SerializationError
from heartline.wire import CborSerializer, decode_body, decode_value
from heartline.wire.limits import LEAST_ITEMS

__all__ = [
    "LEAVE",
    "NOTICE",
    "OFFSET",
    "PUSH_HEAD",
    "decode_update",
    "encode_notice",
    "parse_head",
    "parse_notice",
    "stamp",
]

OFFSET = struct.Struct("!Q")
PUSH_HEAD = struct.Struct("!QB")
LEAVE = 0xFFFFFFFFFFFFFFFF
NOTICE = 0

_cbor = CborSerializer()


def stamp(offset: int, value: bytes) -> bytes:
    """The payload of an update: its offset before its value, which begins with a content id."""
    return OFFSET.pack(offset) + value


def encode_notice(offset: int, *what: Any) -> bytes:
    """The payload of a notice."""
    return PUSH_HEAD.pack(offset, NOTICE) + _cbor.encode(list(what), [])


def parse_head(payload: bytes) -> tuple[int, int]:
    """The offset and the content id of a PUSH."""
    try:
        return PUSH_HEAD.unpack_from(payload)
    except struct.error as error:
        raise RemoteProtocolError(f"malformed PUSH: {error}") from None


def parse_notice(payload: bytes) -> list[Any]:
    """What a notice says."""
    try:
        what = decode_body(_cbor.content_id, payload, 0, start=PUSH_HEAD.size, most=LEAST_ITEMS)
    except SerializationError as error:
        raise RemoteProtocolError(f"malformed notice in PUSH: {error}") from None
    match what:
        case ["gap", int(position), bool()] if 0 <= position < LEAVE:
            return list(what)
        case ["snapshot"] | ["slow" | "end", str()]:
            return list(what)
    raise RemoteProtocolError(f"unknown notice in PUSH: {what!r:.80}")


def decode_update(payload: bytes, flags: int, target: Any, most: int) -> Any:
    """The value of a PUSH, of ``most`` items; raises :class:`SerializationError`."""
    return decode_value(payload, flags, target, OFFSET.size, most)
