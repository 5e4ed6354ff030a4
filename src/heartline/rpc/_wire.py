"""The payloads of call frames.

CALL
    A head (content id u8, kind u8, length of the target u16, timeout in milliseconds u32 with 0 for none),
    the target (``Service.method`` in UTF-8), and the serialized arguments: a list of the positional ones,
    or with kind 1 a pair of that list and a map of the named ones.
RESULT
    The content id u8 and the serialized result.
FAULT
    A CBOR map, always: what went wrong, for the caller's error.
CANCEL
    Empty: the caller does not wait any more.

The timeout is relative, so the peers' clocks need not agree; transit time makes the callee's deadline a
little later than the caller's, never earlier.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import msgspec

from heartline.errors import (
    CallError,
    CallTimeout,
    ConfigurationError,
    Forbidden,
    InvalidArguments,
    Outcome,
    Overloaded,
    RemoteError,
    RemoteProtocolError,
    SerializationError,
    UnknownMethod,
)
from heartline.wire import CborSerializer, Flag, Frame, Serializer, get_serializer, unwrap, wrap

__all__ = [
    "CALL_HEAD",
    "Fault",
    "decode_call",
    "decode_value",
    "encode_call",
    "encode_fault",
    "encode_value",
    "error_of",
]

CALL_HEAD = struct.Struct("!BBHI")
_HEAD_SIZE = CALL_HEAD.size
_RAW = int(Flag.RAW)

LONGEST_TIMEOUT = 0xFFFFFFFF / 1000
"""Seconds, 50 days; a deadline beyond does not travel, for it must not come early."""

MESSAGE_SIZE = 1024
NAME_SIZE = 256
"""Bytes of an error's message and of its type's name that travel: they are for a person, and a FAULT always fits
in the smallest frame that a peer may ask for."""

_cbor = CborSerializer()


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a call has no result; ``kind`` picks the caller's error class."""

    kind: str
    message: str
    type_name: str = ""
    timeout: float = 0.0
    """Of kind ``timeout``: the seconds that the callee gave the call."""


_KINDS: dict[str, type[CallError]] = {
    "unknown": UnknownMethod,
    "arguments": InvalidArguments,
    "overloaded": Overloaded,
    "forbidden": Forbidden,
}
"""The kinds that say nothing was executed; ``raised`` and ``timeout`` are the others."""


def encode_call(
    serializer: Serializer, target: bytes, args: tuple[Any, ...], kwargs: dict[str, Any], timeout: float
) -> tuple[bytes, int]:
    """The payload and the flags of a CALL; raises :class:`SerializationError`."""
    segments: list[Any] = []
    body = serializer.encode([args, kwargs] if kwargs else args, segments)
    milliseconds = max(1, math.ceil(timeout * 1000)) if timeout < LONGEST_TIMEOUT else 0
    head = CALL_HEAD.pack(serializer.content_id, 1 if kwargs else 0, len(target), milliseconds)
    payload = head + target + body
    return (wrap(payload, segments), _RAW) if segments else (payload, 0)


def decode_call(frame: Frame) -> tuple[bytes, float, bool, int, bytes, list[Any]]:
    """Target, timeout (seconds), whether named arguments follow, content id, body and segments."""
    segments: list[Any] = []
    payload = frame.payload
    try:
        if frame.flags & _RAW:
            payload, segments = unwrap(payload)
        content_id, kind, length, milliseconds = CALL_HEAD.unpack_from(payload)
    except (struct.error, SerializationError) as error:
        raise RemoteProtocolError(f"malformed CALL: {error}") from None
    end = _HEAD_SIZE + length
    if end > len(payload) or kind > 1:
        raise RemoteProtocolError("malformed CALL: its head does not fit its payload")
    timeout = milliseconds / 1000 if milliseconds else math.inf
    return bytes(payload[_HEAD_SIZE:end]), timeout, kind == 1, content_id, payload[end:], segments


def encode_value(serializer: Serializer, value: Any) -> tuple[bytes, int]:
    """The payload and the flags of a RESULT; raises :class:`SerializationError`."""
    segments: list[Any] = []
    payload = serializer.content_id.to_bytes() + serializer.encode(value, segments)
    return (wrap(payload, segments), _RAW) if segments else (payload, 0)


def decode_value(frame: Frame) -> Any:
    """The value of a RESULT; raises :class:`SerializationError`."""
    segments: list[Any] = []
    payload = frame.payload
    if frame.flags & _RAW:
        payload, segments = unwrap(payload)
    if not payload:
        raise SerializationError("an empty RESULT")
    try:
        serializer = get_serializer(payload[0])
    except ConfigurationError as error:
        raise SerializationError(f"the result cannot be decoded: {error}") from None
    return serializer.decode(payload[1:], segments)


def encode_fault(fault: Fault) -> bytes:
    """The payload of a FAULT, its texts shortened and made proper Unicode."""
    fields = {
        "kind": fault.kind,
        "message": _shorten(fault.message, MESSAGE_SIZE),
        "type_name": _shorten(fault.type_name, NAME_SIZE),
        "timeout": fault.timeout,
    }
    return _cbor.encode(fields, [])


def _shorten(text: str, size: int) -> str:
    return text[:size].encode(errors="replace")[:size].decode(errors="ignore")


def error_of(frame: Frame, target: str, timeout: float) -> CallError:
    """The caller's error for a FAULT; raises :class:`RemoteProtocolError` for a malformed one."""
    try:
        fault = msgspec.convert(_cbor.decode(frame.payload), Fault)
    except (SerializationError, msgspec.ValidationError) as error:
        raise RemoteProtocolError(f"malformed FAULT: {error}") from None
    if fault.kind == "timeout":
        message = f"{target}: {fault.message}"
        return CallTimeout(message, timeout=fault.timeout or timeout, outcome=Outcome.MAYBE_EXECUTED)
    error_class = _KINDS.get(fault.kind)
    if error_class is not None:
        return error_class(f"{target}: {fault.message}", outcome=Outcome.COMPLETED)
    return RemoteError(fault.message, type_name=fault.type_name or fault.kind)
