"""What is kept to be sent again, against a plain list of frames."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartline.session import PeerLimits, Role
from heartline.session.lanes import Lanes
from heartline.session.outbox import Buffer, Outbox
from heartline.session.replay import Replay
from heartline.wire import HEADER_SIZE, Flag, Frame, FrameType, Limits, encode


def small(*numbers: int, length: int = 5) -> bytes:
    """Small frames, joined as they leave together."""
    return encode([Frame(FrameType.CALL, 0, 0, number, bytes([number]) * length) for number in numbers])


def fragment(number: int, payload: bytes, flags: int = int(Flag.MORE)) -> list[Buffer]:
    """A fragment as it leaves: its header, and a view of the message."""
    frame = encode([Frame(FrameType.CALL, flags, 0, number, payload)])
    return [frame[:HEADER_SIZE], memoryview(payload)]


def given_back(replay: Replay, budget: int = 10**9) -> bytes:
    replay.rewind()
    return b"".join(replay.take(budget))


def test_nothing_is_kept_at_first() -> None:
    replay = Replay(1)
    assert (replay.size, replay.full, replay.due) == (0, False, False)
    replay.rewind()
    replay.drop(0)
    assert not replay.due
    assert replay.take(100) == []


@pytest.mark.parametrize("confirmed", range(6))
def test_small_frames_and_fragments_of_one_chunk(confirmed: int) -> None:
    first, last = bytes(range(100)), b"end"
    replay = Replay(1000)
    replay.keep([small(1, 2, 3), *fragment(7, first), *fragment(7, last, 0)], 5)
    frames = [small(1), small(2), small(3), b"".join(fragment(7, first)), b"".join(fragment(7, last, 0))]
    replay.drop(confirmed)
    assert given_back(replay) == b"".join(frames[confirmed:])
    assert replay.size == sum(map(len, frames[confirmed:]))


def test_empty_payloads_end_where_their_header_does() -> None:
    replay = Replay(1000)
    replay.keep([small(1, 2, length=0), *fragment(3, b""), *fragment(4, b"x", 0)], 4)
    replay.drop(3)
    assert given_back(replay) == b"".join(fragment(4, b"x", 0))


def test_nothing_is_copied() -> None:
    message = bytes(10**6)
    replay = Replay(1)
    replay.keep([small(1), *fragment(2, message)], 2)
    replay.drop(1)
    replay.rewind()
    head, part = replay.take(0)
    assert isinstance(part, memoryview)
    assert part.obj is message
    assert len(head) == HEADER_SIZE


def test_full_is_at_the_limit() -> None:
    frame = small(1)
    replay = Replay(2 * len(frame))
    replay.keep([frame], 1)
    assert not replay.full
    replay.keep([frame], 1)
    assert replay.full
    replay.drop(1)
    assert not replay.full


def test_small_writes_are_put_together() -> None:
    """However many there are, and confirmed one by one: neither memory nor time is spent on each."""
    replay = Replay(10**9)
    for number in range(10_000):
        replay.keep([small(number % 256)], 1)
    assert len(replay._chunks) < 10_000 / 20
    for _ in range(9_990):
        replay.drop(1)
    replay.rewind()
    assert b"".join(replay.take(10**9)) == small(*(number % 256 for number in range(9_990, 10_000)))


def test_what_is_confirmed_while_it_is_sent_again_is_not_sent_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("heartline.session.replay.SMALL", 0)
    replay = Replay(1)
    for number in range(4):
        replay.keep([small(2 * number, 2 * number + 1)], 2)
    replay.rewind()
    assert b"".join(replay.take(0)) == small(0, 1)
    replay.drop(5)
    assert b"".join(replay.take(0)) == small(5)
    replay.drop(1)
    assert b"".join(replay.take(10**9)) == small(6, 7)
    assert not replay.due


def test_a_second_rewind_begins_again() -> None:
    replay = Replay(1)
    for number in range(3):
        replay.keep([small(number)], 1)
    replay.rewind()
    replay.take(0)
    replay.rewind()
    assert b"".join(replay.take(10**9)) == small(0, 1, 2)


@dataclass
class Model:
    """Frames in the simplest way. How they are put together is not its business."""

    kept: list[bytes] = field(default_factory=list)
    again: list[bytes] = field(default_factory=list)

    def keep(self, frames: list[bytes]) -> None:
        self.kept += frames

    def drop(self, count: int) -> None:
        del self.kept[:count]
        self.again = self.again[-len(self.kept) :] if self.kept else []

    def take(self, taken: bytes, budget: int) -> None:
        """These bytes were taken: whole frames, the next ones, and as many as the budget allows."""
        assert len(taken) >= min(max(budget, 1), sum(map(len, self.again)))
        while taken:
            frame = self.again.pop(0)
            assert taken.startswith(frame)
            taken = taken[len(frame) :]


PEER = PeerLimits(frame_size=50, message_size=10_000, items=1, memory=50_000, window=1, calls=1, channels=1)

_messages = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 20, 100, 250])), min_size=1, max_size=6
)
_steps = st.one_of(
    st.tuples(st.just("keep"), _messages, st.sampled_from([1, 100, 10_000])),
    st.tuples(st.just("drop"), st.integers(0, 9), st.none()),
    st.tuples(st.just("rewind"), st.none(), st.none()),
    st.tuples(st.just("take"), st.sampled_from([0, 1, 150, 10_000]), st.none()),
)


@given(st.lists(_steps, max_size=30))
def test_whatever_is_kept_dropped_and_taken(steps: list[tuple[str, object, object]]) -> None:
    """Chunks as an outbox makes them, of small frames and of fragments of 50 bytes."""
    replay, model, outbox = Replay(500), Model(), Outbox(Limits(), Lanes(Role.CLIENT, Limits()))
    outbox.open(PEER)
    for what, one, two in steps:
        if what == "keep" and not model.again:
            assert isinstance(one, list)
            assert isinstance(two, int)
            for number, length in one:
                outbox.put(FrameType.CALL, 0, number, bytes([length]) * length)
            buffers, count = outbox.take(two)
            if count:
                replay.keep(buffers, count)
                model.keep(_cut(b"".join(buffers)))
        elif what == "drop":
            assert isinstance(one, int)
            count = min(one, len(model.kept) - len(model.again))  # a peer confirms only what it was sent
            replay.drop(count)
            model.drop(count)
        elif what == "rewind":
            replay.rewind()
            model.again = list(model.kept)
        elif what == "take":
            assert isinstance(one, int)
            model.take(b"".join(replay.take(one)), one)
        assert replay.size == sum(map(len, model.kept))
        assert replay.due == bool(model.again)
        assert replay.full == (replay.size >= 500)
    assert given_back(replay) == b"".join(model.kept)


def _cut(data: bytes) -> list[bytes]:
    """The single frames of these bytes."""
    frames = []
    while data:
        end = HEADER_SIZE + int.from_bytes(data[:4], "big")
        frames.append(data[:end])
        data = data[end:]
    return frames
