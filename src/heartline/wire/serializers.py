"""Values: CBOR by default, JSON or a registered serializer where both sides choose it.

What a peer may ask of the decoders is little: see :mod:`heartline.wire.cbor`.

Dataclasses, attrs classes, msgspec structs and enums travel as plain maps and values, sets as arrays; the
annotations of the receiving method make them what they were.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import json
import re
import sys
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar, get_origin

import cbor2
import msgspec

from heartline.errors import ConfigurationError, SerializationError
from heartline.wire.cbor import MAX_DEPTH, loads, loads_with
from heartline.wire.segments import Segment

__all__ = [
    "CborSerializer",
    "JsonSerializer",
    "Serializer",
    "convert",
    "decode_text",
    "encode_text",
    "get_serializer",
    "register_serializer",
]

T = TypeVar("T")

SEGMENT_TAG: Final = 0x68656172
"""The CBOR tag (``hear`` in ASCII) of a placeholder: an index into the raw segments of the envelope."""


class Serializer(Protocol):
    """How values become bytes; ``content_id`` (1 to 255) names it on the wire, ``name`` in settings.

    ``encode`` appends arrays to ``segments`` and leaves placeholders; ``decode`` gets them back. Both raise
    :class:`~heartline.SerializationError`, and nothing else, for any value and any bytes.
    """

    name: str
    content_id: int

    def encode(self, value: Any, segments: list[Segment]) -> bytes:
        """The bytes of ``value``; its arrays are appended to ``segments``."""
        ...

    def decode(self, data: bytes, segments: Sequence[Segment] = ()) -> Any:
        """The value of exactly these bytes."""
        ...


def plain(value: Any) -> Any:
    """One level of a structured value as a map, list or scalar; raises :class:`SerializationError`."""
    cls = type(value)
    if dataclasses.is_dataclass(cls):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(cls)}
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        if config.array_like:
            head = [] if config.tag is None else [config.tag]
            return [*head, *(getattr(value, name) for name in value.__struct_fields__)]
        tag = {} if config.tag_field is None else {config.tag_field: config.tag}
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        return tag | {encoded: getattr(value, name) for encoded, name in names}
    if hasattr(cls, "__attrs_attrs__"):
        return {attribute.name: getattr(value, attribute.name) for attribute in cls.__attrs_attrs__}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return list(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and type(value.item()) is not cls:
        return value.item()
    raise SerializationError(
        f"a {cls.__module__}.{cls.__qualname__} cannot be sent: pass plain values, dataclasses or arrays"
    )


def is_segment(value: Any) -> bool:
    """Whether this value travels as a raw segment."""
    if isinstance(value, memoryview):
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _refuse_value(_encoder: Any, value: Any) -> None:
    raise SerializationError(f"a {type(value).__name__} cannot be sent: make it text or a number first")


class _HasSegments(Exception):
    """The value holds arrays: the fast path without a place for them does not do."""


def _encode_other(encoder: cbor2.CBOREncoder, value: Any) -> None:
    if is_segment(value):
        raise _HasSegments
    encoder.encode(plain(value))


def _encode_list(encoder: cbor2.CBOREncoder, value: Any) -> None:
    encoder.encode(list(value))


_MINUTE = datetime.timedelta(minutes=1)


def _rounded(value: datetime.datetime) -> datetime.datetime:
    """The same instant with an offset of whole minutes: dates as text, in CBOR and in JSON, have no other."""
    return value.astimezone(datetime.UTC) if (value.utcoffset() or _MINUTE) % _MINUTE else value


def _encode_datetime(encoder: cbor2.CBOREncoder, value: datetime.datetime) -> None:
    encoder.encode_datetime(_rounded(value))


# cbor2 would encode these in ways that the hardened decoder refuses (a datetime: its own decoder too), and a
# memoryview as a list of integers, a hundred times slower than its bytes.
_ENCODERS: dict[type, Any] = {
    decimal.Decimal: _refuse_value,
    fractions.Fraction: _refuse_value,
    complex: _refuse_value,
    re.Pattern: _refuse_value,
    ipaddress.IPv4Address: _refuse_value,
    ipaddress.IPv6Address: _refuse_value,
    ipaddress.IPv4Interface: _refuse_value,
    ipaddress.IPv6Interface: _refuse_value,
    ipaddress.IPv4Network: _refuse_value,
    ipaddress.IPv6Network: _refuse_value,
    set: _encode_list,
    frozenset: _encode_list,
    datetime.datetime: _encode_datetime,
    cbor2.CBORTag: _refuse_value,
    cbor2.CBORSimpleValue: _refuse_value,
    type(cbor2.undefined): _refuse_value,
    memoryview: _encode_other,
}
# A scalar or a flat row of them, as most arguments are, needs no look at the encoders: half the time.
_SCALARS = frozenset({int, float, str, bytes, bool, type(None)})
_ROWS = frozenset({list, tuple})
_dumps = partial(cbor2.dumps, default=_encode_other, encoders=_ENCODERS)


class CborSerializer:
    """CBOR (RFC 8949), the default."""

    name = "cbor"
    content_id = 1

    def encode(self, value: Any, segments: list[Segment]) -> bytes:
        """The bytes of ``value``; its arrays are appended to ``segments``."""
        try:
            try:
                if _SCALARS.issuperset(map(type, value if type(value) in _ROWS else (value,))):
                    return cbor2.dumps(value)
                return _dumps(value)
            except _HasSegments:
                return self._encode_with(value, segments)
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(f"cannot encode a {type(value).__name__} as CBOR: {error}") from error

    def _encode_with(self, value: Any, segments: list[Segment]) -> bytes:
        def other(encoder: cbor2.CBOREncoder, value: Any) -> None:
            if is_segment(value):
                segments.append(value)
                encoder.encode_semantic(SEGMENT_TAG, len(segments) - 1)
            else:
                encoder.encode(plain(value))

        return cbor2.dumps(value, default=other, encoders=_ENCODERS | {memoryview: other})

    def decode(self, data: bytes, segments: Sequence[Segment] = ()) -> Any:
        """The value of exactly these bytes."""
        try:
            if not segments:
                return loads(data)
            return loads_with(data, lambda tag, _immutable: _placed(segments, tag.tag, tag.value))
        except Exception as error:
            raise SerializationError(f"cannot decode CBOR: {error}") from None


def _placed(segments: Sequence[Segment], tag: int, index: Any) -> Segment:
    if tag != SEGMENT_TAG or type(index) is not int or not 0 <= index < len(segments):
        raise ValueError(f"tag {tag} with {index!r:.40} is no raw segment of this envelope")
    return segments[index]


# What JSON has no type for, and msgspec turns into the text that it also reads back.
_TEXTUAL = (bytes, bytearray, datetime.datetime, datetime.date, datetime.time, uuid.UUID)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class JsonSerializer:
    """JSON text in UTF-8. Bytes travel as base64 text, dates as ISO 8601, arrays as raw segments."""

    name = "json"
    content_id = 2

    _PLACEHOLDER: Final = "$segment"

    def encode(self, value: Any, segments: list[Segment]) -> bytes:
        """The bytes of ``value``; its arrays are appended to ``segments``."""
        before = len(segments)

        def other(value: Any) -> Any:
            if is_segment(value):
                segments.append(value)
                return {self._PLACEHOLDER: len(segments) - 1}
            if isinstance(value, datetime.datetime):
                value = _rounded(value)
            return msgspec.to_builtins(value) if isinstance(value, _TEXTUAL) else plain(value)

        try:
            text = json.dumps(
                value, default=other, ensure_ascii=False, allow_nan=False, separators=(",", ":")
            )
            # Inside a JSON string the quotes would be escaped: this counts maps, and only those.
            if segments and text.count(f'{{"{self._PLACEHOLDER}":') != len(segments) - before:
                raise SerializationError(f"beside arrays, no map may start with {self._PLACEHOLDER!r}")
            return text.encode()
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(f"cannot encode a {type(value).__name__} as JSON: {error}") from error

    def decode(self, data: bytes, segments: Sequence[Segment] = ()) -> Any:
        """The value of exactly these bytes."""
        try:
            text = bytes(data).decode()
            value = json.loads(text, parse_constant=_refuse_constant)
            # A few brackets cannot nest deeply: a small value without arrays is not walked.
            if segments or text.count("[") + text.count("{") > MAX_DEPTH:
                return self._restore(value, segments, MAX_DEPTH)
            return value
        except Exception as error:
            raise SerializationError(f"cannot decode JSON: {error}") from None

    def _restore(self, value: Any, segments: Sequence[Segment], levels: int) -> Any:
        """``value`` with its arrays in their places, if it has no more than so many levels of nesting."""
        if not isinstance(value, (list, dict)):
            return value
        if not levels:
            raise ValueError(f"more than {MAX_DEPTH} levels of nesting")
        if isinstance(value, list):
            return [self._restore(item, segments, levels - 1) for item in value]
        if segments and value.keys() == {self._PLACEHOLDER}:
            index = value[self._PLACEHOLDER]
            if type(index) is not int or not 0 <= index < len(segments):
                raise ValueError(f"{index!r:.40} is no raw segment of this envelope")
            return segments[index]
        return {key: self._restore(item, segments, levels - 1) for key, item in value.items()}


_registered: dict[str | int, Serializer] = {}


def register_serializer(serializer: Serializer) -> None:
    """Make a serializer known to this process, under its name and its content id.

    Like Python's codecs, serializers are a process-wide table: a name means the same everywhere.
    Raises :class:`ConfigurationError` when the name or id is taken or the id is not in 1 to 255.
    """
    if not 1 <= serializer.content_id <= 255:
        raise ConfigurationError(f"serializer {serializer.name!r}: content_id must be 1 to 255")
    for taken in (_registered.get(serializer.name), _registered.get(serializer.content_id)):
        if taken is not None:
            raise ConfigurationError(
                f"serializer {serializer.name!r} with id {serializer.content_id}: "
                f"{taken.name!r} ({taken.content_id}) is registered already"
            )
    _registered[serializer.name] = _registered[serializer.content_id] = serializer


def get_serializer(key: str | int) -> Serializer:
    """The serializer of this name or content id; :class:`ConfigurationError` lists the known ones."""
    found = _registered.get(key)
    if found is None:
        known = ", ".join(sorted({serializer.name for serializer in _registered.values()}))
        raise ConfigurationError(f"serializer {key!r} is not known; registered: {known}")
    return found


register_serializer(CborSerializer())
register_serializer(JsonSerializer())


def encode_text(serializer: Serializer, value: Any) -> str:
    """A value as text, for places that hold no bytes: JSON as it is, anything else in base64url."""
    segments: list[Segment] = []
    data = serializer.encode(value, segments)
    if segments:
        raise SerializationError("arrays cannot be written as text")
    return data.decode() if serializer.name == "json" else base64.urlsafe_b64encode(data).decode()


def decode_text(serializer: Serializer, text: str, target: type[T] | Any = Any) -> T | Any:
    """The inverse of :func:`encode_text`, converted to ``target`` when one is given."""
    try:
        data = text.encode() if serializer.name == "json" else base64.b64decode(text, b"-_", validate=True)
    except ValueError as error:
        raise SerializationError(f"not a serialized text: {error}") from None
    return convert(serializer.decode(data), target)


def convert(value: Any, target: Any) -> Any:
    """``value`` as an instance of the annotation ``target``; raises :class:`SerializationError`.

    What msgspec knows is converted by its rules (lax only where JSON and CBOR lack the type: text to
    datetime or UUID, arrays to sets and tuples); any other class accepts its own instances as they are.
    """
    try:
        return msgspec.convert(value, target, dec_hook=_accept_instance)
    except msgspec.ValidationError as error:
        raise SerializationError(str(error)) from None
    except Exception as error:
        # From the annotation's own code: a list cannot be in a set, a class raises while it is made.
        raise SerializationError(f"cannot make this a {target}: {error}") from error


def _accept_instance(cls: Any, value: Any) -> Any:
    # An annotation with parameters, as NDArray[float32], is checked by its class alone.
    origin = get_origin(cls) or cls
    if isinstance(value, origin):
        return value
    raise ValueError(f"expected a {origin.__qualname__}, got a {type(value).__name__}")
