"""The log of a topic against a plain list."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartline import History
from heartline.errors import ConfigurationError
from heartline.push import Entry, TopicLog
from heartline.push._log import SHARED_SIZE
from heartline.push._wire import OFFSET, stamp
from heartline.wire import Frame, FrameDecoder, FrameType

histories = st.builds(
    History,
    count=st.sampled_from([1, 2, 3, 10, 1000]),
    size=st.sampled_from([1, 5, 20, 10**9]),
    age=st.sampled_from([0.5, 2.0, 10.0, math.inf]),
)
appends = st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0.0, 0.25, 1.0, 5.0])), max_size=30)


class PlainLog:
    """Every update of a topic so far, and the rule of what is retained."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.all: list[tuple[bytes, float]] = []
        self.dropped = 0

    def append(self, payload: bytes, now: float) -> None:
        self.all.append((payload, now))
        self.trim(now)

    def trim(self, now: float) -> None:
        while self.dropped < len(self.all) and not self._fits(self.all[self.dropped :], now):
            self.dropped += 1

    def _fits(self, kept: list[tuple[bytes, float]], now: float) -> bool:
        size = sum(len(payload) for payload, _ in kept)
        young = now - kept[0][1] <= self.history.age
        return young and len(kept) <= self.history.count and (size <= self.history.size or len(kept) == 1)

    @property
    def kept(self) -> dict[int, bytes]:
        return {offset: self.all[offset - 1][0] for offset in range(self.dropped + 1, len(self.all) + 1)}


def value_of(entry: Entry) -> bytes:
    """The value of an update, whose payload begins with its offset."""
    assert OFFSET.unpack_from(entry.payload) == (entry.offset,)
    return entry.payload[OFFSET.size :]


def check(log: TopicLog, plain: PlainLog) -> None:
    kept = plain.kept
    assert {entry.offset: value_of(entry) for entry in log} == kept
    assert len(log) == len(kept)
    assert log.last == len(plain.all)
    assert log.first == min(kept, default=log.last + 1)
    assert log.size == sum(map(len, kept.values()))
    assert (log.newest.offset if log.newest else None) == max(kept, default=None)
    for offset in range(log.last + 3):
        entry = log.get(offset)
        assert (value_of(entry) if entry else None) == kept.get(offset)
    everything = sum(len(payload) for payload, _ in plain.all)
    for offset in kept:
        later = sum(len(payload) for later, payload in kept.items() if later >= offset)
        assert log.total_before(offset) == everything - later
    assert log.total_before(log.last + 1) == everything
    assert log.total_before(0) == log.total_before(log.first)


@given(histories, appends)
def test_it_retains_what_its_history_says(history: History, steps: list[tuple[int, float]]) -> None:
    log, plain, now = TopicLog("epoch", 1, history), PlainLog(history), 0.0
    for number, (length, pause) in enumerate(steps):
        now += pause
        payload = bytes([number]) * length
        entry = log.append(payload, 0, now)
        plain.append(payload, now)
        assert (entry.offset, value_of(entry)) == (len(plain.all), payload)
        check(log, plain)
        # While the age allows, the newest is retained, however long it is.
        assert log.newest is entry
    now += 3.0
    log.trim(now)
    plain.trim(now)
    check(log, plain)


@given(histories, appends, st.lists(st.integers(0, 12), min_size=1, max_size=5))
def test_it_foretells_what_appends_drop(
    history: History, steps: list[tuple[int, float]], lengths: list[int]
) -> None:
    """Exactly for one; for several no drop goes unforetold."""
    log = TopicLog("epoch", 1, history)
    for step, _ in steps:
        log.append(bytes(step), 0, 0.0)
    there = range(log.first, log.last + 1 + len(lengths))
    told = [n for n in range(log.last + 8) if log.would_drop(sum(lengths), n, len(lengths))]
    one = [n for n in range(log.last + 8) if log.would_drop(lengths[0], n)]
    log.append(bytes(lengths[0]), 0, 0.0)
    assert one == [n for n in there if n < log.last and log.get(n) is None]
    for length in lengths[1:]:
        log.append(bytes(length), 0, 0.0)
    dropped = {n for n in there if log.get(n) is None}
    assert dropped <= set(told) <= set(there[:-1])


@pytest.mark.parametrize("length", [0, 1, SHARED_SIZE - 8, SHARED_SIZE - 7])
def test_a_small_update_is_encoded_once_for_all(length: int) -> None:
    log = TopicLog("epoch", 9, History())
    entry = log.append(bytes(length), 2, 0.0)
    if length + OFFSET.size > SHARED_SIZE:
        assert not entry.frame
    else:
        assert FrameDecoder().feed(entry.frame) == [Frame(FrameType.PUSH, 2, 0, 9, stamp(1, bytes(length)))]


@pytest.mark.parametrize(
    ("bounds", "field"),
    [
        ({"count": 0}, "count"),
        ({"count": 0.5}, "count"),
        ({"count": -1}, "count"),
        ({"count": "many"}, "count"),
        ({"size": 0}, "size"),
        ({"size": None}, "size"),
        ({"age": 0}, "age"),
        ({"age": -1.0}, "age"),
        ({"age": math.nan}, "age"),
    ],
)
def test_a_history_without_room_is_refused(bounds: dict[str, Any], field: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"History\.{field} must be a number .*, not {bounds[field]!r}"
    ):
        History(**bounds)
