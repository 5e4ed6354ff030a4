"""The rules that all serializers share: which values can be sent, and in which form."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from heartline.errors import SerializationError
from heartline.wire.segments import Segment

__all__ = ["ROWS", "SCALARS", "is_segment", "plain", "segment_at", "whole_minutes"]

# A scalar or a flat row of them, as most arguments are, needs no look at what it consists of.
SCALARS: Final = frozenset({int, float, str, bytes, bool, type(None)})
ROWS: Final = frozenset({list, tuple})


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
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    raise SerializationError(
        f"a value of type {name} cannot be sent: pass plain values, dataclasses or arrays"
    )


def is_segment(value: Any) -> bool:
    """Whether this value travels as a raw segment."""
    if isinstance(value, memoryview):
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def segment_at(segments: Sequence[Segment], index: Any) -> Segment:
    """The segment that a placeholder from a peer names; raises :class:`ValueError`."""
    if type(index) is not int or not 0 <= index < len(segments):
        raise ValueError(f"{index!r:.40} is no raw segment of this envelope")
    return segments[index]


_MINUTE = datetime.timedelta(minutes=1)


def whole_minutes(value: datetime.datetime) -> datetime.datetime:
    """The same instant with an offset of whole minutes: dates as text, in CBOR and in JSON, have no other."""
    return value.astimezone(datetime.UTC) if (value.utcoffset() or _MINUTE) % _MINUTE else value
