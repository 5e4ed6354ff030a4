"""The one timer of an endpoint, against a model of every link's heartbeat."""

from __future__ import annotations

import itertools
import logging
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from fuzz.session_states import LIMITS, Place, session_at
from heartline import ConnectionLost, Heartbeat
from heartline.link import HeartbeatTimer
from heartline.link._timer import SECOND_LOOK, SWEEP
from heartline.session import Role, State
from heartline.session.listening import Listening
from tests.connection.helpers import run

GRAIN = 1 / 128
"""Of a wait, by which a deadline may come late."""


@dataclass
class FakePulse:
    next_check: float
    listening: Listening | None = None
    share: float = 1.0

    def pace(self, share: float) -> None:
        self.share = share


@dataclass(eq=False)
class FakeLink:
    """Something due every ``interval`` seconds, moved away by traffic, until a last time."""

    interval: float
    traffic: list[float]
    end: float | None = None
    start: float = field(default_factory=trio.current_time)
    checks: list[tuple[float, float]] = field(default_factory=list)
    """When something was due, and when it was seen to."""
    looks: int = 0
    failure: Exception | None = None
    bug: bool = False
    watch: int = -1

    def __post_init__(self) -> None:
        self.pulse = FakePulse(self.following(self.start))
        self.session: Any = self

    def due(self, now: float) -> float:
        last = max([self.start, *[seen for _, seen in self.checks], *[t for t in self.traffic if t <= now]])
        return last + self.interval

    def following(self, now: float) -> float:
        return min(self.due(now), math.inf if self.end is None else self.end)

    def check(self, now: float) -> float:
        self.looks += 1
        if self.bug:
            raise ZeroDivisionError
        if self.end is not None and now >= self.end:
            raise ConnectionLost("the end")
        if now >= self.due(now):
            self.checks.append((self.due(now), now))
        return self.following(now)

    def flush(self) -> None:
        pass

    def fail(self, error: Exception) -> None:
        assert self.failure is None
        self.failure = error
        self.failed_at = trio.current_time()

    lose = fail


@asynccontextmanager
async def running(rng: random.Random | None = None) -> AsyncIterator[Any]:
    """A timer at work, of links that are not real ones."""
    timer = HeartbeatTimer(Heartbeat(), rng or random.Random(0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timer.run)
        yield timer
        nursery.cancel_scope.cancel()


quarter = st.integers(1, 40).map(lambda n: n / 4)


@given(st.lists(st.tuples(quarter, quarter, st.lists(quarter, max_size=5), st.none() | quarter), max_size=8))
def test_every_link_is_checked_when_it_is_due(plan: list[tuple[float, float, list[float], Any]]) -> None:
    async def main() -> None:
        links = []
        async with running() as timer:
            for arrival, interval, traffic, life in sorted(plan, key=lambda item: item[0]):
                await trio.sleep_until(arrival)
                now = trio.current_time()
                end = None if life is None else now + life
                links.append(FakeLink(interval, [now + t for t in traffic], end))
                timer.add(links[-1])
            await trio.sleep_until(30.1)
        for link in links:
            slack = link.interval * GRAIN
            assert all(due <= seen <= due + slack for due, seen in link.checks)
            if link.end is not None and link.end + slack < 30:
                assert link.end <= link.failed_at <= link.end + slack
            else:
                assert link.failure is None
                assert link.due(30.1) > 30.1 - slack, "one was left out"

    run(main)


async def test_a_discarded_link_is_left_alone(autojump_clock: MockClock) -> None:
    async with running() as timer:
        gone, stays = FakeLink(1, []), FakeLink(2, [])
        timer.add(gone)
        timer.add(stays)
        await trio.sleep(1.5)
        timer.discard(gone)
        timer.discard(gone)
        assert not any(gone in slot for slot in timer._slots.values()), "nothing holds it in memory"
        await trio.sleep(10)
        assert gone.looks == 1
        assert stays.looks == 5
        timer.discard(stays)
        await trio.sleep(10)
        assert (timer._slots, timer._times) == ({}, [])
        timer.discard(FakeLink(1, []))  # never added


async def test_a_suspect_that_is_discarded_meanwhile_is_not_blamed(autojump_clock: MockClock) -> None:
    async with running() as timer:
        gone = FakeLink(1, [], end=1.0)
        check = gone.check

        def and_leave(now: float) -> float:
            trio.lowlevel.spawn_system_task(leave)
            return check(now)

        async def leave() -> None:
            timer.discard(gone)

        gone.check = and_leave  # type: ignore[method-assign]
        timer.add(gone)
        await trio.sleep(5)
        assert gone.looks == 1
        assert gone.failure is None


async def test_a_suspect_that_spoke_after_all_is_watched_on(autojump_clock: MockClock) -> None:
    """What the last poll brought may still be on its way through a WebSocket and TLS."""
    async with running() as timer:
        link = FakeLink(1, [], end=1.0)
        timer.add(link)

        async def speak_late() -> None:
            for _ in range(SECOND_LOOK - 2):
                await trio.lowlevel.checkpoint()
            link.end = 3.0

        check = link.check

        def and_speak(now: float) -> float:
            if now >= 1.0 and link.end == 1.0:
                trio.lowlevel.spawn_system_task(speak_late)
            return check(now)

        link.check = and_speak  # type: ignore[method-assign]
        await trio.sleep(2.9)
        assert link.failure is None
        assert len(link.checks) == 2
        await trio.sleep(0.2)
        assert isinstance(link.failure, ConnectionLost)


async def test_a_bug_on_one_link_leaves_the_others(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as timer:
        broken, fine = FakeLink(1, [], bug=True), FakeLink(1, [])
        timer.add(broken)
        timer.add(fine)
        await trio.sleep(3.5)
        assert isinstance(broken.failure, ConnectionLost)
        assert broken.looks == 1
        assert len(fine.checks) == 3
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("together", [True, False])
async def test_thousands_of_links_share_few_wake_ups(together: bool, autojump_clock: MockClock) -> None:
    """Each is looked at once per interval, and the wheel turns no oftener than for a few."""
    async with running() as timer:
        links = [FakeLink(8 if together else 8 + number / 2000, []) for number in range(2000)]
        for link in links:
            timer.add(link)
        before = trio.lowlevel.current_statistics()
        turns = 0
        sleep_forever = trio.sleep_forever

        async def counting() -> None:
            nonlocal turns
            turns += 1
            await sleep_forever()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trio, "sleep_forever", counting)
            await trio.sleep(32.5)
        assert before.tasks_living == trio.lowlevel.current_statistics().tasks_living
        assert sum(link.looks for link in links) <= 4 * 2000
        assert turns <= 4 * 256 + 2 * 32 * 32.5 / 30


async def test_a_long_sweep_lets_others_run(autojump_clock: MockClock) -> None:
    async with running() as timer:
        for _ in range(16 * SWEEP):
            timer.add(FakeLink(1, []))
        turns = 0

        async def other() -> None:
            nonlocal turns
            await trio.sleep_until(1)
            while trio.current_time() == 1:
                turns += 1
                await trio.lowlevel.checkpoint()
                if turns > 1:
                    return

        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
        assert any(link.looks == 0 for slot in timer._slots.values() for link in slot)


async def test_a_crowd_that_is_lost_at_once_lets_others_run(autojump_clock: MockClock) -> None:
    async with running() as timer:
        links = [FakeLink(1, [], end=1.0) for _ in range(4 * SWEEP)]
        for link in links:
            timer.add(link)
        lost = [0]
        await trio.sleep_until(0.999)
        while lost[-1] < len(links):
            await trio.lowlevel.checkpoint() if trio.current_time() >= 1 else await trio.sleep_until(1)
            lost.append(sum(link.failure is not None for link in links))
        assert max(after - before for before, after in itertools.pairwise(lost)) <= 2 * SWEEP


async def test_links_that_joined_together_ping_at_different_times(autojump_clock: MockClock) -> None:
    """And stay so: a share of the interval is drawn once for each."""
    async with running(random.Random(7)) as timer:
        links = [SilentLink(session_at(Place(Role.SERVER, State.OPEN, LIMITS))) for _ in range(200)]
        for link in links:
            timer.add(link)
        await trio.sleep(80)
    for link in links:
        assert all(0 < b - a <= 10 for a, b in itertools.pairwise([0.0, *link.pings]))
    first, last = ([link.pings[turn] for link in links] for turn in (0, 7))
    assert max(map(first.count, first)) < 200 / 4, "not all in one slot"
    assert max(last) - min(last) > 5, "they drift apart"


class SilentLink:
    """A real session, and no stream: PINGs go nowhere, and are answered."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.watch = -1
        self.pings: list[float] = []

    def flush(self) -> None:
        now = trio.current_time()
        if self.session.has_output:
            self.pings.append(now)
            self.session.take(1 << 16, now)
            self.session.pulse.heard = now


async def test_whoever_has_nothing_due_ever_is_no_burden(autojump_clock: MockClock) -> None:
    async with running() as timer:
        link = FakeLink(math.inf, [])
        timer.add(link)
        await trio.sleep(1000)
        assert link.looks == 0
