"""What can be sent, and in which form: the rules that all serializers share.

A value goes through one walk, which leaves only what the format knows: maps, lists and scalars of Python's
own types. It refuses what the other side would refuse, and says where in the value that is. The encoder
behind it needs no hooks, so the two together are quicker than an encoder that asks about each object.

Levels whose items are all scalars are passed over in C, without a look at the scalars themselves. The few of
these that cannot be sent make the encoder fail, and then a second, thorough walk looks for the culprit.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import sys
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final

import msgspec

from heartline.errors import SerializationError
from heartline.wire.cbor import MAX_DEPTH
from heartline.wire.segments import Segment, Segments, describe

__all__ = ["HIGHEST", "QUICK", "Form", "lower", "lower_narrow", "refusal", "segment_at"]

QUICK: Final = frozenset({int, float, str, bool, type(None)})
"""What most values consist of. Bytes are not among them: they are counted before they are copied."""

_LEAVES: Final = (datetime.date, datetime.time, uuid.UUID)
"""What is no scalar and holds no other values; a datetime is a date."""

HIGHEST: Final = 2**64 - 1

MAX_ITEMS: Final = 2**22
"""Items in one value: a few lists that hold each other twice, and again, stand for more than any memory."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a format has, and how it writes what it has not."""

    keys: frozenset[type]
    """The types of the keys of maps."""
    place: Callable[[int], Any]
    """What stands for the array with this index."""
    leaf: Callable[[Any], Any]
    """What is written for bytes, a date, a time or a UUID."""
    lowest: int = -(2**63)
    finite: bool = False
    """Whether it lacks infinity and NaN."""
    reserved: str | None = None
    """A key that no map may begin with."""


class _Fault(Exception):
    """What is wrong with a value, and the way to it, the last step first."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.path: list[Any] = []
        """Indexes, keys, and names of attributes."""
        self.cause: Exception | None = None
        """What the value's own code raised."""

    def __str__(self) -> str:
        return f"value{''.join(map(_step, reversed(self.path)))}: {self.args[0]}"


class _Attribute(str):
    """A step of a path that is no key."""


def lower(form: Form, value: Any, segments: list[Segment]) -> Any:
    """``value`` made of what the format has; its arrays are appended to ``segments``."""
    if type(value) in _ROWS and QUICK.issuperset(map(type, value)):  # the usual arguments of a call
        return value
    return _Walk(form, segments).lower(value, MAX_DEPTH)


def lower_narrow(form: Form, value: Any, segments: list[Segment]) -> Any:
    """As :func:`lower`, for an encoder that would write integers beyond 64 bits."""
    lowered = lower(form, value, segments)
    try:
        _write_narrow(lowered)
    except Exception:
        _check(form, value)  # raises, unless the format has wider ones after all
    return lowered


_ROWS: Final = frozenset({list, tuple})

# The quickest look at every integer: an encoder written in C that has none beyond 64 bits. In the
# placeholders of other formats there is nothing to look at.
_write_narrow = msgspec.msgpack.Encoder(enc_hook=lambda _placeholder: None).encode


def refusal(form: Form, value: Any, name: str, error: Exception) -> SerializationError:
    """The error for a value that could not be lowered or encoded in the format of this name."""
    if not isinstance(error, (_Fault, SerializationError)):
        try:
            _check(form, value)
        except Exception as found:
            error = found
    if isinstance(error, SerializationError):  # of an array that is the whole value
        error = _Fault(str(error))
    if isinstance(error, _Fault):
        return SerializationError(str(error))
    return SerializationError(f"cannot encode this {type(value).__name__} as {name}: {error}")


def _check(form: Form, value: Any) -> None:
    """Look at every single part of a value; raises for the first one that cannot be sent."""
    _ThoroughWalk(form, []).lower(value, MAX_DEPTH)


class _Walk:
    """The way through one value."""

    _quick = QUICK
    """The types of scalars that are not looked at."""
    _left = MAX_ITEMS

    def __init__(self, form: Form, segments: list[Segment]) -> None:
        self._form = form
        self._segments = segments
        self._keys = form.keys
        """The types of keys that are not looked at."""

    def lower(self, value: Any, levels: int) -> Any:
        """``value`` made of what the format has, with no more than so many levels of nesting."""
        kind, quick = type(value), self._quick
        if kind is list or kind is tuple:
            self._left -= len(value)
            if not levels or self._left < 0:
                raise _too_much(levels)
            if quick.issuperset(map(type, value)):
                return value
            row: list[Any] = []
            try:
                for item in value:  # no comprehension: the row's length tells which item was refused
                    row.append(item if type(item) in quick else self.lower(item, levels - 1))  # noqa: PERF401
            except Exception as error:
                fault = _beneath(len(row), error)
                raise fault from fault.cause
            return row
        if kind is not dict:
            return self._other(value, levels)
        self._left -= len(value)
        if not levels or self._left < 0:
            raise _too_much(levels)
        if not self._keys.issuperset(map(type, value)):
            value = self._renamed(value)
        elif quick.issuperset(map(type, value.values())):
            return value
        lowered: dict[Any, Any] = {}
        key = None
        try:
            for key, item in value.items():
                lowered[key] = item if type(item) in quick else self.lower(item, levels - 1)
        except Exception as error:
            fault = _beneath(key, error)
            raise fault from fault.cause
        return lowered

    def _renamed(self, value: dict[Any, Any]) -> dict[Any, Any]:
        """A map with keys that the format has."""
        renamed = {self._key(key): item for key, item in value.items()}
        if len(renamed) < len(value):
            raise _Fault("two keys of a map are the same when they are sent: make them differ")
        if self._form.reserved is not None and self._form.reserved == next(iter(renamed), None):
            raise _Fault(f"beside arrays, no map may start with {self._form.reserved!r}: rename the key")
        return renamed

    def _key(self, key: Any) -> Any:
        form = self._form
        exact = _exact(key.value if isinstance(key, enum.Enum) else key)
        if type(exact) not in form.keys:
            kinds = "text" if bytes not in form.keys else "text or bytes"
            raise _Fault(f"a map's keys are {kinds}, not {_shown(key)}: make them text")
        if type(exact) is str:
            _check_text(exact)
        return exact

    def _other(self, value: Any, levels: int) -> Any:
        if isinstance(value, enum.Enum):
            return self.lower(value.value, levels)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self.lower(list(value), levels)
        if isinstance(value, dict):
            return self.lower(dict(value), levels)
        if is_segment(value):
            describe(value)
            self._segments.append(value)
            return self._form.place(len(self._segments) - 1)
        if isinstance(value, (bytes, bytearray)) and isinstance(self._segments, Segments):
            self._segments.take(len(value))
        exact = _exact(value)
        if type(exact) in QUICK:
            self._check_scalar(exact)
            return exact
        if type(exact) is bytes:
            return self._form.leaf(exact)
        if isinstance(exact, _LEAVES):
            return self._form.leaf(_checked_leaf(exact))
        fields = _fields(value)
        try:
            return self.lower(fields, levels)
        except _Fault as fault:
            if fault.path and isinstance(fields, dict):
                fault.path[-1] = _Attribute(fault.path[-1])
            raise

    def _check_scalar(self, value: Any) -> None:
        form = self._form
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, float):
            if form.finite and not math.isfinite(value):
                raise _Fault(f"{value} is not JSON compliant: make it None or text")
        elif isinstance(value, int) and not form.lowest <= value <= HIGHEST:
            raise _Fault(f"an integer beyond 64 bits, {form.lowest} to {HIGHEST}: make it text")


class _ThoroughWalk(_Walk):
    """Looks at everything."""

    _quick = frozenset()

    def __init__(self, form: Form, segments: list[Segment]) -> None:
        super().__init__(form, segments)
        self._keys = frozenset()


def _beneath(step: Any, error: Exception) -> _Fault:
    """The fault of a part, seen from one level above."""
    if isinstance(error, _Fault):
        fault = error
    else:
        fault = _Fault(str(error) or type(error).__name__)
        fault.cause = error
    fault.path.append(step)
    return fault


def _step(step: Any) -> str:
    return f".{step:.40}" if isinstance(step, _Attribute) else f"[{step!r:.40}]"


def _too_much(levels: int) -> _Fault:
    if levels:
        return _Fault(f"more than {MAX_ITEMS} items in one value: send it in parts, or as arrays")
    return _Fault(f"more than {MAX_DEPTH} levels of nesting: send it in parts, or as a flat list")


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Fault("text with surrogates is not Unicode: send its bytes instead") from None


def _shown(key: Any) -> str:
    # Another class may show itself at any length, or raise.
    name = type(key).__name__
    return f"the {name} {key!r:.40}" if type(key) in QUICK or type(key) is bytes else f"a {name}"


def _exact(value: Any) -> Any:
    """An instance of a subclass of a scalar as what it is; anything else as it is."""
    kind = type(value)
    if kind in QUICK or kind is bytes:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, bytes):
        return bytes.__getitem__(value, slice(None))
    if isinstance(value, bytearray):
        return bytes(memoryview(value))
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in "biuf":
        number = value.item()
        return number if type(number) in QUICK else value  # a long double has no number of Python's
    return value


def _checked_leaf(value: Any) -> Any:
    """A date, time or UUID of Python's own class, if it says all that is needed."""
    if isinstance(value, uuid.UUID):
        return uuid.UUID(int=value.int)
    if isinstance(value, datetime.datetime):
        offset = value.utcoffset()
        if offset is None:
            raise _Fault("a datetime without a time zone is no instant: give it a tzinfo")
        if type(value) is not datetime.datetime:
            date = value.year, value.month, value.day
            time = value.hour, value.minute, value.second, value.microsecond
            value = datetime.datetime(*date, *time, datetime.timezone(offset))
        # Dates as text, in CBOR and in JSON, have no other offsets.
        return value.astimezone(datetime.UTC) if offset % _MINUTE else value
    if isinstance(value, datetime.time):
        offset = value.utcoffset()
        if offset is not None and offset % _MINUTE:
            raise _Fault("a time whose offset is not of whole minutes: give it another tzinfo")
        zone = None if offset is None else datetime.timezone(offset) if offset else datetime.UTC
        return datetime.time(value.hour, value.minute, value.second, value.microsecond, zone)
    return datetime.date(value.year, value.month, value.day)


_MINUTE = datetime.timedelta(minutes=1)


def _fields(value: Any) -> dict[str, Any] | list[Any]:
    """One level of a structured value."""
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
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    way_out = next((way for kind, way in _WAYS_OUT if isinstance(value, kind)), _USUAL_WAY_OUT)
    raise _Fault(f"a value of type {name:.80} cannot be sent: {way_out}")


_USUAL_WAY_OUT = "pass plain values, dataclasses or arrays"
_WAYS_OUT: tuple[tuple[Any, str], ...] = (
    (Coroutine, "await it first"),
    ((Iterator, range), "make it a list"),
    (datetime.timedelta, "send its total_seconds()"),
    ((decimal.Decimal, fractions.Fraction), "make it text or a float"),
    (complex, "send its parts, or an array"),
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
