"""The payloads of call frames.

CALL
    A head (content id u8, kind u8, length of the target u16, timeout in milliseconds u32 with 0 for none),
    the target (``Service.method`` in UTF-8), and the serialized arguments: a list of the positional ones,
    or with kind 1 a pair of that list and a map of the named ones.
RESULT
    The content id u8 and the serialized result.
FAULT
    A CBOR map, always: what went wrong, for the caller's error (see ``_faults.py``).
CANCEL
    Empty: the caller no longer waits.

The timeout is relative, so the peers' clocks need not agree; transit time makes the callee's deadline a
little later than the caller's, never earlier.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from heartline.errors import (
    InvalidArguments,
    LocalProtocolError,
    Outcome,
    RemoteProtocolError,
    SerializationError,
)
from heartline.rpc._faults import named
from heartline.wire import Serializer, encode_body
from heartline.wire.payload import MessageLimits

__all__ = ["CALL_HEAD", "decode_call", "encode_call"]

CALL_HEAD = struct.Struct("!BBHI")
_HEAD_SIZE = CALL_HEAD.size

LONGEST_TIMEOUT = 0xFFFFFFFF / 1000
"""Seconds, 50 days. A later deadline is not sent: cut to what fits it would come too early."""


def encode_call(
    serializer: Serializer,
    name: str,
    target: bytes,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    timeout: float,
    limits: MessageLimits | None = None,
) -> tuple[bytes, int]:
    """The payload, within the limits of the peer, and the flags of a CALL.

    Raises :class:`InvalidArguments`, which begins with ``name``.
    """
    milliseconds = max(1, math.ceil(timeout * 1000)) if timeout < LONGEST_TIMEOUT else 0
    head = CALL_HEAD.pack(serializer.content_id, 1 if kwargs else 0, len(target), milliseconds)
    try:
        return encode_body(serializer, [args, kwargs] if kwargs else args, head + target, limits)
    except (SerializationError, LocalProtocolError) as error:
        why = f"{name} was not called: {error}"
        raise named(InvalidArguments(why, outcome=Outcome.NOT_SENT), name) from error


def decode_call(payload: bytes) -> tuple[bytes, float, bool, int, int]:
    """Target, timeout (seconds), whether named arguments follow, content id, and where the body begins."""
    try:
        content_id, kind, length, milliseconds = CALL_HEAD.unpack_from(payload)
    except struct.error as error:
        raise RemoteProtocolError(f"malformed CALL: {error}") from None
    end = _HEAD_SIZE + length
    if end > len(payload) or kind > 1:
        raise RemoteProtocolError("malformed CALL: its head does not fit its payload")
    timeout = milliseconds / 1000 if milliseconds else math.inf
    return bytes(payload[_HEAD_SIZE:end]), timeout, kind == 1, content_id, end
