"""The frame codec: its properties, and what only whole tables, clocks and memory can show."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.properties import codec
from fuzz.runner import Property, properties_of
from fuzz.strategies import UNKNOWN_TYPES
from heartline.errors import RemoteProtocolError
from heartline.wire import CONTROL_TYPES, HEADER, HEADER_SIZE, Frame, FrameDecoder, FrameType, Limits, encode
from heartline.wire.frames import TURN

FRAMES = [
    Frame(FrameType.PING, 0, 0, 7, b"now"),
    Frame(FrameType.DATA, 1, 3, 9, b"first half"),
    Frame(FrameType.PONG),
    Frame(FrameType.DATA, 0, 3, 9, b"second half"),
    Frame(FrameType.CALL, 2, 0, 2**32 - 1, bytes(range(100))),
]
STREAM = encode(FRAMES)


def header(frame_type: int, flags: int = 0, length: int = 0) -> bytes:
    return HEADER.pack(length, frame_type, flags, 0, 0)


@pytest.mark.parametrize("prop", properties_of(codec), ids=lambda prop: prop.__name__)
def test_property(prop: Property) -> None:
    prop()


def test_the_layout_of_a_frame() -> None:
    frame = Frame(FrameType.CALL, 0x81, 0x0203, 0x04050607, b"hi")
    assert encode([frame]) == b"\x00\x00\x00\x02\x20\x81\x02\x03\x04\x05\x06\x07hi"


def test_every_split_in_two_gives_the_same_frames() -> None:
    for cut in range(len(STREAM) + 1):
        decoder = FrameDecoder()
        assert decoder.feed(STREAM[:cut]) + decoder.feed(STREAM[cut:]) == FRAMES
        decoder.close()


def test_every_truncated_prefix_is_noticed_when_the_stream_ends() -> None:
    boundaries = {len(encode(FRAMES[:n])) for n in range(len(FRAMES) + 1)}
    for cut in range(len(STREAM)):
        decoder = FrameDecoder()
        decoder.feed(STREAM[:cut])
        if cut in boundaries:
            decoder.close()
            continue
        with pytest.raises(RemoteProtocolError, match="ended inside a frame") as caught:
            decoder.close()
        assert caught.value.offset == max(b for b in boundaries if b < cut)


@pytest.mark.parametrize("size", range(1, 40))
def test_pieces_of_any_size_give_the_same_frames(size: int) -> None:
    decoder = FrameDecoder()
    got = [f for at in range(0, len(STREAM), size) for f in decoder.feed(STREAM[at : at + size])]
    assert got == FRAMES


@pytest.mark.slow
def test_every_type_with_every_flag() -> None:
    for frame_type in range(256):
        for flags in range(256):
            decoder = FrameDecoder()
            if frame_type in UNKNOWN_TYPES:
                accepted, given = flags >= 0x80, 0
            else:
                allowed = 0x80 if frame_type in CONTROL_TYPES else 0x83
                accepted, given = flags & ~allowed == 0, 1
            if accepted:
                assert len(decoder.feed(header(frame_type, flags))) == given
            else:
                with pytest.raises(RemoteProtocolError):
                    decoder.feed(header(frame_type, flags))


def test_control_types_are_those_below_0x10() -> None:
    assert {t for t in FrameType if t < 0x10} == CONTROL_TYPES


@pytest.mark.parametrize("flags", [0, 0x80])
@pytest.mark.parametrize("frame_type", [FrameType.DATA, 0x7F])
def test_a_frame_above_the_limit_is_refused_with_its_header(frame_type: int, flags: int) -> None:
    decoder = FrameDecoder(Limits(frame_size=10))
    oversize = header(frame_type, flags, length=11)
    assert decoder.feed(oversize[:-1]) == []
    assert not decoder.failed
    with pytest.raises(RemoteProtocolError, match="claims 11 bytes of payload, the limit is 10"):
        decoder.feed(oversize[-1:])


@pytest.mark.parametrize("cut", [1, 5, 12, 30])
def test_an_answer_in_http_is_called_one(cut: int) -> None:
    """Only at the beginning of the stream: later on it is a frame like any other."""
    answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    decoder = FrameDecoder()
    with pytest.raises(RemoteProtocolError, match=r"^the peer answered in HTTP: .* ws://"):
        decoder.feed(answer[:cut])
        decoder.feed(answer[cut:])
    decoder = FrameDecoder()
    assert decoder.feed(STREAM) == FRAMES
    with pytest.raises(RemoteProtocolError, match="a frame claims 1213486160 bytes"):
        decoder.feed(answer)


def test_a_frame_of_exactly_the_limit_is_accepted() -> None:
    frame = Frame(FrameType.DATA, payload=bytes(10))
    assert FrameDecoder(Limits(frame_size=10)).feed(encode([frame])) == [frame]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (header(FrameType.DATA, length=2**32 - 1), "claims 4294967295 bytes of payload, the limit is 262144"),
        (header(0x7F), "unknown frame type 0x7f"),
        (header(FrameType.PING, 0x01), "PING with flags 0x01"),
        (header(FrameType.CALL, 0x04), "CALL with flags 0x04"),
    ],
)
def test_an_error_says_what_and_where_after_the_frames_before_it(broken: bytes, message: str) -> None:
    decoder = FrameDecoder()
    assert decoder.feed(STREAM + broken + STREAM) == FRAMES
    assert decoder.failed
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match=message) as caught:
            decoder.feed(STREAM)
        assert caught.value.offset == len(STREAM)
        assert f"at byte {len(STREAM)} of the stream" in str(caught.value)


@pytest.mark.parametrize("size", range(1, 40))
def test_an_error_is_at_the_same_place_however_the_stream_is_cut(size: int) -> None:
    broken = STREAM + header(0x7F)
    decoder = FrameDecoder()
    got: list[Frame] = []
    for at in range(0, len(broken), size):
        try:
            got += decoder.feed(broken[at : at + size])
        except RemoteProtocolError:
            assert at + size >= len(broken)
    with pytest.raises(RemoteProtocolError) as caught:
        decoder.close()
    assert caught.value.offset == len(STREAM)
    assert got == FRAMES


def test_a_large_frame_in_single_bytes_costs_linear_work() -> None:
    size = 2**19
    stream = encode([Frame(FrameType.DATA, payload=bytes(size))])
    decoder = FrameDecoder(Limits(frame_size=size))
    spent: list[float] = []
    got: list[Frame] = []
    for quarter in range(4):
        started = time.process_time()
        for at in range(quarter * len(stream) // 4, (quarter + 1) * len(stream) // 4):
            got += decoder.feed(stream[at : at + 1])
        spent.append(time.process_time() - started)
    assert len(got[0].payload) == size
    # Joining what is there with every byte would make the last quarter seven times as long as the first.
    assert spent[3] < 4 * spent[0]


@pytest.mark.slow
def test_a_peer_that_drips_costs_no_more_memory_than_its_bytes() -> None:
    stream = encode([Frame(FrameType.DATA, payload=bytes(256 * 1024))])[:-1]
    decoder = FrameDecoder()
    tracemalloc.start()
    try:
        for at in range(0, len(stream), 2):
            decoder.feed(stream[at : at + 2])
            decoder.feed(b"")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.buffered == len(stream)
    assert held < 1.5 * len(stream)


def test_nothing_is_held_after_an_error() -> None:
    decoder = FrameDecoder()
    tracemalloc.start()
    try:
        assert len(decoder.feed(STREAM + header(0x7F) + bytes(2**20))) == len(FRAMES)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.failed
    assert decoder.buffered == 0
    assert held < 2**16


def test_no_more_than_one_frame_is_ever_held() -> None:
    limits = Limits(frame_size=100)
    stream = encode([Frame(FrameType.DATA, payload=bytes(100))] * 50)
    for size in (1, 7, 100, 111, 112, 113, 1000):
        decoder = FrameDecoder(limits)
        for at in range(0, len(stream), size):
            decoder.feed(stream[at : at + size])
            assert decoder.buffered < HEADER_SIZE + limits.frame_size


@given(st.integers(0, 3 * TURN), st.integers(1, 40))
def test_a_turn_of_frames_at_a_time(count: int, cut: int) -> None:
    data = encode([Frame(FrameType.DATA, 0, 0, number) for number in range(count)])
    decoder, given_so_far = FrameDecoder(), []
    for piece in (data[: len(data) - cut], data[len(data) - cut :]):
        frames = decoder.feed(piece)
        while frames or decoder.more:
            assert len(frames) <= TURN
            given_so_far += frames
            frames = decoder.feed(b"")
    assert [frame.id for frame in given_so_far] == list(range(count))
    decoder.close()
