"""The frame codec: whatever the bytes and however they are cut, one meaning."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.strategies import FRAME_SIZE, frames, partitions, skipped_frames, streams
from heartline.errors import LocalProtocolError, RemoteProtocolError
from heartline.wire import CONTROL_TYPES, HEADER_SIZE, Flag, Frame, FrameDecoder, FrameType, Limits, encode

LIMITS = Limits(frame_size=FRAME_SIZE)


class Expected(NamedTuple):
    """What a stream means."""

    frames: list[Frame]
    error_at: int | None
    """The offset of the frame that breaks the protocol."""
    rest: int
    """Bytes of a frame that is not complete."""


def read(stream: bytes) -> Expected:
    """The meaning of a stream, by the rules of the wire and in the simplest way."""
    done: list[Frame] = []
    position = 0
    while len(stream) - position >= HEADER_SIZE:
        header = stream[position : position + HEADER_SIZE]
        length, kind, flags = int.from_bytes(header[:4], "big"), header[4], header[5]
        known = kind in set(FrameType)
        may_carry = Flag.IGNORABLE if kind in CONTROL_TYPES else Flag.IGNORABLE | Flag.MORE | Flag.RAW
        acceptable = flags & ~may_carry == 0 if known else flags & Flag.IGNORABLE
        if length > FRAME_SIZE or not acceptable:
            return Expected(done, position, 0)
        stop = position + HEADER_SIZE + length
        if stop > len(stream):
            break
        if known:
            channel, number = int.from_bytes(header[6:8], "big"), int.from_bytes(header[8:], "big")
            done.append(Frame(kind, flags, channel, number, stream[position + HEADER_SIZE : stop]))
        position = stop
    return Expected(done, None, len(stream) - position)


@given(st.lists(frames))
def frames_come_back_as_they_were(sent: list[Frame]) -> None:
    decoder = FrameDecoder(LIMITS)
    assert decoder.feed(encode(sent)) == sent
    assert decoder.buffered == 0
    decoder.close()


@given(st.lists(st.tuples(st.booleans(), frames, skipped_frames)))
def ignorable_frames_of_unknown_type_are_skipped(choices: list[tuple[bool, Frame, Frame]]) -> None:
    stream = encode(known if keep else unknown for keep, known, unknown in choices)
    assert FrameDecoder(LIMITS).feed(stream) == [known for keep, known, _ in choices if keep]


@given(st.data())
def every_prefix_means_the_same_however_it_is_cut(data: st.DataObject) -> None:
    stream = data.draw(streams)
    decoder = FrameDecoder(LIMITS)
    got: list[Frame] = []
    fed = 0
    for piece in data.draw(partitions(stream)):
        fed += len(piece)
        expected = read(stream[:fed])
        try:
            got += decoder.feed(piece)
        except RemoteProtocolError:
            assert expected.error_at is not None
        assert got == expected.frames
        assert decoder.failed == (expected.error_at is not None)
        assert decoder.buffered == expected.rest
    assert all(type(frame.payload) is bytes for frame in got)
    if decoder.failed:
        with pytest.raises(RemoteProtocolError) as caught:
            decoder.feed(b"")
        assert caught.value.offset == expected.error_at


@given(st.data())
def an_error_is_final_and_always_the_same(data: st.DataObject) -> None:
    stream = data.draw(streams)
    more = data.draw(st.lists(streams | st.just(b""), min_size=2, max_size=3))
    decoder = FrameDecoder(LIMITS)
    try:
        decoder.feed(stream)
    except RemoteProtocolError:
        assert read(stream).frames == []
    if not decoder.failed:
        return
    messages = set()
    for further in [lambda piece=piece: decoder.feed(piece) for piece in more] + [decoder.close]:
        with pytest.raises(RemoteProtocolError) as caught:
            further()
        messages.add((str(caught.value), caught.value.offset))
    assert len(messages) == 1
    assert decoder.buffered == 0


@given(streams)
def a_stream_may_end_only_between_frames(stream: bytes) -> None:
    expected = read(stream)
    decoder = FrameDecoder(LIMITS)
    try:
        decoder.feed(stream)
    except RemoteProtocolError:
        return
    if expected.error_at is None and expected.rest == 0:
        decoder.close()
        return
    with pytest.raises(RemoteProtocolError) as caught:
        decoder.close()
    assert caught.value.offset == (
        expected.error_at if expected.error_at is not None else len(stream) - expected.rest
    )


@given(st.data(), st.sampled_from([bytearray, memoryview]))
def any_kind_of_bytes_can_be_fed_and_used_again(data: st.DataObject, kind: type) -> None:
    sent = data.draw(st.lists(frames, max_size=3))
    decoder = FrameDecoder(LIMITS)
    got: list[Frame] = []
    for piece in data.draw(partitions(encode(sent))):
        owned = bytearray(piece)
        got += decoder.feed(kind(owned))
        owned[:] = b"x" * len(owned)
    assert got == sent
    assert all(type(frame.payload) is bytes for frame in got)


def _around(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1) | st.integers(-3, 3) | st.integers(2**bits - 3, 2**bits + 3)


@given(_around(8), _around(8), _around(16), _around(32))
def a_field_that_does_not_fit_is_your_own_error(kind: int, flags: int, channel: int, number: int) -> None:
    frame = Frame(kind, flags, channel, number, b"payload")
    if kind in range(256) and flags in range(256) and channel in range(2**16) and number in range(2**32):
        assert len(encode([frame])) == HEADER_SIZE + len(frame.payload)
        return
    with pytest.raises(LocalProtocolError, match="do not fit a frame's header") as caught:
        encode([frame])
    assert "payload" not in str(caught.value)
