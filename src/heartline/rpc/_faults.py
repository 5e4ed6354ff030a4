"""Errors on their way from the callee to the caller: an exception, then a FAULT, then an exception again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from heartline.errors import (
    CallError,
    CallTimeout,
    Forbidden,
    InvalidArguments,
    Outcome,
    Overloaded,
    RemoteError,
    SerializationError,
    UnknownMethod,
)
from heartline.wire import CborSerializer, Frame
from heartline.wire.text import printable

__all__ = ["Fault", "NotBegun", "encode_fault", "error_of", "fault_of"]

logger = logging.getLogger("heartline.rpc")

MESSAGE_SIZE = 1024
NAME_SIZE = 256
"""Bytes of an error's message and of its type's name that are sent: enough for a person who reads them, and
few enough for a FAULT to fit into the smallest frame that a peer may ask for."""

_cbor = CborSerializer()


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a call has no result; ``kind`` picks the caller's error class."""

    kind: str
    message: str
    type_name: str = ""
    timeout: float = 0.0
    """For the kind ``timeout``: the seconds that the callee gave the call."""


class NotBegun(Overloaded):
    """Middleware has refused a call for the moment, before the method ran."""


_KINDS: dict[str, type[CallError]] = {
    "unknown": UnknownMethod,
    "arguments": InvalidArguments,
    "overloaded": Overloaded,
    "forbidden": Forbidden,
}
"""The kinds with an error class of their own; ``timeout`` has one too, and any other is a RemoteError."""


def fault_of(function: Callable[..., Any], error: BaseException) -> Fault:
    """Return what the caller is told about an error; the traceback stays in this side's log."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # the caller need not know that the method uses a nursery
    if isinstance(error, PermissionError) and error.errno is None:
        return Fault("forbidden", _text(error) or "not allowed")
    if isinstance(error, InvalidArguments):
        return Fault("arguments", _text(error))  # the method refuses a value that fits its annotation
    if isinstance(error, NotBegun):
        return Fault("overloaded", _text(error) or "not now")
    name = type(error).__name__
    logger.warning("%s raised %s", function.__qualname__, name, exc_info=error)
    return Fault("raised", _text(error), type_name=name)


def _text(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(f"{type(inner).__name__}: {_text(inner)}" for inner in error.exceptions)
    try:
        return str(error)
    except Exception:
        return "(the error's own text could not be made)"


def encode_fault(fault: Fault) -> bytes:
    """The payload of a FAULT; its texts are shortened, and made valid Unicode."""
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
    """The caller's error for a FAULT, even a malformed one."""
    try:
        fault = msgspec.convert(_cbor.decode(frame.payload), Fault)
    except (SerializationError, msgspec.ValidationError) as error:
        return RemoteError(
            f"{target} was answered with a malformed FAULT: {error}", type_name="RemoteProtocolError"
        )
    message = printable(fault.message)
    if fault.kind == "timeout":
        return CallTimeout(
            f"{target}: {message}", timeout=fault.timeout or timeout, outcome=Outcome.MAYBE_EXECUTED
        )
    error_class = _KINDS.get(fault.kind)
    if error_class is not None:
        return error_class(f"{target}: {message}", outcome=Outcome.COMPLETED)
    type_name = printable(fault.type_name or fault.kind, NAME_SIZE)
    text = f": {message}" if message else ""
    return RemoteError(f"{target} raised {type_name}{text}", type_name=type_name)
