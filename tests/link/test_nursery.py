"""The nursery that nobody sees: errors come out as they went in."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from heartline.link import open_plain_nursery
from tests.connection.helpers import no_leaks


class Problem(Exception):
    pass


async def fail(error: BaseException) -> None:
    raise error


async def test_the_bodys_error_is_itself() -> None:
    problem = Problem("mine")
    problem.__cause__ = KeyError("why")
    with no_leaks():
        with pytest.raises(Problem) as caught:
            async with open_plain_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise problem
        assert caught.value is problem
        assert isinstance(problem.__cause__, KeyError)


async def test_its_context_is_kept() -> None:
    with pytest.raises(Problem) as caught:
        async with open_plain_nursery():
            try:
                raise KeyError("first")
            except KeyError:
                raise Problem("then")  # noqa: B904 - the context is what is tested
    assert isinstance(caught.value.__context__, KeyError)
    assert not caught.value.__suppress_context__


async def test_a_tasks_error_is_bare_too_and_cancels_the_body() -> None:
    with pytest.raises(Problem):
        async with open_plain_nursery() as nursery:
            nursery.start_soon(fail, Problem())
            await trio.sleep_forever()


async def test_a_group_of_the_body_stays_a_group() -> None:
    """Also one of a single error: it is what the body raised."""
    group = ExceptionGroup("mine", [Problem()])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_plain_nursery():
            raise group
    assert caught.value.message == "mine"
    assert caught.value.exceptions == group.exceptions


async def test_several_errors_are_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(fail, KeyError())
            raise Problem
    assert {type(error) for error in caught.value.exceptions} == {Problem, KeyError}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_errors_that_are_no_exceptions_pass(error: type[BaseException]) -> None:
    with pytest.raises(error):
        async with open_plain_nursery():
            raise error


async def test_stop_iteration_passes() -> None:
    with pytest.raises(StopIteration):
        async with open_plain_nursery():
            raise StopIteration


@pytest.mark.parametrize("tasks", [0, 1, 5])
async def test_a_cancellation_from_outside_passes(tasks: int, autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        async with open_plain_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_cancellation_from_inside_ends_here() -> None:
    async with open_plain_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.cancel_scope.cancel()
        await trio.sleep_forever()


async def test_an_error_beside_a_cancellation_wins(autojump_clock: MockClock) -> None:
    async def stubborn() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Problem

    with trio.move_on_after(1), pytest.raises(Problem):
        async with open_plain_nursery() as nursery:
            nursery.start_soon(stubborn)
            await trio.sleep_forever()
