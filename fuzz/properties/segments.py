"""Raw segments: arrays arrive to the bit, aligned and free, and no envelope does harm."""

from __future__ import annotations

import struct
from typing import Any

import cbor2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuzz.properties.compare import same
from fuzz.strategies import arrays, cbor_like, memoryviews, mutated, segments
from heartline.errors import SerializationError
from heartline.wire import unwrap, wrap

inners = st.binary(max_size=40)
lists = st.lists(segments, max_size=5)
envelopes = st.builds(wrap, inners, lists)


def _envelope(header: bytes, rest: bytes) -> bytes:
    return struct.pack("!I", len(header)) + header + rest


_lengths = st.sampled_from([0, 1, 2, 3, 4, 8, 2**31, 2**63, 2**64 - 1, -1])
_described = st.tuples(
    st.sampled_from(["", "<f4", ">i8", "|b1", "|u1", "<c16", "<f16", "|O", "<M8", "|V4", "<f04"])
    | st.text(max_size=4),
    st.lists(_lengths, max_size=4) | st.integers(30, 70).map(lambda n: [1] * n) | st.none(),
)
_headers = st.tuples(_lengths | st.none(), st.lists(_described, max_size=4)).map(
    lambda made: cbor2.dumps([made[0], *made[1]])
)
crafted = st.builds(_envelope, _headers | cbor_like, st.integers(0, 64).map(bytes))
"""Envelopes whose header says what no sender would."""


def _arrived(payload: bytes, in_place: bool) -> Any:
    """The payload, or the buffer in which it was put together."""
    return bytearray(payload) if in_place else payload


@given(inners, lists)
def an_envelope_gives_back_what_was_put_in(inner: bytes, sent: list[Any]) -> None:
    got_inner, got = unwrap(wrap(inner, sent))
    assert got_inner == inner
    assert type(got_inner) is bytes
    assert len(got) == len(sent)
    assert all(map(same, got, sent))


@given(inners, lists, st.booleans())
def received_arrays_are_aligned(inner: bytes, sent: list[Any], in_place: bool) -> None:
    envelope = wrap(inner, sent)
    _, got = unwrap(_arrived(envelope, in_place))
    for segment in got:
        start = np.frombuffer(segment, np.uint8) if isinstance(segment, memoryview) else segment
        assert start.ctypes.data % 8 == 0 or start.size == 0
        assert start.flags.aligned


@given(inners, st.lists(arrays(), min_size=1, max_size=3))
def received_arrays_can_be_written_and_touch_nobody(inner: bytes, sent: list[Any]) -> None:
    envelope = wrap(inner, sent)
    kept = bytes(bytearray(envelope))
    _, first = unwrap(envelope)
    _, second = unwrap(envelope)
    for number, array in enumerate(first):
        others = [other.tobytes() for other in [*first[:number], *first[number + 1 :], *second]]
        array[...] = ~array if array.dtype.kind == "b" else 0
        assert others == [other.tobytes() for other in [*first[:number], *first[number + 1 :], *second]]
    assert envelope == kept


@given(inners, st.lists(arrays(), min_size=1, max_size=3))
def sent_arrays_may_be_changed_as_soon_as_they_are_wrapped(inner: bytes, sent: list[Any]) -> None:
    sent = [np.array(array) for array in sent]
    envelope = wrap(inner, sent)
    kept = bytes(bytearray(envelope))
    for array in sent:
        array[...] = 0
    assert envelope == kept


@given(envelopes | mutated(envelopes) | crafted | mutated(crafted) | st.binary(max_size=60), st.booleans())
def any_bytes_are_an_envelope_or_refused(payload: bytes, in_place: bool) -> None:
    try:
        inner, got = unwrap(_arrived(payload, in_place))
    except SerializationError:
        return
    assert type(inner) is bytes
    assert len(inner) + sum(segment.nbytes for segment in got) <= len(payload)


@given(envelopes, st.data())
def an_envelope_cut_off_or_prolonged_is_refused(envelope: bytes, data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(envelope) - 1))
    for wrong in (envelope[:end], envelope + b"\0"):
        try:
            unwrap(wrong)
        except SerializationError:
            continue
        # An empty segment at the end leaves only padding to be cut off, which nobody misses.
        raise AssertionError(f"accepted {wrong!r}")


@given(memoryviews)
def a_memoryview_arrives_as_its_bytes(sent: memoryview) -> None:
    _, (got,) = unwrap(wrap(b"", [sent]))
    assert got == sent.tobytes()
    assert got.format == "B"
    assert got.ndim == 1
    assert not got.readonly
