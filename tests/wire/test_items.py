"""Items are counted before a value is built."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from fuzz.properties import items as properties
from fuzz.properties.items import Bound
from fuzz.properties.serializers import CBOR, JSON, MSGPACK, encoded
from fuzz.runner import Property, properties_of
from heartline.errors import SerializationError
from heartline.wire import Flag, Limits, decode_body, decode_value, encode_value, wrap
from heartline.wire.items import count_items
from tests.wire.helpers import known

MOST = Limits().items
CBOR_LISTS = b"\x9b" + (8 << 20).to_bytes(8) + b"\x80" * (8 << 20)


@pytest.mark.parametrize("prop", properties_of(properties), ids=lambda prop: prop.__name__)
def test_property(prop: Property) -> None:
    prop()


@pytest.mark.parametrize("serializer", [CBOR, JSON, MSGPACK], ids=lambda serializer: serializer.name)
def test_what_counts(serializer: Any) -> None:
    for value, count in {
        "text, with [ and { and :": 1,
        '"\\" , \\': 1,
        (1, 2, 3): 4,
        ((), "a"): 3 + (serializer is JSON),
        (("a",), 1.5, None, True): 6,
    }.items():
        assert count_items(serializer.content_id, encoded(serializer, value), math.inf) == count
    body = encoded(serializer, {"a": [1, "b" * 300], "c": {"d": b"e" * 70_000}})
    assert count_items(serializer.content_id, body, math.inf) == 9


@pytest.mark.parametrize("serializer", [CBOR, JSON, MSGPACK], ids=lambda serializer: serializer.name)
def test_a_value_at_the_bound_and_one_above(serializer: Any) -> None:
    value = [1] * (MOST - 1)
    payload, flags = encode_value(serializer, value, Bound(MOST))
    assert decode_value(payload, flags, most=MOST) == value
    payload, flags = encode_value(serializer, [*value, 1])
    with pytest.raises(SerializationError, match=r"more than 262144 items .*Limits\.items.* can be arrays"):
        encode_value(serializer, [*value, 1], Bound(MOST))
    with pytest.raises(SerializationError, match=r"more than 262144 items"):
        decode_value(payload, flags, most=MOST)


BOMBS: dict[str, tuple[Any, bytes]] = {
    "cbor": (CBOR, CBOR_LISTS),
    "cbor, deeper": (CBOR, b"\x81" * 20 + CBOR_LISTS),
    "cbor, announced": (CBOR, b"\x9a\xff\xff\xff\xff" + bytes(MOST)),
    "cbor, cut off": (CBOR, CBOR_LISTS[: MOST + 1]),
    "json": (JSON, b"[" + b"[]," * (8 << 20)),
    "json, in maps": (JSON, b"[" + b'{"":""},' * (1 << 20)),
    "json, blank": (JSON, b"[" + b"0 , " * (1 << 20)),
    "json, behind texts": (JSON, b'["' + b'\\\\\\",' * (1 << 20) + b'"' + b",[]" * (1 << 20)),
    "msgpack": (MSGPACK, b"\xdd" + (8 << 20).to_bytes(4) + b"\x90" * (8 << 20)),
    "msgpack, announced": (MSGPACK, b"\xdf\xff\xff\xff\xff" + bytes(MOST)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_never_lit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    serializer, body = BOMBS[name]

    def light(*_arguments: Any) -> Any:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(type(serializer), "decode", light)
    with pytest.raises(SerializationError, match=f"more than {MOST} items"):
        decode_body(serializer.content_id, body, 0, most=MOST)
    with pytest.raises(SerializationError, match=f"more than {MOST} items"):
        decode_body(serializer.content_id, wrap(body, [memoryview(b"x")]), Flag.RAW, most=MOST)


def test_the_list_of_arrays_is_bounded_too() -> None:
    few, many = [np.zeros((1, 1))] * 100, [np.zeros((1, 1))] * 5000
    assert len(decode_value(*encode_value(CBOR, few, Bound(20_000)), most=20_000)) == 100
    payload, flags = encode_value(CBOR, many)
    for action in (
        lambda: encode_value(CBOR, many, Bound(20_000)),
        lambda: decode_value(payload, flags, most=20_000),
    ):
        with pytest.raises(SerializationError, match="more than 20000 items"):
            action()


def test_an_array_is_one_item_however_long() -> None:
    payload, flags = encode_value(CBOR, [np.zeros(1_000_000)], Bound(20))
    (array,) = decode_value(payload, flags, most=20)
    assert array.shape == (1_000_000,)


class Lines:
    """A serializer that a user has registered: nobody but itself knows what its bytes mean."""

    name = "lines"
    content_id = 254
    is_text = True

    def encode(self, value: Any, segments: list[Any]) -> bytes:
        return "\n".join(value).encode()

    def decode(self, data: bytes, segments: Any = (), target: Any = Any) -> Any:
        return data.decode().split("\n")


def test_a_registered_serializer_is_bounded_by_bytes_alone() -> None:
    with known(Lines()):
        payload, flags = encode_value(Lines(), ["a"] * 1000, Bound(20))
        assert decode_value(payload, flags, most=20) == ["a"] * 1000


def test_cbor_is_walked_past_all_that_its_serializer_sends() -> None:
    """Each head and width, as another encoder writes them."""
    for body, count in {
        b"\x18\xff": 1,
        b"\x19\xff\xff": 1,
        b"\x3b" + bytes(8): 1,
        b"\xf9\x3c\x00": 1,
        b"\xfb" + bytes(8): 1,
        b"\x58\x03\x80\x80\x80": 1,
        b"\x7a\x00\x00\x00\x02\x80\x80": 1,
        b"\x98\x02\x01\x02": 3,
        b"\xb9\x00\x01\x61a\x01": 3,
        b"\xd8\x25\x50" + b"\x80" * 16: 2,
        b"\xff": 1,
        b"\x9f\x01": 1,
        b"": 1,
    }.items():
        assert count_items(1, body, math.inf) == count, body


def test_messagepack_is_walked_past_all_that_its_serializer_sends() -> None:
    for value in (0, 200, 70_000, 2**40, -1, -200, 1.5, "a" * 40, b"b" * 300, "c" * 70_000, None):
        assert count_items(3, msgspec.msgpack.encode([value, {"key": value}]), math.inf) == 5
    for size in (1, 2, 4, 5, 8, 16, 300):
        extension = msgspec.msgpack.Ext(5, b"\x90" * size)
        assert count_items(3, msgspec.msgpack.encode([extension, 1]), math.inf) == 3
