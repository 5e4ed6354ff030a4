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
from heartline.errors import SerializationError
from heartline.wire import Serializer, convert
from heartline.wire.serializers.cbor import SEGMENT_TAG

EVERY = pytest.mark.parametrize("serializer", [CBOR, JSON, MSGPACK], ids=lambda serializer: serializer.name)


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
