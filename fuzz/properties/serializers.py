"""Serializers: what is sent arrives, what cannot be sent is refused, and no bytes do harm."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import re
import uuid
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.properties.compare import normal, same
from fuzz.strategies import (
    Colour,
    cbor_like,
    cbor_values,
    cbor_values_with_segments,
    instants,
    json_like,
    json_values,
    json_values_with_segments,
    memoryviews,
    msgpack_like,
    msgpack_values,
    msgpack_values_with_segments,
    mutated,
    odd_values,
)
from heartline.errors import SerializationError
from heartline.wire import convert, decode_text, encode_text, get_serializer, unwrap, wrap
from heartline.wire.cbor import MAX_DEPTH

CBOR = get_serializer("cbor")
JSON = get_serializer("json")
MSGPACK = get_serializer("msgpack")
serializers = st.sampled_from([CBOR, JSON, MSGPACK])


def encoded(serializer: Any, value: Any) -> bytes:
    """The bytes of a value without arrays."""
    segments: list[Any] = []
    data: bytes = serializer.encode(value, segments)
    assert segments == []
    return data


def carried(serializer: Any, value: Any) -> Any:
    """What arrives at the other side."""
    segments: list[Any] = []
    data: bytes = serializer.encode(value, segments)
    return serializer.decode(*unwrap(wrap(data, segments))) if segments else serializer.decode(data)


def depth(value: Any) -> int:
    """Levels of nesting."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(cbor_values)
def cbor_gives_back_every_value(value: Any) -> None:
    assert same(CBOR.decode(encoded(CBOR, value)), value)


@given(json_values)
def json_gives_back_every_value(value: Any) -> None:
    assert same(JSON.decode(encoded(JSON, value)), value)


@given(msgpack_values)
def msgpack_gives_back_every_value(value: Any) -> None:
    assert same(MSGPACK.decode(encoded(MSGPACK, value)), value)


@given(cbor_values_with_segments)
def cbor_puts_every_array_back_in_its_place(value: Any) -> None:
    assert same(carried(CBOR, value), value)


@given(json_values_with_segments)
def json_puts_every_array_back_in_its_place(value: Any) -> None:
    assert same(carried(JSON, value), value)


@given(msgpack_values_with_segments)
def msgpack_puts_every_array_back_in_its_place(value: Any) -> None:
    assert same(carried(MSGPACK, value), value)


_like_placeholders = st.recursive(
    memoryviews | st.integers(-2, 2) | st.none(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["$segment", "x"]), inner, max_size=2),
    ),
)


@given(_like_placeholders)
def json_takes_no_map_for_an_array(value: Any) -> None:
    try:
        arrived = carried(JSON, value)
    except SerializationError:
        assert "$segment" in repr(value)
        assert "memory" in repr(value)
    else:
        assert same(arrived, value)


@given(st.binary(max_size=40) | instants | st.dates() | st.uuids() | st.times())
def json_gives_text_that_converts_back(value: Any) -> None:
    text = carried(JSON, value)
    assert type(text) is str
    assert convert(text, type(value)) == value


@given(instants)
def msgpack_keeps_the_instant(value: datetime.datetime) -> None:
    arrived = carried(MSGPACK, value)
    assert arrived == value
    assert arrived.tzinfo is datetime.UTC


@given(st.dates() | st.uuids() | st.times())
def msgpack_gives_text_that_converts_back(value: Any) -> None:
    text = carried(MSGPACK, value)
    assert type(text) is str
    assert convert(text, type(value)) == value


@given(serializers, odd_values)
def what_is_sent_arrives_and_the_rest_is_refused_by_its_place(serializer: Any, value: Any) -> None:
    segments: list[Any] = []
    try:
        data: bytes = serializer.encode(value, segments)
    except SerializationError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert re.match(r"value(\.|\[|: )|cannot encode this datetime", refused), refused
        return
    arrived = serializer.decode(*unwrap(wrap(data, segments)))
    assert same(arrived, normal(serializer.name, value))


cbor_bytes = cbor_values.map(lambda value: encoded(CBOR, value))


@given(st.binary(max_size=60) | cbor_like | mutated(cbor_like) | mutated(cbor_bytes))
def any_bytes_are_a_cbor_value_or_refused(data: bytes) -> None:
    try:
        value = CBOR.decode(data)
    except SerializationError:
        return
    assert depth(value) <= MAX_DEPTH
    try:
        again = encoded(CBOR, value)
    except SerializationError:
        # Two things that CBOR has and Python has not: nobody can send them, a peer might.
        assert "CBORSimpleValue" in repr(value) or "undefined" in repr(value)
    else:
        assert same(CBOR.decode(again), value)


@given(st.binary(max_size=60) | json_like | mutated(json_like), st.sampled_from([(), (memoryview(b"x"),)]))
def any_bytes_are_a_json_value_or_refused(data: bytes, segments: Any) -> None:
    try:
        value = JSON.decode(data, segments)
    except SerializationError:
        return
    assert depth(value) <= MAX_DEPTH


msgpack_bytes = msgpack_values.map(lambda value: encoded(MSGPACK, value))


@given(st.binary(max_size=60) | msgpack_like | mutated(msgpack_like) | mutated(msgpack_bytes))
def any_bytes_are_a_msgpack_value_or_refused(data: bytes) -> None:
    try:
        value = MSGPACK.decode(data)
    except SerializationError:
        return
    assert depth(value) <= MAX_DEPTH
    assert same(MSGPACK.decode(encoded(MSGPACK, value)), value)


@given(msgpack_like | mutated(msgpack_like))
def msgpack_places_arrays_only_where_they_are_named(data: bytes) -> None:
    segments = [memoryview(b"x")]
    try:
        value = MSGPACK.decode(data, segments)
    except SerializationError:
        return
    again: list[Any] = []
    MSGPACK.encode(value, again)
    assert all(segment is segments[0] for segment in again)


@given(cbor_values, st.binary(min_size=1, max_size=10) | cbor_bytes)
def cbor_ends_where_the_value_ends(value: Any, more: bytes) -> None:
    data = encoded(CBOR, value)
    with pytest.raises(SerializationError):
        CBOR.decode(data + more)
    for end in range(len(data)):
        with pytest.raises(SerializationError):
            CBOR.decode(data[:end])


@given(msgpack_values, st.binary(min_size=1, max_size=10) | msgpack_bytes)
def msgpack_ends_where_the_value_ends(value: Any, more: bytes) -> None:
    data = encoded(MSGPACK, value)
    for wrong in [data + more, *(data[:end] for end in range(len(data)))]:
        with pytest.raises(SerializationError):
            MSGPACK.decode(wrong)


@given(json_values.map(lambda value: [value]))
def json_ends_where_the_value_ends(value: Any) -> None:
    data = encoded(JSON, value)
    for wrong in [data + b"0", data + b"\x00", *(data[:end] for end in range(len(data)))]:
        with pytest.raises(SerializationError):
            JSON.decode(wrong)


@given(serializers, json_values)
def text_gives_back_every_value(serializer: Any, value: Any) -> None:
    value = _within_64_bits(value)
    assert same(decode_text(serializer, encode_text(serializer, value)), value)


def _within_64_bits(value: Any) -> Any:
    """JSON has integers that nobody sends."""
    if isinstance(value, list):
        return [_within_64_bits(item) for item in value]
    if isinstance(value, dict):
        return {key: _within_64_bits(item) for key, item in value.items()}
    return value % 2**64 if type(value) is int else value


@given(serializers, st.text() | st.text("abcdefgh0123-_=", max_size=20))
def any_text_is_a_value_or_refused(serializer: Any, text: str) -> None:
    try:
        decode_text(serializer, text)
    except SerializationError:
        pass


@dataclasses.dataclass
class _Point:
    x: int
    y: float = 0.0


class _Angle(msgspec.Struct, tag=True):
    degrees: float


class _Turn(msgspec.Struct, tag=True, array_like=True):
    times: int


class _Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


ANNOTATIONS: dict[Any, Any] = {
    Any: object,
    None: type(None),
    bool: bool,
    int: int,
    float: float,
    str: str,
    bytes: bytes,
    list[Any]: list,
    dict[str, Any]: dict,
    dict[str, int]: dict,
    set: set,
    set[Any]: set,
    frozenset[str]: frozenset,
    tuple[int, ...]: tuple,
    tuple[int, str]: tuple,
    datetime.datetime: datetime.datetime,
    datetime.date: datetime.date,
    uuid.UUID: uuid.UUID,
    Colour: Colour,
    _Level: _Level,
    Literal["x", 1]: (str, int),
    int | str | None: (int, str, type(None)),
    _Point: _Point,
    list[_Point]: list,
    _Angle | _Turn: (_Angle, _Turn),
    np.ndarray: np.ndarray,
    np.typing.NDArray[np.float32]: np.ndarray,
    dict[str, np.ndarray]: dict,
}


@given(cbor_values_with_segments, st.sampled_from(list(ANNOTATIONS)))
def any_value_fits_an_annotation_or_is_refused(value: Any, target: Any) -> None:
    try:
        made = convert(value, target)
    except SerializationError:
        return
    assert isinstance(made, ANNOTATIONS[target])


@given(
    serializers,
    st.one_of(
        st.builds(_Point, st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False)),
        st.builds(_Angle, st.floats(allow_nan=False, allow_infinity=False)),
        st.builds(_Turn, st.integers(-(2**60), 2**60)),
        st.sampled_from(Colour),
        st.sampled_from(_Level),
        st.uuids(),
        st.dates(),
        st.binary(max_size=20),
    ),
    st.sampled_from(["one", "list", "map"]),
)
def an_object_becomes_what_it_was(serializer: Any, value: Any, form: str) -> None:
    kind: Any = type(value)
    if form == "list":
        value, kind = [value, value], list[kind]
    elif form == "map":
        value, kind = {"key": value}, dict[str, kind]
    assert convert(carried(serializer, value), kind) == value


@given(serializers, st.frozensets(st.integers(-5, 5) | st.text(max_size=3)))
def a_set_becomes_a_set_again(serializer: Any, value: frozenset[Any]) -> None:
    for kind in (set, frozenset):
        made = convert(carried(serializer, kind(value)), kind)
        assert type(made) is kind
        assert made == value
