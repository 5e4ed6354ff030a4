"""Checkers pass good histories, and catch each planted fault."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import heartline
from heartline.errors import CallError, CallInterrupted, Outcome, Overloaded, RemoteError
from heartline.testing import (
    CallChecker,
    CreditChecker,
    DeliveryChecker,
    LeakChecker,
    NotConverged,
    OrderChecker,
    VersionChecker,
    Violation,
    World,
)

from .helpers import Adder, serve


def test_a_violation_is_a_failed_assertion() -> None:
    assert issubclass(Violation, AssertionError)


def test_confirmed_implies_delivered() -> None:
    checker = DeliveryChecker()
    checker.delivered("a", 1)
    checker.confirmed("a", 1)
    checker.confirmed("a", 1)
    for receiver, item in (("b", 1), ("a", 2)):
        with pytest.raises(Violation, match=f"{item} was confirmed by '{receiver}', which has not handled"):
            checker.confirmed(receiver, item)


@given(
    first=st.integers(0, 5),
    steps=st.lists(st.integers(-3, 4)),
    told=st.sets(st.integers(0, 20)),
)
def test_order_agrees_with_its_definition(first: int, steps: list[int], told: set[int]) -> None:
    """Each number is the one after the last, or a later one if the gap was told."""
    checker = OrderChecker()
    checker.begin("other", 100)
    checker.observe("s", first)
    last = first
    for position, step in enumerate(steps):
        if position in told:
            checker.told_gap("s")
        if step == 1 or (step > 1 and position in told):
            checker.observe("s", last + step)
            last += step
        else:
            words = {0: "came twice"}.get(step, "out of order" if step < 0 else "nobody was told of the gap")
            with pytest.raises(Violation, match=words):
                checker.observe("s", last + step)
            return
    checker.observe("other", 101)


def test_a_gap_is_told_for_one_number_only() -> None:
    checker = OrderChecker()
    checker.begin("s", after=0)
    checker.told_gap("s")
    checker.observe("s", 7)
    with pytest.raises(Violation, match="9 came after 7, and nobody was told of the gap"):
        checker.observe("s", 9)


def test_a_stream_can_begin_again() -> None:
    checker = OrderChecker()
    checker.observe("s", 5)
    checker.told_gap("s")
    checker.begin("s", after=3)
    checker.observe("s", 4)
    checker.begin("s", after=3)
    with pytest.raises(Violation, match="5 came after 3, and nobody"):
        checker.observe("s", 5)


@given(versions=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([1, 2]), st.integers(0, 5))))
def test_versions_agree_with_their_definition(versions: list[tuple[str, int, int]]) -> None:
    checker = VersionChecker()
    for position, (learner, run, version) in enumerate(versions):
        before = [v for name, r, v in versions[:position] if (name, r) == (learner, run)]
        if version < max(before, default=0):
            with pytest.raises(
                Violation, match=f"{learner!r} went back from version {max(before)} to {version}"
            ):
                checker.observe(learner, run, version)
            return
        checker.observe(learner, run, version)


NOT_SENT = CallInterrupted("x", outcome=Outcome.NOT_SENT)
MAYBE = CallInterrupted("x", outcome=Outcome.MAYBE_EXECUTED)
OVERLOADED = Overloaded("x", outcome=Outcome.COMPLETED)
RAISED = RemoteError("x", type_name="KeyError")


@pytest.mark.parametrize("executed", [False, True])
@pytest.mark.parametrize(
    ("error", "possible"),
    [(None, {True}), (RAISED, {True}), (MAYBE, {True, False}), (NOT_SENT, {False}), (OVERLOADED, {False})],
)
def test_outcomes(error: CallError | None, possible: set[bool], executed: bool) -> None:
    checker = CallChecker()
    checker.called(1)
    if executed:
        checker.executed(1)

    def end() -> None:
        checker.returned(1) if error is None else checker.failed(1, error)

    if executed in possible:
        end()
        assert checker.pending == ()
        checker.finish()
    else:
        with pytest.raises(Violation, match="but was executed" if executed else "but was never executed"):
            end()


def test_a_call_must_not_run_after_its_caller_was_told_that_it_did_not() -> None:
    checker = CallChecker()
    for call, error in (("a", MAYBE), ("b", NOT_SENT)):
        checker.called(call)
        checker.failed(call, error)
    checker.executed("a")
    with pytest.raises(
        Violation, match="'b' was executed, although its caller was told: CallInterrupted, not"
    ):
        checker.executed("b")


def test_a_call_runs_once_unless_it_is_idempotent() -> None:
    checker = CallChecker()
    checker.called("again", idempotent=True)
    checker.called("once")
    for call in ("again", "again", "once"):
        checker.executed(call)
    with pytest.raises(Violation, match="'once' was executed 2 times"):
        checker.executed("once")


@pytest.mark.parametrize(
    ("misdeed", "message"),
    [
        (lambda checker: checker.called("a"), "'a' was begun already"),
        (lambda checker: checker.finish(), "calls never ended: 'a', 'b'"),
        (lambda checker: checker.executed("c"), "'c' came out of nowhere"),
        (
            lambda checker: [checker.abandoned("a"), checker.failed("a", MAYBE)],
            "'a' ended twice: with nothing, then with CallInterrupted, maybe executed",
        ),
    ],
)
def test_every_call_ends_once(misdeed: Callable[[CallChecker], object], message: str) -> None:
    checker = CallChecker()
    checker.called("a")
    checker.called("b")
    assert checker.pending == ("a", "b")
    with pytest.raises(Violation, match=message):
        misdeed(checker)


@given(steps=st.lists(st.tuples(st.sampled_from("ab"), st.integers(-10, 10))))
def test_credit_agrees_with_its_definition(steps: list[tuple[str, int]]) -> None:
    checker = CreditChecker(window=10, largest_message=4)
    unread = {"a": 0, "b": 0}
    for channel, size in steps:
        unread[channel] += size
        act, message = (checker.arrived, "are unread") if size > 0 else (checker.read, "more were read than")
        if 0 <= unread[channel] <= 14:
            act(channel, abs(size))
        else:
            with pytest.raises(Violation, match=f"channel '{channel}': .* {message}"):
                act(channel, abs(size))
            return


async def test_leaks_are_named() -> None:
    held: list[int] = [0]
    checker = LeakChecker({"things": lambda: len(held)})
    checker.check()
    held.clear()
    checker.check()
    held += [1, 2, 3]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        with pytest.raises(
            Violation, match=r"left behind: tasks \(\d+ before, \d+ now\), things \(1 before, 3"
        ):
            checker.check()
        nursery.cancel_scope.cancel()
    assert checker.grown() == {"things": (1, 3)}


def test_checkers_in_a_world() -> None:
    """A server that is gone leaves nothing at its client, and a client nothing at its server."""

    async def main(world: World) -> None:
        world.node("server").start(serve)
        await trio.sleep(0.1)
        leaks = LeakChecker({"connections": lambda: world.link("server", "world").connections})

        def nothing_left() -> bool:
            leaks.check()
            return True

        async with heartline.open_connection("memory://server") as connection:
            assert await connection.service(Adder).add(1, 2) == 3
            with pytest.raises(NotConverged, match=r"left behind: tasks .* connections \(0 before, 1 now\)"):
                await world.heal_and_settle(nothing_left, within=1)
        await world.heal_and_settle(nothing_left, within=1)

    World(1).run(main)
