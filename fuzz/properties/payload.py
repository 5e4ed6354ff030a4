"""Payloads: a value comes out as it went in, behind whatever head, and no payload does harm."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuzz.properties.compare import same
from fuzz.properties.serializers import CBOR, JSON, MSGPACK, depth, serializers
from fuzz.strategies import (
    arrays,
    cbor_like,
    cbor_values_with_segments,
    json_like,
    json_values_with_segments,
    msgpack_like,
    msgpack_values_with_segments,
    mutated,
)
from heartline.errors import SerializationError
from heartline.wire import Flag, decode_body, decode_value, encode_body, encode_value
from heartline.wire.cbor import MAX_DEPTH

heads = st.binary(max_size=40)
sent = st.one_of(
    st.tuples(st.just(CBOR), cbor_values_with_segments),
    st.tuples(st.just(JSON), json_values_with_segments),
    st.tuples(st.just(MSGPACK), msgpack_values_with_segments),
)
"""A serializer, and a value that it gives back as it was."""


@given(sent, heads)
def a_body_gives_back_the_value_behind_any_head(pair: tuple[Any, Any], head: bytes) -> None:
    serializer, value = pair
    payload, flags = encode_body(serializer, value, head)
    assert payload[: len(head)] == head
    assert same(decode_body(serializer.content_id, payload, flags, start=len(head)), value)


@given(sent)
def a_value_says_which_serializer_it_needs(pair: tuple[Any, Any]) -> None:
    serializer, value = pair
    payload, flags = encode_value(serializer, value)
    assert payload[0] == serializer.content_id
    assert same(decode_value(payload, flags), value)


@given(sent, st.integers(0, 4).map(lambda words: bytes(8 * words)))
def a_value_may_get_its_head_later(pair: tuple[Any, Any], head: bytes) -> None:
    payload, flags = encode_value(*pair)
    assert same(decode_value(head + payload, flags, start=len(head)), pair[1])


@given(serializers, st.lists(arrays(), min_size=1, max_size=3), heads, st.integers(0, 4))
def arrays_are_aligned_behind_any_head(serializer: Any, value: Any, head: bytes, words: int) -> None:
    later = bytes(8 * words)
    payload, flags = encode_body(serializer, value, head)
    assert flags == Flag.RAW
    for array in decode_body(serializer.content_id, later + payload, flags, start=len(later + head)):
        assert array.flags.aligned
        assert array.ctypes.data % 8 == 0 or array.size == 0


@given(serializers, st.integers(0, 4))
def flags_tell_whether_there_are_arrays(serializer: Any, count: int) -> None:
    _, flags = encode_value(serializer, [np.zeros(1)] * count)
    assert flags == (Flag.RAW if count else 0)


_values = sent.map(lambda pair: encode_value(*pair)[0])


@given(
    mutated(_values)
    | st.tuples(st.integers(0, 5), cbor_like | json_like | msgpack_like).map(
        lambda made: bytes([made[0]]) + made[1]
    )
    | st.binary(max_size=40),
    st.sampled_from([0, int(Flag.RAW)]),
    st.integers(0, 3),
)
def any_payload_is_a_value_or_refused(payload: bytes, flags: int, start: int) -> None:
    try:
        value = decode_value(payload, flags, start=start)
    except SerializationError:
        return
    assert depth(value) <= MAX_DEPTH
