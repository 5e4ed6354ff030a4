"""Errors on their way from the callee to the caller: an exception, then a FAULT, then an exception again."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from heartline.errors import (
    ApplicationError,
    CallError,
    CallTimeout,
    ConfigurationError,
    Forbidden,
    InvalidArguments,
    LocalProtocolError,
    Outcome,
    Overloaded,
    RemoteError,
    SerializationError,
    UnknownMethod,
)
from heartline.rpc._log import MethodLog
from heartline.wire import CborSerializer, Frame, Serializer, decode_body, decode_value, encode_value
from heartline.wire.limits import LEAST_ITEMS
from heartline.wire.text import printable

__all__ = ["Fault", "NotBegun", "encode_fault", "error_of", "fault_of", "named", "without_data"]

E = TypeVar("E", bound=CallError)

MESSAGE_SIZE = 1024
NAME_SIZE = 256
"""Bytes of an error's message and of its type's name that are sent: enough for a person who reads them, and
few enough for a FAULT to fit into the smallest frame that a peer may ask for."""

DATA_SIZE = 4096
"""Bytes of the data of an :class:`ApplicationError`. An answer of this size is sent without waiting until the
caller has read others, as all faults are."""

_cbor = CborSerializer()


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a call has no result; ``kind`` picks the caller's error class."""

    kind: str
    message: str
    type_name: str = ""
    timeout: float = 0.0
    """For the kind ``timeout``: the seconds that the callee gave the call."""
    code: str = ""
    data: bytes = b""
    """For the kind ``application``; the data as a payload, which begins with the serializer's content id."""


class NotBegun(Overloaded):
    """Middleware has refused a call for the moment, before the method ran."""


_KINDS: dict[str, type[CallError]] = {
    "unknown": UnknownMethod,
    "arguments": InvalidArguments,
    "overloaded": Overloaded,
    "forbidden": Forbidden,
}
"""The kinds with an error class and nothing more; ``timeout`` has one too, as has an application's own error,
and any other is a RemoteError."""


def named(error: E, method: str) -> E:
    """Note in the error of a call which method was called."""
    error.method = method
    return error


def fault_of(log: MethodLog, error: BaseException, serializer: Serializer) -> Fault:
    """Return what the caller is told about an error; the traceback stays in this side's log."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # the caller need not know that the method uses a nursery
    if isinstance(error, PermissionError) and error.errno is None:
        return Fault("forbidden", _text(error) or "not allowed")
    if isinstance(error, NotBegun):
        return Fault("overloaded", _text(error) or "not now")
    name, text = type(error).__name__, _text(error)
    # One that names a method comes from a call that this method made, and says nothing about this one.
    if isinstance(error, InvalidArguments) and not error.method:
        return Fault("arguments", text)  # the method refuses a value that fits its annotation
    if isinstance(error, ApplicationError) and not error.method:
        try:
            return _expected(error, serializer)
        except Exception as why:  # a subclass may do anything
            text = f"{text} (sent without its code and data: {why})"
    log.raised(name, error)
    return Fault("raised", text, type_name=name)


def _expected(error: ApplicationError, serializer: Serializer) -> Fault:
    """The FAULT of an application's own error; raises for what cannot be sent."""
    checked = ApplicationError(_text(error), code=error.code, data=error.data)
    data, flags = (b"", 0) if checked.data is None else encode_value(serializer, checked.data)
    if flags:
        raise SerializationError("arrays cannot be data of an ApplicationError: pass lists")
    if len(data) > DATA_SIZE:
        raise SerializationError(f"its data takes {len(data)} bytes, and at most {DATA_SIZE} are sent")
    name = type(error).__name__
    return Fault("application", str(checked), type_name=name, code=checked.code, data=data)


def without_data(fault: Fault, why: LocalProtocolError) -> Fault:
    """Return what a caller whose limits are smaller than the data is told."""
    text = f"{_shorten(fault.message, MESSAGE_SIZE // 2)} (sent without its code and data: {why})"
    return Fault("raised", text, type_name=fault.type_name)


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
    if fault.code:
        fields |= {"code": fault.code, "data": fault.data}
    return _cbor.encode(fields, [])


def _shorten(text: str, size: int) -> str:
    return text[:size].encode(errors="replace")[:size].decode(errors="ignore")


def error_of(frame: Frame, target: str, timeout: float) -> CallError:
    """The caller's error for a FAULT, even a malformed one."""
    try:
        fault = msgspec.convert(decode_body(_cbor.content_id, frame.payload, 0, most=LEAST_ITEMS), Fault)
        return named(_error_of(fault, target, timeout), target)
    except (ConfigurationError, SerializationError, msgspec.ValidationError) as error:
        why = f"{target} was answered with a malformed FAULT: {error}"
        return named(RemoteError(why, type_name="RemoteProtocolError"), target)


def _error_of(fault: Fault, target: str, timeout: float) -> CallError:
    message = printable(fault.message)
    if fault.kind == "timeout":
        return CallTimeout(
            f"{target}: {message}", timeout=fault.timeout or timeout, outcome=Outcome.MAYBE_EXECUTED
        )
    error_class = _KINDS.get(fault.kind)
    if error_class is not None:
        return error_class(f"{target}: {message}", outcome=Outcome.COMPLETED)
    type_name = printable(fault.type_name or fault.kind, NAME_SIZE)
    if fault.kind == "application":
        data = decode_value(fault.data, 0, most=LEAST_ITEMS) if fault.data else None
        expected = ApplicationError(message, code=fault.code, data=data)
        expected.type_name = type_name
        return expected
    text = f": {message}" if message else ""
    return RemoteError(f"{target} raised {type_name}{text}", type_name=type_name)
