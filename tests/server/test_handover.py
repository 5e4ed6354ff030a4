"""The handing-over of a session: at most one task holds it, and nobody waits for ever."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import ConnectionLost
from heartline.server._handover import TRANSITIONS, Handover, State, Step
from heartline.testing import memory_pair

from ..connection.helpers import run, settle
from ..link.test_link import links

HELD, WANTED, OVER = State
REQUEST, WITHDRAW, GRANT, END = Step


def test_the_table_is_what_the_module_says() -> None:
    """A request makes it wanted; withdrawn or granted it is held again; the end is the end."""
    assert TRANSITIONS == {
        (HELD, REQUEST): WANTED,
        (WANTED, REQUEST): WANTED,
        (WANTED, WITHDRAW): HELD,
        (WANTED, GRANT): HELD,
        (HELD, END): OVER,
        (WANTED, END): OVER,
    }
    assert {step for _, step in TRANSITIONS} == set(Step)


@given(st.lists(st.sampled_from(Step), max_size=30))
def test_a_step_without_a_row_is_loud_and_changes_nothing(script: list[Step]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            handover = make_handover(nursery)
            for step in script:
                before = handover.state
                if (before, step) in TRANSITIONS:
                    handover._step(step)
                    assert handover.state is TRANSITIONS[before, step]
                else:
                    with pytest.raises(KeyError):
                        handover._step(step)
                    assert handover.state is before

    run(main)


def make_handover(nursery: trio.Nursery) -> Handover:
    streams: Any = memory_pair()
    return Handover(links(streams, nursery)[0])


# Tasks that want it


class Streams:
    """Tasks as the acceptor has them: each wants the session, holds it, and hands it on or ends it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.handover = make_handover(nursery)
        self.holders = 0
        self.scopes: list[trio.CancelScope] = []
        self.outcomes: dict[int, str] = {}
        self._nursery = nursery

    def arrive(self, *, holds: bool = False) -> None:
        number = len(self.scopes)
        scope = trio.CancelScope()
        self.scopes.append(scope)
        self.holders += holds
        self._nursery.start_soon(self._live, number, scope, holds)

    def end(self) -> None:
        """The session is over, as its holder finds."""
        self.handover._link.fail(ConnectionLost("over"))
        if self.handover.state is not OVER:
            self.handover.end()

    async def _live(self, number: int, scope: trio.CancelScope, holds: bool) -> None:
        with scope:
            if not holds:
                self.outcomes[number] = "withdrew"
                if not await self.handover.request():
                    self.outcomes[number] = "refused"
                    return
                del self.outcomes[number]
                self.holders += 1
            assert self.holders == 1
            granted = False
            try:
                granted = await self.handover.grant()
            finally:
                # Nobody else holds it before this task has let go.
                assert self.holders == 1
                self.holders -= 1
                if not granted:
                    self.end()
                self.outcomes[number] = "handed on" if granted else "ended it"


steps = st.one_of(
    st.just(("arrive",)),
    st.tuples(st.just("cancel"), st.integers(0, 12)),
    st.just(("tick",)),
    st.just(("settle",)),
    st.sampled_from([("tick",)] * 8 + [("end",)]),
)


@given(st.lists(steps, max_size=40))
def test_one_task_holds_it_and_nobody_waits_for_ever(script: list[Any]) -> None:
    """Whatever comes, goes, and ends, in the same tick or not."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            streams = Streams(nursery)
            streams.arrive(holds=True)
            await settle()
            for step, *which in script:
                if step == "arrive":
                    streams.arrive()
                elif step == "tick":
                    await trio.lowlevel.checkpoint()
                elif step == "settle":
                    await settle()
                elif step == "end":
                    streams.end()
                elif which[0] < len(streams.scopes):
                    streams.scopes[which[0]].cancel()
            await settle()
            left = len(nursery.child_tasks)
            if streams.handover.state is OVER:
                assert left == streams.holders == 0
            else:
                # The one that holds it; everybody else has been told.
                assert streams.handover.state is HELD
                assert left == streams.holders == 1
                last = next(n for n in range(len(streams.scopes)) if n not in streams.outcomes)
                streams.scopes[last].cancel()
                await settle()
                assert streams.outcomes[last] == "ended it"
                assert streams.handover.state is OVER
            assert list(streams.outcomes.values()).count("ended it") <= 1

    run(main)


async def test_a_request_is_cancelled_as_it_is_granted(autojump_clock: MockClock) -> None:
    """Either it was granted, or it is withdrawn: somebody holds the session, or has ended it."""
    for _ in range(50):  # Trio draws who runs first
        async with trio.open_nursery() as nursery:
            streams = Streams(nursery)
            streams.arrive(holds=True)
            await settle()
            streams.arrive()
            for _ in range(3):
                if streams.handover.state is HELD:
                    await trio.lowlevel.checkpoint()
            streams.scopes[1].cancel()
            await settle()
            assert len(nursery.child_tasks) == streams.holders
            assert (streams.handover.state is OVER) == (streams.holders == 0)
            nursery.cancel_scope.cancel()


async def test_the_newest_of_many_gets_it(autojump_clock: MockClock) -> None:
    """A newer request voids the one before; whoever was passed by is told at once."""
    async with trio.open_nursery() as nursery:
        handover = make_handover(nursery)
        told: list[tuple[int, bool]] = []

        async def want(number: int) -> None:
            told.append((number, await handover.request()))

        for number in range(100):
            nursery.start_soon(want, number)
            await settle()
            assert told == [(earlier, False) for earlier in range(number)]
        assert handover._link.loss is not None
        assert await handover.grant()
        await settle()
        assert told[-1] == (99, True)


async def test_a_request_that_ends_is_withdrawn(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        handover = make_handover(nursery)
        with trio.move_on_after(1):
            await handover.request()
        assert handover.state is HELD
        with trio.move_on_after(1) as scope:
            await handover.grant()
        assert scope.cancelled_caught


async def test_nothing_comes_of_a_session_that_is_over(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        handover = make_handover(nursery)
        told: list[bool] = []

        @nursery.start_soon
        async def want() -> None:
            told.append(await handover.request())

        await settle()
        handover.end()
        await settle()
        assert told == [False]
        assert not await handover.request()
        handover._link.fail(ConnectionLost("over"))
        assert not await handover.grant()
