"""MessagePack: what others write, and what a peer may not ask for."""

from __future__ import annotations

import datetime
import enum
import tracemalloc
import uuid
from typing import Any

import msgspec
import numpy as np
import pytest

from fuzz.properties.serializers import MSGPACK, carried, encoded
from fuzz.strategies import Colour
from heartline.errors import SerializationError
from heartline.wire.cbor import MAX_DEPTH
from heartline.wire.serializers.msgpack import SEGMENT_CODE

DEEP = [b"\x91", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01", b"\x81\xa1a", b"\xde\x00\x01\xa1a"]
ext = msgspec.msgpack.Ext


def test_it_is_what_others_write() -> None:
    instant = datetime.datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    number = uuid.UUID(int=5)
    value = {"a": [1, -2, 2.5, True, None, "é🙂", b"\x00"], "b": {}, b"c": (instant, number, instant.date())}
    assert encoded(MSGPACK, value) == msgspec.msgpack.encode(value)


# What a peer may not ask for.


@pytest.mark.parametrize("opening", DEEP, ids=lambda opening: opening.hex())
def test_nesting_is_bounded(opening: bytes) -> None:
    assert MSGPACK.decode(opening * MAX_DEPTH + b"\x01")
    for levels in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(SerializationError, match="more than 32 levels"):
            MSGPACK.decode(opening * levels + b"\x01")


def test_what_nests_too_deep_to_be_read_is_not_sent() -> None:
    def nested(levels: int) -> Any:
        return [{"a": nested(levels - 2)}] if levels else 1

    assert carried(MSGPACK, nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    for deeper in ([nested(MAX_DEPTH)], {"a": nested(MAX_DEPTH)}):
        with pytest.raises(SerializationError, match="more than 32 levels"):
            encoded(MSGPACK, deeper)


@pytest.mark.parametrize(
    "key",
    [1, -1, 2**40, None, True, 1.5, (1, 2), datetime.datetime.now(datetime.UTC), ext(5, b"x")],
    ids=lambda value: type(value).__name__,
)
def test_keys_that_are_neither_text_nor_bytes_are_refused(key: Any) -> None:
    data = b"\x82\xa1a\x01" + msgspec.msgpack.encode(key) + b"\x02"
    for wrong in (data, b"\x91" + data):
        with pytest.raises(SerializationError, match="a key that is neither text nor bytes"):
            MSGPACK.decode(wrong)


@pytest.mark.parametrize(
    "key",
    [1, None, True, 1.5, (1,), datetime.date(2020, 1, 1), memoryview(b"x")],
    ids=lambda value: type(value).__name__,
)
def test_keys_that_cannot_be_read_are_not_sent(key: Any) -> None:
    with pytest.raises(SerializationError):
        encoded(MSGPACK, {"a": 1, key: 2})


def test_keys_that_become_the_same_are_not_sent() -> None:
    assert carried(MSGPACK, {Colour.RED: 1, "blue": 2}) == {"red": 1, "blue": 2}
    with pytest.raises(SerializationError, match="two keys of a map are the same"):
        encoded(MSGPACK, {Colour.RED: 1, "red": 2})


@pytest.mark.parametrize("size", [1, 31, 32, 255, 256, 65_535, 65_536])
def test_keys_of_every_length(size: int) -> None:
    value = {"x" * size: 1, b"y" * size: [2]}
    assert carried(MSGPACK, value) == value


@pytest.mark.parametrize("head", [0xC6, 0xC9, 0xDB, 0xDD, 0xDF], ids=["bytes", "ext", "text", "list", "map"])
@pytest.mark.parametrize("length", [2**16, 2**24, 2**31, 2**32 - 1])
def test_a_huge_claim_costs_no_memory(head: int, length: int) -> None:
    claim = bytes([head]) + length.to_bytes(4, "big")
    tracemalloc.start()
    try:
        for data in (claim + bytes(10), b"\x91" + claim, (claim + b"\xa1a") * 16, claim + bytes(5000)):
            with pytest.raises(SerializationError):
                MSGPACK.decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x91\xc1", b"\x01\x01", b"\x92\x01", b"\xa2a", b"\xc4\x02a"]
)
def test_bytes_that_are_not_one_value_are_refused(data: bytes) -> None:
    with pytest.raises(SerializationError, match="cannot decode MessagePack"):
        MSGPACK.decode(data)


def test_no_extension_but_the_timestamp_is_accepted() -> None:
    accepted = set()
    for code in range(-128, 128):
        for data in (b"", b"x", bytes(4), bytes(8), bytes(12), bytes(16)):
            try:
                MSGPACK.decode(msgspec.msgpack.encode(ext(code, data)))
            except SerializationError:
                continue
            accepted.add(code)
    assert accepted == {-1}


@pytest.mark.parametrize("index", [b"\0\0\0\1", b"\xff\xff\xff\xff", b"", b"\0", b"\0\0\0\0\0"])
def test_a_placeholder_names_a_segment_that_is_there(index: bytes) -> None:
    segments = [memoryview(b"x")]
    assert MSGPACK.decode(msgspec.msgpack.encode(ext(SEGMENT_CODE, bytes(4))), segments) is segments[0]
    with pytest.raises(SerializationError, match=r"is no raw segment|is not accepted"):
        MSGPACK.decode(msgspec.msgpack.encode(ext(SEGMENT_CODE, index)), segments)


# What travels in another form, or not at all.


class Name(str):
    """Text with something of its own."""

    def __str__(self) -> str:
        return "another text"


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Name("x"), "x"),
        (Level.LOW, 1),
        (np.float64(1.5), 1.5),
        (bytearray(b"x"), b"x"),
        ({Name("x"): {Name("y")}}, {"x": ["y"]}),
        ((1, (2, frozenset([3]))), [1, [2, [3]]]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_instance_of_a_subclass_arrives_as_what_it_is(value: Any, arrives: Any) -> None:
    arrived = carried(MSGPACK, value)
    assert arrived == arrives
    assert type(arrived) is type(arrives)


@pytest.mark.parametrize("value", [datetime.datetime(2020, 1, 1), [datetime.datetime(2020, 1, 1)]])
def test_a_naive_datetime_is_no_instant(value: Any) -> None:
    with pytest.raises(SerializationError, match="a datetime without a time zone"):
        encoded(MSGPACK, value)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, [[2**64]]])
def test_whole_numbers_have_64_bits(value: Any) -> None:
    with pytest.raises(SerializationError, match="an integer beyond 64 bits"):
        encoded(MSGPACK, value)
