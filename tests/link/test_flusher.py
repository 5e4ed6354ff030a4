"""The flusher: nothing that was marked is forgotten, and a hurry is joined."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import ConnectionLost
from heartline.link import Flusher
from heartline.link import _flusher as module
from tests.connection.helpers import counted_turns, run, settle


class FakeLink:
    def __init__(self, on_flush: Callable[[], None] = lambda: None) -> None:
        self.marked = self.flushed = 0
        self.writes = 0
        self.failure: Exception | None = None
        self._on_flush = on_flush

    def flush(self) -> None:
        self.writes += 1
        self.flushed = self.marked
        self._on_flush()

    def fail(self, error: Exception) -> None:
        self.failure = error


def mark(flusher: Flusher, link: FakeLink) -> None:
    link.marked += 1
    flusher.mark(link)  # type: ignore[arg-type]


@given(st.lists(st.integers(-1, 3), max_size=60))
def test_no_mark_is_lost(script: list[int]) -> None:
    """Marks come before it runs, while it sweeps, while it rests and while it is parked (-1: let it run)."""

    async def main() -> None:
        flusher = Flusher()
        links = [FakeLink() for _ in range(4)]
        links[3]._on_flush = lambda: mark(flusher, links[0]) if links[3].writes % 3 else None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flusher.run)
            for step in script:
                if step < 0:
                    await trio.lowlevel.checkpoint()
                else:
                    mark(flusher, links[step])
            await trio.sleep(1)  # a slow machine lets it rest in between
            assert all(link.flushed == link.marked for link in links)
            nursery.cancel_scope.cancel()

    run(main)


async def test_marks_of_one_tick_are_one_write(autojump_clock: MockClock) -> None:
    flusher, link = Flusher(), FakeLink()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        await settle()
        for _ in range(100):
            mark(flusher, link)
        await trio.sleep(1)
        assert link.writes == 1
        nursery.cancel_scope.cancel()


async def test_after_a_long_sweep_it_rests(mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the sweep took, so that a publisher gets its half of the time, but not much longer."""
    rests: list[float] = []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)
        await trio.lowlevel.checkpoint()

    def work(seconds: float) -> Callable[[], None]:
        return lambda: mock_clock.jump(seconds)

    monkeypatch.setattr("heartline.link._flusher.trio.sleep", sleep)
    flusher = Flusher()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        for seconds in (0.0001, 0.003, 0.5):
            mark(flusher, FakeLink(work(seconds)))
            await settle()
        assert rests == pytest.approx([0.003, module.LONGEST_REST])
        nursery.cancel_scope.cancel()


async def test_others_run_in_the_middle_of_a_sweep(autojump_clock: MockClock) -> None:
    flusher = Flusher()
    with counted_turns() as turns:
        links = [FakeLink(turns.count) for _ in range(3000)]
        for link in links:
            mark(flusher, link)
        with trio.move_on_after(1):
            await flusher.run()
    assert sum(turns.counts) == 3000
    assert max(turns.counts) == module.TURN


async def test_a_bug_on_one_link_leaves_the_others(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def bug() -> None:
        raise ZeroDivisionError

    flusher = Flusher()
    broken, fine = FakeLink(bug), FakeLink()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        for _ in range(3):
            mark(flusher, broken)
            mark(flusher, fine)
            await trio.sleep(1)
        assert isinstance(broken.failure, ConnectionLost)
        assert fine.writes == 3
        nursery.cancel_scope.cancel()
    assert {r.levelno for r in caplog.records} == {logging.ERROR}
