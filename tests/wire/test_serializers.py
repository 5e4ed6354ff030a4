"""Serializers: their properties, and by name what a peer may not ask for and nobody can send."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import fractions
import ipaddress
import re
import tracemalloc
import uuid
from email.mime.text import MIMEText
from typing import Any

import attrs
import cbor2
import msgspec
import numpy as np
import pytest

from fuzz.properties import serializers as properties
from fuzz.properties.serializers import CBOR, JSON, carried, encoded
from fuzz.runner import Property, properties_of
from heartline.errors import ConfigurationError, SerializationError
from heartline.wire import (
    Serializer,
    convert,
    decode_text,
    encode_text,
    get_serializer,
    register_serializer,
    serializers,
)
from heartline.wire.cbor import _END, _SHORT, MAX_DEPTH
from heartline.wire.serializers import SEGMENT_TAG

BOTH = pytest.mark.parametrize("serializer", [CBOR, JSON], ids=lambda serializer: serializer.name)


@pytest.mark.parametrize("prop", properties_of(properties), ids=lambda prop: prop.__name__)
def test_property(prop: Property) -> None:
    prop()


def test_cbor_is_what_others_write() -> None:
    value = {"a": [1, -2, 2.5, True, None, "é🙂", b"\x00"], "b": {}}
    assert encoded(CBOR, value) == cbor2.dumps(value)


def test_json_is_compact_utf8() -> None:
    assert encoded(JSON, {"a": [1, "é", b"hi"], "b": None}) == '{"a":[1,"é","aGk="],"b":null}'.encode()


# What a peer may not ask for.


@pytest.mark.parametrize(
    "value",
    [
        decimal.Decimal("1.5"),
        fractions.Fraction(1, 3),
        re.compile("(a+)+$"),
        MIMEText("x"),
        2**64,
        -(2**64) - 1,
        frozenset(["a"]),
        1j,
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_interface("::1/64"),
        cbor2.CBORTag(0, 1),
        cbor2.CBORTag(1, 0),
        cbor2.CBORTag(25, 0),
        cbor2.CBORTag(28, [cbor2.CBORTag(29, 0)]),
        cbor2.CBORTag(100, 1),
        cbor2.CBORTag(256, ["a"]),
        cbor2.CBORTag(260, bytes(4)),
        cbor2.CBORTag(261, {bytes(4): 8}),
        cbor2.CBORTag(55799, 1),
        cbor2.CBORTag(SEGMENT_TAG, 0),
        cbor2.CBORTag(2**64 - 1, 1),
    ],
    ids=lambda value: str(getattr(value, "tag", type(value).__name__)),
)
def test_a_tag_that_is_not_harmless_is_refused(value: Any) -> None:
    for data in (cbor2.dumps(value), cbor2.dumps([value]), cbor2.dumps({"key": value})):
        with pytest.raises(SerializationError, match="cannot decode CBOR"):
            CBOR.decode(data)
        with pytest.raises(SerializationError, match="cannot decode CBOR"):
            CBOR.decode(data, [])


def test_no_tag_but_date_time_and_uuid_is_accepted() -> None:
    contents = [cbor2.dumps(v) for v in (1, 1.5, b"", bytes(16), "", "2020-01-01", [], [1, 2], {}, None)]
    contents.append(cbor2.dumps("2020-01-01T00:00:00Z"))
    accepted = set()
    for tag in [*range(1200), 1040, 43000, 43001, 55799, 65535]:
        for content in contents:
            try:
                CBOR.decode(b"\xd9" + tag.to_bytes(2, "big") + content)
            except SerializationError:
                continue
            accepted.add(tag)
    assert accepted == {0, 37, 1004}


@pytest.mark.parametrize("padding", [0, _SHORT], ids=["short", "long"])
@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x61a"], ids=["lists", "maps"])
def test_nesting_is_bounded(opening: bytes, padding: int) -> None:
    core = cbor2.dumps("x" * padding)
    assert CBOR.decode(opening * MAX_DEPTH + core)
    for levels in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(SerializationError, match="depth"):
            CBOR.decode(opening * levels + core)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["lists", "maps"])
@pytest.mark.parametrize("segments", [(), (memoryview(b"x"),)], ids=["plain", "with segments"])
def test_nesting_of_json_is_bounded(opening: str, closing: str, segments: Any) -> None:
    assert JSON.decode((opening * MAX_DEPTH + "1" + closing * MAX_DEPTH).encode(), segments)
    for levels in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(SerializationError, match="cannot decode JSON"):
            JSON.decode((opening * levels + "1" + closing * levels).encode(), segments)


@pytest.mark.parametrize("hexed", ["9fff", "9f01ff", "bfff", "bf616101ff", "5fff", "5f4100ff", "7f6161ff"])
def test_indefinite_lengths_are_refused(hexed: str) -> None:
    with pytest.raises(SerializationError, match="indefinite"):
        CBOR.decode(bytes.fromhex(hexed))


def test_duplicate_keys_are_refused() -> None:
    with pytest.raises(SerializationError, match="Duplicate map key: 'a'"):
        CBOR.decode(bytes.fromhex("a2616101616102"))


@pytest.mark.parametrize("key", [1, -1, None, True, 1.5, (1,), frozenset(), datetime.date(2020, 1, 1)])
def test_keys_that_are_neither_text_nor_bytes_are_refused(key: Any) -> None:
    with pytest.raises(SerializationError):
        CBOR.decode(cbor2.dumps({key: 1}))


@pytest.mark.parametrize("length", [2**16, 2**31, 2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize("major", [2, 3, 4, 5], ids=["bytes", "text", "list", "map"])
def test_a_huge_claim_costs_no_memory(major: int, length: int) -> None:
    data = bytes([major << 5 | 27]) + length.to_bytes(8, "big") + b"\x00" * 10
    tracemalloc.start()
    try:
        for claim in (data, b"\x81" + data, data + bytes(_SHORT)):
            with pytest.raises(SerializationError):
                CBOR.decode(claim)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("size", [0, _SHORT - 20, _SHORT, 3 * _SHORT])
def test_bytes_behind_the_value_are_refused(size: int) -> None:
    data = cbor2.dumps("x" * size)
    assert CBOR.decode(data) == "x" * size
    for more in (b"\x00", b"\xf6", b"\x81", b"\xff", _END, _END[:1], _END[:-1], _END[1:], _END * 2, data):
        with pytest.raises(SerializationError):
            CBOR.decode(data + more)
        with pytest.raises(SerializationError):
            CBOR.decode(data + more, [memoryview(b"")])


@pytest.mark.parametrize("value", [int.from_bytes(_END[1:]), _END, [_END, 1], {"a": _END + b"x"}], ids=repr)
def test_a_value_may_hold_the_mark_of_its_end(value: Any) -> None:
    data = encoded(CBOR, value)
    assert CBOR.decode(data) == value
    for cut in range(1, 10):
        with pytest.raises(SerializationError):
            CBOR.decode(data[:-cut])


@pytest.mark.parametrize("index", [-1, 1, 2**63, "0", None, [0], 0.0, True])
def test_a_placeholder_names_a_segment_that_is_there(index: Any) -> None:
    segments = [memoryview(b"x")] if index is not True else [memoryview(b"x")] * 2
    with pytest.raises(SerializationError, match="cannot decode CBOR"):
        CBOR.decode(cbor2.dumps(cbor2.CBORTag(SEGMENT_TAG, index)), segments)
    with pytest.raises(SerializationError, match="is no raw segment of this envelope"):
        JSON.decode(msgspec.json.encode({"$segment": index}), segments)


def test_beside_segments_no_other_tag_is_accepted() -> None:
    for value in (cbor2.CBORTag(99, 0), cbor2.CBORTag(28, 0), decimal.Decimal(1)):
        with pytest.raises(SerializationError, match="error decoding"):
            CBOR.decode(cbor2.dumps(value), [memoryview(b"x")])


@pytest.mark.parametrize("text", ["NaN", "Infinity", "[-Infinity]"])
def test_json_has_no_nan(text: str) -> None:
    with pytest.raises(SerializationError, match="is not JSON"):
        JSON.decode(text.encode())
    with pytest.raises(SerializationError, match="not JSON compliant"):
        encoded(JSON, float("nan"))


def test_a_number_of_too_many_digits_is_refused() -> None:
    with pytest.raises(SerializationError, match="digits"):
        JSON.decode(b"1" * 5000)


# What nobody can send.


class Opaque:
    pass


@BOTH
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
    for within in (value, [value], {"key": value}, [memoryview(b""), value]):
        with pytest.raises(SerializationError, match=rf"a (\w+\.)*{name} cannot be sent"):
            serializer.encode(within, [])


@BOTH
def test_a_value_in_itself_cannot_be_sent(serializer: Serializer) -> None:
    row: list[Any] = []
    row.append(row)
    with pytest.raises(SerializationError, match="cannot encode a list"):
        serializer.encode(row, [])


def test_a_naive_datetime_is_no_instant() -> None:
    with pytest.raises(SerializationError, match="datetime"):
        encoded(CBOR, datetime.datetime(2020, 1, 1))


@BOTH
def test_half_a_surrogate_pair_cannot_be_sent(serializer: Serializer) -> None:
    with pytest.raises(SerializationError, match="surrogates"):
        serializer.encode("\ud800", [])


# What travels in another form.


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


@BOTH
@pytest.mark.parametrize(
    "value", [Reading("a", [1.5]), Tree("root", [Tree("leaf")]), Renamed(3)], ids=lambda v: type(v).__name__
)
def test_objects_arrive_as_their_class(serializer: Serializer, value: Any) -> None:
    assert convert(carried(serializer, value), type(value)) == value


@BOTH
def test_arrays_are_found_inside_objects(serializer: Serializer) -> None:
    arrived = carried(serializer, Reading("a", np.arange(3.0)))
    assert arrived["values"].tolist() == [0, 1, 2]


@BOTH
def test_numbers_of_numpy_arrive_as_numbers(serializer: Serializer) -> None:
    value = [np.float32(1.5), np.int8(-1), np.bool_(True)]
    assert carried(serializer, value) == [1.5, -1, True]


@BOTH
def test_a_memoryview_travels_as_a_segment(serializer: Serializer) -> None:
    data = bytes(10_000)
    segments: list[Any] = []
    assert len(serializer.encode([memoryview(data)], segments)) < 30
    assert len(segments) == 1
    assert segments[0].obj is data


def test_json_keeps_what_looks_like_a_placeholder_apart() -> None:
    looks = {"$segment": 0}
    for alone in (looks, [looks] * (MAX_DEPTH + 1)):
        assert carried(JSON, alone) == alone
    for value in ([looks, memoryview(b"x")], [memoryview(b"x"), {"a": {"$segment": "text", "b": 1}}]):
        with pytest.raises(SerializationError, match=r"no map may start with '\$segment'"):
            encoded(JSON, value)
    harmless = [{"a": 1, "$segment": 0}, '{"$segment":0}', memoryview(b"x")]
    assert carried(JSON, harmless) == harmless


def test_an_odd_offset_keeps_the_instant() -> None:
    odd = datetime.timezone(datetime.timedelta(minutes=19, seconds=32))
    value = datetime.datetime(1930, 1, 1, tzinfo=odd)
    assert carried(CBOR, value) == value
    assert convert(carried(JSON, value), datetime.datetime) == value


# Text, conversion, registry.


@BOTH
def test_arrays_are_not_text(serializer: Serializer) -> None:
    with pytest.raises(SerializationError, match="arrays cannot be written as text"):
        encode_text(serializer, [memoryview(b"x")])


def test_text_is_safe_in_a_url_or_json() -> None:
    assert encode_text(JSON, {"a": 1}) == '{"a":1}'
    assert re.fullmatch(r"[\w=-]+", encode_text(CBOR, [bytes(range(256))]))


@pytest.mark.parametrize("text", ["a", "a===", "äöü=", "A Q==", "AQ==\n", "\ud800"])
def test_what_is_no_text_of_a_value_is_refused(text: str) -> None:
    with pytest.raises(SerializationError):
        decode_text(CBOR, text)


@BOTH
def test_text_converts_to_an_annotation(serializer: Serializer) -> None:
    number = uuid.uuid4()
    assert decode_text(serializer, encode_text(serializer, number), uuid.UUID) == number
    with pytest.raises(SerializationError, match="Expected `int`, got `str`"):
        decode_text(serializer, encode_text(serializer, "x"), int)


@dataclasses.dataclass
class Strict:
    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise KeyError("x")


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ([[1]], set),
        ([{}], frozenset[Any]),
        ({"x": -1}, Strict),
        ("x", Opaque),
        ("x", np.ndarray),
        ([1], np.typing.NDArray[np.float32]),
        (3, type[int]),
        (3, "no annotation"),
    ],
)
def test_what_does_not_fit_is_a_serialization_error(value: Any, target: Any) -> None:
    with pytest.raises(SerializationError):
        convert(value, target)


def test_an_array_fits_its_annotation() -> None:
    array = np.arange(3, dtype="f4")
    for target in (Any, np.ndarray, np.typing.NDArray[np.float32], np.ndarray | None):
        assert convert(array, target) is array
    assert convert({"w": [array]}, dict[str, list[np.typing.NDArray[np.float32]]])["w"][0] is array


class Other:
    def __init__(self, name: str, content_id: int) -> None:
        self.name, self.content_id = name, content_id

    def encode(self, value: Any, segments: list[Any]) -> bytes:
        return repr(value).encode()

    def decode(self, data: bytes, segments: Any = ()) -> Any:
        return data.decode()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered inside the test is gone afterwards."""
    monkeypatch.setattr(serializers, "_registered", dict(serializers._registered))


@pytest.mark.usefixtures("registry")
def test_a_registered_serializer_is_found() -> None:
    other = Other("other", 255)
    register_serializer(other)
    assert get_serializer("other") is other
    assert get_serializer(255) is other
    assert encode_text(other, 5) == "NQ=="
    assert decode_text(other, "NQ==", str) == "5"


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("name", "content_id", "message"),
    [
        ("cbor", 9, "'cbor' \\(1\\) is registered already"),
        ("other", 2, "'json' \\(2\\) is registered already"),
        ("other", 0, "content_id must be 1 to 255"),
        ("other", 256, "content_id must be 1 to 255"),
        ("other", -1, "content_id must be 1 to 255"),
    ],
)
def test_a_name_or_id_is_taken_once(name: str, content_id: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        register_serializer(Other(name, content_id))
    with pytest.raises(ConfigurationError):
        get_serializer("other")
    assert get_serializer("cbor") is CBOR
    assert get_serializer(2) is JSON


@pytest.mark.parametrize("key", ["yaml", 99, 0, ""])
def test_an_unknown_serializer_lists_the_known(key: str | int) -> None:
    with pytest.raises(ConfigurationError, match=rf"{key!r} is not known; registered: cbor, json"):
        get_serializer(key)
