"""Equality to the bit: types, signs of zero, NaN, offsets of time zones, layouts of numbers."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np


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
