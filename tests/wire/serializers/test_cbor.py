"""CBOR: what a peer may not ask for, and the one form in which a value travels."""

from __future__ import annotations

import datetime
import decimal
import fractions
import ipaddress
import re
import tracemalloc
from email.mime.text import MIMEText
from typing import Any

import cbor2
import pytest

from fuzz.properties.serializers import CBOR, encoded
from heartline.errors import SerializationError
from heartline.wire.cbor import _END, _SHORT, MAX_DEPTH
from heartline.wire.serializers.cbor import SEGMENT_TAG


def test_cbor_is_what_others_write() -> None:
    value = {"a": [1, -2, 2.5, True, None, "é🙂", b"\x00"], "b": {}}
    assert encoded(CBOR, value) == cbor2.dumps(value)


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
    ids=lambda value: type(value).__name__,
)
def test_a_tag_that_is_not_harmless_is_refused(value: Any) -> None:
    for data in (cbor2.dumps(value), cbor2.dumps([value]), cbor2.dumps({"key": value})):
        with pytest.raises(SerializationError, match="cannot decode CBOR"):
            CBOR.decode(data)
        with pytest.raises(SerializationError, match="cannot decode CBOR"):
            CBOR.decode(data, [])


def test_no_tag_but_date_time_and_uuid_is_accepted() -> None:
    values: list[Any] = [1, 1.5, b"", bytes(16), "", "2020-01-01", [], [1, 2], {}, None]
    contents = [cbor2.dumps(value) for value in values]
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


@pytest.mark.parametrize(
    "value",
    [int.from_bytes(_END[1:]), _END, [_END, 1], {"a": _END + b"x"}],
    ids=lambda value: type(value).__name__,
)
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


def test_beside_segments_no_other_tag_is_accepted() -> None:
    for value in (cbor2.CBORTag(99, 0), cbor2.CBORTag(28, 0), decimal.Decimal(1)):
        with pytest.raises(SerializationError, match="error decoding"):
            CBOR.decode(cbor2.dumps(value), [memoryview(b"x")])


def test_a_naive_datetime_is_no_instant() -> None:
    with pytest.raises(SerializationError, match="datetime"):
        encoded(CBOR, datetime.datetime(2020, 1, 1))
