"""What can be sent, by every serializer, and in which form."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import fractions
import ipaddress
import re
from typing import Any, cast

import attrs
import cbor2
import msgspec
import numpy as np
import pytest

from fuzz.properties.serializers import CBOR, JSON, MSGPACK, carried
from fuzz.strategies import Colour
from heartline.errors import SerializationError
from heartline.wire import Serializer, convert
from heartline.wire.serializers import plain
from heartline.wire.serializers.cbor import SEGMENT_TAG

EVERY = pytest.mark.parametrize("serializer", [CBOR, JSON, MSGPACK], ids=lambda serializer: serializer.name)


NAIVE = datetime.datetime(2020, 1, 1)


class Opaque:
    pass


@EVERY
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Opaque(), "Opaque"),
        (Opaque, "type"),
        (len, "builtin_function_or_method"),
        (1j, "complex"),
        (np.longdouble(1), "longdouble"),
        (decimal.Decimal(1), "Decimal"),
        (fractions.Fraction(1, 2), "Fraction"),
        (re.compile("x"), "Pattern"),
        (ipaddress.ip_address("::1"), "IPv6Address"),
        (ipaddress.ip_interface("127.0.0.1/8"), "IPv4Interface"),
        (datetime.timedelta(1), "timedelta"),
        (cbor2.CBORTag(SEGMENT_TAG, 0), "CBORTag"),
        (cbor2.CBORSimpleValue(3), "CBORSimpleValue"),
        (cbor2.undefined, "UndefinedType"),
        (ValueError("x"), "ValueError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_sent_is_named(serializer: Serializer, value: Any, name: str) -> None:
    places: list[tuple[Any, str]] = [
        (value, ""),
        ([value], r"\[0\]"),
        ({"key": value}, r"\['key'\]"),
        ([memoryview(b""), value], r"\[1\]"),
        (Reading("a", [{"b": (1, value)}]), r"\.values\[0\]\['b'\]\[1\]"),  # type: ignore[list-item]
    ]
    for within, path in places:
        with pytest.raises(
            SerializationError,
            match=rf"^value{path}: a value of type (?!builtins)(\w+\.)*{name} cannot be sent",
        ):
            serializer.encode(within, [])


@EVERY
def test_a_value_in_itself_cannot_be_sent(serializer: Serializer) -> None:
    row: list[Any] = []
    row.append(row)
    with pytest.raises(SerializationError, match=r"^value(\[0\]){32}: more than 32 levels"):
        serializer.encode(row, [])


@EVERY
def test_half_a_surrogate_pair_cannot_be_sent(serializer: Serializer) -> None:
    with pytest.raises(SerializationError, match="surrogates"):
        serializer.encode("\ud800", [])


@attrs.define
class Reading:
    sensor: str
    values: list[float]


@dataclasses.dataclass
class Tree:
    name: str
    children: list[Tree] = dataclasses.field(default_factory=list)


class Renamed(msgspec.Struct, rename="camel", tag_field="kind", tag="renamed"):
    some_field: int


@EVERY
@pytest.mark.parametrize(
    "value", [Reading("a", [1.5]), Tree("root", [Tree("leaf")]), Renamed(3)], ids=lambda v: type(v).__name__
)
def test_objects_arrive_as_their_class(serializer: Serializer, value: Any) -> None:
    assert convert(carried(serializer, value), type(value)) == value


@EVERY
def test_arrays_are_found_inside_objects(serializer: Serializer) -> None:
    arrived = carried(serializer, Reading("a", cast(Any, np.arange(3.0))))
    assert arrived["values"].tolist() == [0, 1, 2]


@EVERY
def test_numbers_of_numpy_arrive_as_numbers(serializer: Serializer) -> None:
    value = [np.float32(1.5), np.int8(-1), np.bool_(True)]
    assert carried(serializer, value) == [1.5, -1, True]


@EVERY
def test_a_memoryview_travels_as_a_segment(serializer: Serializer) -> None:
    data = bytes(10_000)
    segments: list[Any] = []
    assert len(serializer.encode([memoryview(data)], segments)) < 30
    assert len(segments) == 1
    assert segments[0].obj is data


def test_an_odd_offset_keeps_the_instant() -> None:
    odd = datetime.timezone(datetime.timedelta(minutes=19, seconds=32))
    value = datetime.datetime(1930, 1, 1, tzinfo=odd)
    assert carried(CBOR, value) == value
    assert convert(carried(JSON, value), datetime.datetime) == value


@EVERY
def test_whole_numbers_have_64_bits(serializer: Serializer) -> None:
    lowest = -(2**64) if serializer is CBOR else -(2**63)
    for value in (2**64 - 1, lowest, [lowest, 2**64 - 1], {"a": [lowest]}):
        assert carried(serializer, value) == value
    for wrong in (2**64, lowest - 1, 2**10_000):
        for within, path in (
            (wrong, ""),
            ([0, wrong], r"\[1\]"),
            ({"a": [{"b": wrong}]}, r"\['a'\]\[0\]\['b'\]"),
        ):
            with pytest.raises(SerializationError, match=rf"^value{path}: an integer beyond 64 bits"):
                serializer.encode(within, [])


@EVERY
@pytest.mark.parametrize("levels", [33, 100_000])
@pytest.mark.parametrize("kind", [list, tuple, dict, Reading])
def test_what_nests_too_deep_is_not_sent(serializer: Serializer, levels: int, kind: Any) -> None:
    value: Any = None
    for _ in range(levels):
        value = {"a": value} if kind is dict else Reading(value, []) if kind is Reading else kind([value])
    with pytest.raises(SerializationError, match=r"^value[^:]+: more than 32 levels of nesting"):
        serializer.encode(value, [])
    while value is not None:  # taken apart here: to free a deep value in one go needs a deep stack
        value = value["a"] if kind is dict else value.sensor if kind is Reading else value[0]


@EVERY
def test_a_few_lists_that_stand_for_very_many_are_not_sent(
    serializer: Serializer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain._Walk, "_left", 1000)
    value: Any = ["x"]
    for _ in range(30):
        value = [value, value]
    with pytest.raises(SerializationError, match="items in one value: send it in parts"):
        serializer.encode(value, [])
    assert carried(serializer, [[1]] * 400) == [[1]] * 400


@EVERY
@pytest.mark.parametrize("key", [1, None, True, 1.5, (1,), datetime.date(2020, 1, 1), frozenset()])
def test_keys_are_text(serializer: Serializer, key: Any) -> None:
    for within, path in (({key: 1}, ""), ([{"a": {"b": 1, key: 2}}], r"\[0\]\['a'\]")):
        with pytest.raises(
            SerializationError, match=rf"^value{path}: a map's keys are text.*: make them text"
        ):
            serializer.encode(within, [])


@EVERY
def test_keys_that_become_the_same_are_not_sent(serializer: Serializer) -> None:
    assert carried(serializer, {Colour.RED: 1, "blue": 2}) == {"red": 1, "blue": 2}
    with pytest.raises(SerializationError, match=r"^value\[0\]: two keys of a map are the same"):
        serializer.encode([{Colour.RED: 1, "red": 2}], [])


@EVERY
def test_a_naive_datetime_is_no_instant(serializer: Serializer) -> None:
    for within, path in (
        (NAIVE, ""),
        ([NAIVE], r"\[0\]"),
        (Reading("a", [cast(Any, NAIVE)]), r"\.values\[0\]"),
    ):
        with pytest.raises(
            SerializationError, match=rf"^value{path}: a datetime without a time zone.*tzinfo"
        ):
            serializer.encode(within, [])


@EVERY
def test_dates_and_times_convert_back(serializer: Serializer) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    for value in (
        datetime.datetime(2024, 1, 2, 3, 4, 5, 6, zone),
        datetime.date(2024, 1, 2),
        datetime.time(1, 2, 3, 4),
        datetime.time(1, 2, tzinfo=zone),
    ):
        assert convert(carried(serializer, value), type(value)) == value


@EVERY
@pytest.mark.parametrize(
    ("value", "way_out"),
    [
        ((n for n in [1]), "make it a list"),
        (datetime.timedelta(1), "total_seconds"),
        (decimal.Decimal(1), "make it text or a float"),
        (1j, "send its parts"),
        (np.zeros(1, "M8[D]"), "use numbers"),
        (np.zeros((1,) * 33), "at most 32 dimensions"),
        (memoryview(cast(Any, np.array([object()]))), "pointers"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_way_out_is_named(serializer: Serializer, value: Any, way_out: str) -> None:
    with pytest.raises(SerializationError, match=rf"^value\['a'\]: .*{way_out}"):
        serializer.encode({"a": value}, [])


@EVERY
def test_an_error_of_the_value_itself_has_its_place(serializer: Serializer) -> None:
    broken = Tree("x")
    del broken.name
    with pytest.raises(SerializationError, match=r"^value\[0\]\.children\[1\]: .*has no attribute 'name'"):
        serializer.encode([Tree("root", [Tree("a"), broken])], [])
