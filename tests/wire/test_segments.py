"""Raw segments: their properties, the layout of the envelope, its bounds and its copies."""

from __future__ import annotations

import re
import struct
import sys
import time
import tracemalloc
from typing import Any

import cbor2
import numpy as np
import pytest

from fuzz.properties import segments as properties
from fuzz.runner import Property, properties_of
from heartline.errors import SerializationError
from heartline.wire import segments, unwrap, wrap
from heartline.wire.segments import ALIGNMENT, MAX_DIMENSIONS

MIB = 2**20


@pytest.mark.parametrize("prop", properties_of(properties), ids=lambda prop: prop.__name__)
def test_property(prop: Property) -> None:
    prop()


def envelope(header: Any, *, inner: bytes = b"", rest: bytes = b"") -> bytes:
    """An envelope with any header; ``rest`` starts where the first segment does."""
    head = header if isinstance(header, bytes) else cbor2.dumps(header)
    payload = struct.pack("!I", len(head)) + head + inner
    return payload + bytes(-len(payload) % ALIGNMENT) + rest


def test_the_layout_of_an_envelope() -> None:
    numbers = np.array([[1, 2, 3]], dtype="<u2")
    head = cbor2.dumps([5, ["", [3]], ["<u2", [1, 3]], ["<f8", []]])
    expected = struct.pack("!I", len(head)) + head + b"inner"
    for data in (b"abc", numbers.tobytes(), struct.pack("<d", 2.5)):
        expected += bytes(-len(expected) % 8) + data
    assert wrap(b"inner", [memoryview(b"abc"), numbers, np.array(2.5)]) == expected


def test_memory_of_other_items_than_bytes_travels_as_bytes() -> None:
    words = memoryview(bytearray(range(8))).cast("I")
    _, (got,) = unwrap(wrap(b"", [words]))
    assert got == bytes(range(8))


@pytest.mark.parametrize(
    "array",
    [
        np.array(["text"]),
        np.array([b"bytes"]),
        np.array([object()]),
        np.zeros(2, dtype=[("a", "i4")]),
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.array([1], dtype="m8[s]"),
        np.zeros(1, dtype="V4"),
        np.array([1], dtype=np.longdouble),
        np.array([1], dtype=np.clongdouble),
    ],
    ids=lambda array: str(array.dtype),
)
def test_only_arrays_of_plain_numbers_can_be_sent(array: np.ndarray) -> None:
    with pytest.raises(SerializationError, match=re.escape(f"dtype {array.dtype} cannot be sent")):
        wrap(b"", [array])


def test_a_mask_is_not_lost_in_silence() -> None:
    with pytest.raises(SerializationError, match="mask would be lost"):
        wrap(b"", [np.ma.array([1, 2], mask=[False, True])])


def test_the_number_of_segments_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    three, four = [memoryview(b"")] * 3, [memoryview(b"")] * 4
    prepared = wrap(b"", four)
    monkeypatch.setattr(segments, "MAX_SEGMENTS", 3)
    assert len(unwrap(wrap(b"", three))[1]) == 3
    with pytest.raises(SerializationError, match="4 arrays in one value, the limit is 3"):
        wrap(b"", four)
    with pytest.raises(SerializationError, match="malformed envelope"):
        unwrap(prepared)


def test_the_number_of_dimensions_is_bounded() -> None:
    good = envelope([0, ["|u1", [1] * MAX_DIMENSIONS]], rest=b"x")
    assert unwrap(good)[1][0].ndim == MAX_DIMENSIONS
    with pytest.raises(SerializationError, match="with shape"):
        unwrap(envelope([0, ["|u1", [1] * (MAX_DIMENSIONS + 1)]], rest=b"x"))


@pytest.mark.parametrize(
    "dtype",
    [
        "|O",
        "O",
        "<M8[s]",
        "<U4",
        "|S4",
        "|V4",
        "f4",
        "<f16",
        "<f04",
        "<f4 ",
        "=f4",
        "i4,i4",
        "<f٤",
        "x" * 9999,
    ],
)
def test_only_plain_numbers_are_received(dtype: str) -> None:
    with pytest.raises(SerializationError, match="only plain numbers are accepted") as caught:
        unwrap(envelope([0, [dtype, [1]]], rest=bytes(16)))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "shape", [[-1], [2, -2], [2**31], [2**64 - 1] * 32, [0, 2**63], [0, 2**64 - 1], [1] * 100_000], ids=len
)
def test_a_shape_that_cannot_be_is_refused_without_memory(shape: list[int]) -> None:
    payload = envelope([0, ["<f4", shape]], rest=bytes(4))
    tracemalloc.start()
    try:
        with pytest.raises(SerializationError) as caught:
            unwrap(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB
    assert len(str(caught.value)) < 1000


def test_segments_follow_each_other_inside_the_payload() -> None:
    with pytest.raises(SerializationError, match=r"with shape \[-8\]"):
        unwrap(envelope([0, ["", [-8]], ["", [8]]]))
    with pytest.raises(SerializationError, match="a raw segment ends at byte 32 of a payload of 24"):
        unwrap(envelope([0, ["|u1", [16]]], rest=bytes(8)))
    with pytest.raises(SerializationError, match="8 bytes behind the last raw segment"):
        unwrap(envelope([0, ["|u1", [8]]], rest=bytes(16)))


@pytest.mark.parametrize(
    "header",
    [
        {},
        [],
        "text",
        [None],
        [-1],
        [0.0],
        [True],
        [2**64 - 1],
        [0, "<f4", [1]],
        [0, ["<f4"]],
        [0, ["<f4", 1]],
        [0, ["<f4", ["1"]]],
        [0, [b"<f4", [1]]],
        [0, ["<f4", [1.0]]],
        [0, ["<f4", [1], 1]],
        b"",
        b"\xff",
        b"\x9f\x00\xff",
        cbor2.dumps([0]) + b"\x00",
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_malformed_header_is_refused(header: Any) -> None:
    with pytest.raises(SerializationError, match="malformed envelope of raw segments"):
        unwrap(envelope(header))


@pytest.mark.parametrize(
    "payload", [b"", b"\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\x81\x00\x00"]
)
def test_lengths_that_do_not_fit_are_refused(payload: bytes) -> None:
    with pytest.raises(SerializationError):
        unwrap(payload)


def test_the_header_is_read_by_the_hardened_decoder() -> None:
    slow_to_compile = b"\x82\x00\xd8\x23" + cbor2.dumps("(a|b)" * 10_000)
    started = time.process_time()
    with pytest.raises(
        SerializationError, match="malformed envelope of raw segments: error decoding semantic tag"
    ):
        unwrap(envelope(slow_to_compile))
    refused = time.process_time()
    cbor2.loads(slow_to_compile)  # alone it compiles the pattern, which takes a hundred times as long
    assert refused - started < (time.process_time() - refused) / 4


def test_an_array_is_copied_once_into_the_envelope_and_never_out_of_it() -> None:
    array = np.zeros(MIB, dtype="f8")
    tracemalloc.start()
    try:
        packed = wrap(b"", [array])
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 1.1 * array.nbytes
        assembled = bytearray(packed)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        _, (received,) = unwrap(assembled)  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before < 0.1 * array.nbytes
    finally:
        tracemalloc.stop()
    assert np.shares_memory(received, np.frombuffer(assembled, np.uint8))


def test_arrays_need_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = wrap(b"", [np.arange(3)])
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert unwrap(wrap(b"x", [memoryview(b"bytes")]))[1] == [b"bytes"]
    with pytest.raises(SerializationError, match=r"install heartline\[federated\]"):
        unwrap(packed)
