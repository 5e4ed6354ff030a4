"""The one timer of an endpoint, against a model of every link's heartbeat."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import ConnectionLost
from heartline.connection import HeartbeatTimer

from .helpers import run


@dataclass
class FakePulse:
    next_check: float


@dataclass
class FakeLink:
    """Something due every ``interval`` seconds, moved away by traffic, until a last time."""

    interval: float
    traffic: list[float]
    end: float | None = None
    start: float = field(default_factory=trio.current_time)
    checks: list[float] = field(default_factory=list)
    failure: Exception | None = None
    bug: bool = False
    watch: int = -1

    def __post_init__(self) -> None:
        self.pulse = FakePulse(min(self.start + self.interval, self.end or float("inf")))
        self.session: Any = self

    def due(self, now: float) -> float:
        last = max([self.start, *self.checks, *[t for t in self.traffic if t <= now]])
        return last + self.interval

    def check(self, now: float) -> float:
        if self.bug:
            raise ZeroDivisionError
        if self.end is not None and now >= self.end:
            raise ConnectionLost("the end")
        if now >= self.due(now):
            self.checks.append(now)
        return min(self.due(now), self.end or float("inf"))

    def flush(self) -> None:
        pass

    def fail(self, error: Exception) -> None:
        assert self.failure is None
        self.failure = error
        self.failed_at = trio.current_time()

    def expected(self, until: float) -> list[float]:
        """When it should be checked with something due, up to this time."""
        times, last = [], self.start
        stamps = sorted(self.traffic)
        while True:
            due = last + self.interval
            moved = [t for t in stamps if last < t <= due]
            if moved:
                last = max(moved)
            elif due >= min(until, self.end or until):
                return times
            else:
                times.append(due)
                last = due


quarter = st.integers(1, 40).map(lambda n: n / 4)


@given(st.lists(st.tuples(quarter, quarter, st.lists(quarter, max_size=5), st.none() | quarter), max_size=8))
def test_every_link_is_checked_when_it_is_due(plan: list[tuple[float, float, list[float], Any]]) -> None:
    async def main() -> None:
        timer = HeartbeatTimer()
        links = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(timer.run)
            for arrival, interval, traffic, life in sorted(plan, key=lambda item: item[0]):
                await trio.sleep_until(arrival)
                now = trio.current_time()
                end = None if life is None else now + life
                links.append(FakeLink(interval, [now + t for t in traffic], end))
                timer.add(links[-1])  # type: ignore[arg-type]
            await trio.sleep_until(30.1)
            nursery.cancel_scope.cancel()
        for link in links:
            assert link.checks == pytest.approx(link.expected(30.1))
            if link.end is not None and link.end < 30:
                assert link.failed_at == link.end

    run(main)


async def test_a_discarded_link_is_left_alone(autojump_clock: MockClock) -> None:
    timer = HeartbeatTimer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timer.run)
        gone, stays = FakeLink(1, []), FakeLink(2, [])
        timer.add(gone)  # type: ignore[arg-type]
        timer.add(stays)  # type: ignore[arg-type]
        await trio.sleep(1.5)
        timer.discard(gone)  # type: ignore[arg-type]
        timer.discard(gone)  # type: ignore[arg-type]
        await trio.sleep(10)
        assert gone.checks == [1]
        assert stays.checks == [2, 4, 6, 8, 10]
        assert len(timer._heap) == 1
        nursery.cancel_scope.cancel()


async def test_a_bug_on_one_link_leaves_the_others(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    timer = HeartbeatTimer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timer.run)
        broken, fine = FakeLink(1, [], bug=True), FakeLink(1, [])
        timer.add(broken)  # type: ignore[arg-type]
        timer.add(fine)  # type: ignore[arg-type]
        await trio.sleep(3.5)
        assert isinstance(broken.failure, ConnectionLost)
        assert fine.checks == [1, 2, 3]
        nursery.cancel_scope.cancel()
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


async def test_thousands_of_links_cost_a_wake_up_each_and_not_each_other(autojump_clock: MockClock) -> None:
    """A wake-up looks at what is due, not at all: 2000 links are 2000 checks per interval, not 4 million."""
    looks = 0

    class Counting(FakeLink):
        def check(self, now: float) -> float:
            nonlocal looks
            looks += 1
            return super().check(now)

    timer = HeartbeatTimer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timer.run)
        for number in range(2000):
            timer.add(Counting(1 + number / 2000, []))  # type: ignore[arg-type]
        await trio.sleep(2)
        assert looks <= 2 * 2000
        nursery.cancel_scope.cancel()
