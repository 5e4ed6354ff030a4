"""Lines that others cause: a line each while they are few, and counted to the last one when they are many."""

from __future__ import annotations

import re
from itertools import pairwise

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline._summaries import ENOUGH, FIRST_PERIOD, LAST_PERIOD, LINES, REFILL, Summary

DAY = 24 * 3600.0


class Log:
    """What was admitted, and the summaries, each with its time."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.own: list[float] = []
        self.summaries: list[tuple[float, int, str, str]] = []
        self.summary = Summary(nursery, self._write)

    def _write(self, count: int, time: str, kinds: str) -> None:
        self.summaries.append((trio.current_time(), count, time, kinds))

    def note(self, kind: str = "lost") -> None:
        if self.summary.admit(kind):
            self.own.append(trio.current_time())

    @property
    def counted(self) -> int:
        return len(self.own) + sum(count for _, count, _, _ in self.summaries)


async def run(log: Log, pauses: list[tuple[float, int]]) -> None:
    for pause, count in pauses:
        await trio.sleep(pause)
        for _ in range(count):
            log.note()


async def test_few_have_a_line_each(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        log = Log(nursery)
        await run(log, [(REFILL, 1)] * 200)
        assert len(log.own) == 200
        assert not log.summaries
        assert not nursery.child_tasks, "nothing runs for what is not there"


async def test_a_flood_is_counted_by_kind_and_later_ones_have_lines_again(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        log = Log(nursery)
        for kind in ["lost"] * (LINES + 5) + ["let in"] * 7:
            log.note(kind)
        assert len(log.own) == LINES
        await trio.sleep(FIRST_PERIOD + 1)
        assert [entry[1:] for entry in log.summaries] == [(12, "1 min", "7 let in, 5 lost")]
        await trio.sleep(REFILL)
        assert nursery.child_tasks, "a second flood would have a line each again"
        await trio.sleep(2 * ENOUGH * REFILL)
        assert not nursery.child_tasks
        assert len(log.summaries) == 1, "nothing is not summed up"
        log.note()
        assert len(log.own) == LINES + 1


async def test_after_the_end_of_the_endpoint_nothing_is_raised(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        log = Log(nursery)
    for _ in range(2 * LINES):
        log.note()
    assert len(log.own) == LINES


async def test_a_flood_that_lasts_is_a_line_an_hour(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        log = Log(nursery)
        await run(log, [(10.0, 3)] * int(DAY / 10))
        nursery.cancel_scope.cancel()
    assert len(log.own) == LINES
    assert len(log.summaries) <= DAY / LAST_PERIOD + 8
    times = [time for time, *_ in log.summaries]
    assert max(later - earlier for earlier, later in pairwise(times)) <= LAST_PERIOD
    assert log.counted == 3 * int(DAY / 10)


async def test_more_than_the_bucket_gets_is_summed_up_ever_less_often(autojump_clock: MockClock) -> None:
    """Twice as many as lines are refilled: the summaries must not become as many."""
    async with trio.open_nursery() as nursery:
        log = Log(nursery)
        await run(log, [(REFILL / 2, 1)] * int(2 * DAY / REFILL))
        nursery.cancel_scope.cancel()
    assert len(log.own) + len(log.summaries) < DAY / REFILL


@given(
    st.lists(st.tuples(st.floats(0, 2 * LAST_PERIOD), st.integers(0, 5 * LINES)), max_size=30),
    st.booleans(),
)
def test_no_order_of_events_exceeds_the_bound_or_loses_one(
    pauses: list[tuple[float, int]], cancelled: bool
) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            log = Log(nursery)
            start = trio.current_time()
            await run(log, pauses)
            spent = trio.current_time() - start
            if cancelled:
                nursery.cancel_scope.cancel()
        assert log.counted == sum(count for _, count in pauses)
        assert len(log.own) <= LINES + spent / REFILL
        assert len(log.summaries) <= len(log.own) + spent / LAST_PERIOD + 8
        assert all(re.fullmatch(r"\d+ (s|min)", time) for _, _, time, _ in log.summaries)

    trio.run(main, clock=MockClock(autojump_threshold=0))
