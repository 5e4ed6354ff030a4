"""The count of items: no value is built that has more than its receiver takes, whatever the bytes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from fuzz.properties.payload import sent
from fuzz.properties.serializers import CBOR, JSON, MSGPACK, encoded, serializers
from fuzz.strategies import (
    cbor_like,
    cbor_values,
    json_like,
    json_values,
    msgpack_like,
    msgpack_values,
    mutated,
)
from heartline.errors import SerializationError
from heartline.wire import Flag, decode_body, decode_value, encode_value
from heartline.wire.items import count_items
from heartline.wire.payload import ItemCount

bounds = st.integers(0, 40)

plain = st.one_of(
    st.tuples(st.just(CBOR), cbor_values),
    st.tuples(st.just(JSON), json_values | st.text(st.sampled_from('"\\,:[{}]a'))),
    st.tuples(st.just(MSGPACK), msgpack_values),
)
"""A serializer, and a value without arrays that it can send."""


def built(value: Any) -> int:
    """The items of a value: itself, what it contains, and the keys of maps."""
    if isinstance(value, dict):
        return 1 + sum(built(key) + built(item) for key, item in value.items())
    return 1 + sum(map(built, value)) if isinstance(value, (list, tuple)) else 1


@given(plain)
def a_count_is_that_of_the_items(pair: tuple[Any, Any]) -> None:
    serializer, value = pair
    body = encoded(serializer, value)
    count = count_items(serializer.content_id, body, math.inf)
    assert built(serializer.decode(body)) <= count <= len(body)


@given(plain, st.data())
def a_bound_decides_as_the_count_does(pair: tuple[Any, Any], data: st.DataObject) -> None:
    """And a sender as its receiver, so that what is accepted here can be read there."""
    serializer, value = pair
    body = encoded(serializer, value)
    count = count_items(serializer.content_id, body, math.inf)
    most = data.draw(st.integers(max(0, count - 3), count + 3))
    assert (count_items(serializer.content_id, body, most) > most) == (count > most)


class Bound(NamedTuple):
    """What a message may have, below what :class:`heartline.Limits` allows."""

    items: int
    message_size: int = 2**40


@given(sent, bounds)
def a_sender_refuses_what_its_receiver_would(pair: tuple[Any, Any], most: int) -> None:
    serializer, value = pair
    payload, flags = encode_value(serializer, value)
    try:
        decode_value(payload, flags, most=most)
        refused = False
    except SerializationError:
        refused = True
    try:
        assert encode_value(serializer, value, Bound(most)) == (payload, flags)
        assert not refused
    except SerializationError:
        assert refused
    assert ItemCount(payload[0], payload, flags, 1).exceeds(most) == refused


@given(serializers, mutated(cbor_like | json_like | msgpack_like), bounds)
def no_bytes_make_more_items_than_the_bound(serializer: Any, data: bytes, most: int) -> None:
    for flags in (0, Flag.RAW):
        try:
            value = decode_body(serializer.content_id, data, flags, most=most)
        except SerializationError:
            continue
        assert built(value) <= most


@given(plain, st.lists(st.binary(max_size=6), max_size=1), st.data())
def a_broken_body_counts_what_stands_before_the_break(
    pair: tuple[Any, Any], junk: list[bytes], data: st.DataObject
) -> None:
    """A decoder builds that much before it finds the break."""
    serializer, value = pair
    body = encoded(serializer, [value, value])
    first = len(encoded(serializer, [value])) - (serializer is JSON)  # its closing bracket
    cut = data.draw(st.integers(first, len(body)))
    broken = body[:cut] + b"".join(junk)
    assert count_items(serializer.content_id, broken, math.inf) >= built(serializer.decode(body)) // 2
