"""Payloads: their properties, and by name what stands where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fuzz.properties import payload as properties
from fuzz.properties.serializers import CBOR
from fuzz.runner import Property, properties_of
from heartline.errors import SerializationError
from heartline.wire import Flag, decode_body, decode_value, encode_body, encode_value, wrap
from tests.wire.helpers import known


@pytest.mark.parametrize("prop", properties_of(properties), ids=lambda prop: prop.__name__)
def test_property(prop: Property) -> None:
    prop()


def test_the_layout_of_a_payload() -> None:
    assert encode_body(CBOR, [1, "a"], b"head") == (b"head" + CBOR.encode([1, "a"], []), 0)
    assert encode_value(CBOR, None) == (b"\x01\xf6", 0)


def test_an_envelope_stands_behind_the_head() -> None:
    array = np.arange(3)
    inner = CBOR.encode([array], [])
    assert encode_body(CBOR, [array], b"head") == (wrap(inner, [array], b"head"), Flag.RAW)
    assert encode_value(CBOR, [array]) == (wrap(inner, [array], b"\x01"), Flag.RAW)


def test_a_serializer_that_is_not_known_is_named() -> None:
    with pytest.raises(SerializationError, match="serializer 99 is not known; registered: cbor, json, msgp"):
        decode_value(b"\x63\x00", 0)
    with pytest.raises(SerializationError, match="serializer 0 is not known"):
        decode_body(0, b"", 0)


@pytest.mark.parametrize("start", [0, 1, 9])
def test_a_payload_without_a_value_is_refused(start: int) -> None:
    with pytest.raises(SerializationError, match="ends where its value should begin"):
        decode_value(bytes(min(start, 8)), 0, start=start)


class Bound:
    """A format whose bytes mean nothing without the class; it tells what it was asked for."""

    name = "bound"
    content_id = 254
    is_text = False

    def encode(self, value: Any, segments: list[Any]) -> bytes:
        segments.extend(value)
        return b""

    def decode(self, data: bytes, segments: Any = (), target: Any = Any) -> Any:
        return [len(segments), target]


@pytest.mark.parametrize("count", [0, 2], ids=["plain", "with arrays"])
def test_the_serializer_is_told_the_target(count: int) -> None:
    bound = Bound()
    with known(bound):
        payload, flags = encode_value(bound, [memoryview(b"x")] * count)
        assert decode_value(payload, flags, tuple[int, str]) == [count, tuple[int, str]]
        assert decode_value(payload, flags) == [count, Any]
        assert decode_body(bound.content_id, payload, flags, bytes, 1) == [count, bytes]
