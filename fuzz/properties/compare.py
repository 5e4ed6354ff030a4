"""Equality to the bit, and the form in which a value arrives where no annotation says more."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import math
import uuid
from typing import Any

import msgspec
import numpy as np

from fuzz.strategies import Angle, Compact, Point, Reading


def same(a: Any, b: Any) -> bool:
    """Whether two received values are the same in every way that a receiver can see."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, datetime.datetime):
        return bool(a == b and _offset(a) == _offset(b))
    if isinstance(a, memoryview):
        return bool(a.tobytes() == b.tobytes())
    if isinstance(a, np.ndarray):
        return bool(a.dtype.str == b.dtype.str and a.shape == b.shape and a.tobytes() == b.tobytes())
    return bool(a == b)


def _offset(value: datetime.datetime) -> datetime.timedelta | None:
    """What arrives of a time zone: an offset that is no whole minute does not."""
    offset = value.utcoffset()
    return datetime.timedelta(0) if offset and offset % datetime.timedelta(minutes=1) else offset


# The normal form: the table under "Values" in docs/reference/wire.md, as a function.


def normal(format: str, value: Any) -> Any:
    """What arrives, by the serializer of this name, of a value that was sent."""
    if isinstance(value, enum.Enum):
        return normal(format, value.value)
    if isinstance(value, dict):
        return {_normal_key(key): normal(format, item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [normal(format, item) for item in value]
    if isinstance(value, Angle):
        return {"kind": "angle", "someDegrees": normal(format, value.some_degrees)}
    if isinstance(value, Compact):
        return [normal(format, value.first), normal(format, value.second)]
    if isinstance(value, Reading):
        return {"sensor": normal(format, value.sensor)}
    if isinstance(value, Point):
        return {field.name: normal(format, getattr(value, field.name)) for field in dataclasses.fields(value)}
    return _normal_leaf(format, value)


def _normal_key(key: Any) -> Any:
    key = key.value if isinstance(key, enum.Enum) else key
    return "".join(key) if isinstance(key, str) else bytes(key)


def _normal_leaf(format: str, value: Any) -> Any:
    if isinstance(value, str):
        return "".join(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode() if format == "json" else bytes(value)
    if isinstance(value, (np.ndarray, memoryview)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, datetime.datetime):
        return _normal_instant(format, value)
    if isinstance(value, datetime.time) or (
        format != "cbor" and isinstance(value, (datetime.date, uuid.UUID))
    ):
        return msgspec.to_builtins(value)
    return value


def _normal_instant(format: str, value: datetime.datetime) -> Any:
    offset = value.utcoffset()
    if format == "msgpack" or (offset and offset % datetime.timedelta(minutes=1)):
        value = value.astimezone(datetime.UTC)
    return msgspec.to_builtins(value) if format == "json" else value
