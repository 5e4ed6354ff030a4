"""Hooks by themselves: who is asked, once, in which order; what is absent is not there at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio

from heartline import ConfigurationError, Observer, Operation
from heartline.observe import Hooks, Proceed, Watch

EVENTS = [name for name in vars(Observer) if not name.startswith("_")]

CALL = Operation(kind="call", name="Any.thing", peer="ada", subject=((), {}))


class Deaf(Observer):
    """Overrides nothing."""


class Listening(Observer):
    """Wants to know one thing."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def update_published(self, topic: str, offset: int, size: int) -> None:
        self.heard.append((topic, offset, size))


class Broken(Observer):
    """Has a bug in every method."""


def _raise(*_what: object, **_more: object) -> None:
    raise ZeroDivisionError


for event in EVENTS:
    setattr(Broken, event, _raise)


async def _operate() -> str:
    return "done"


class _Middleware:
    async def __call__(self, operation: Operation, proceed: Proceed) -> Any:
        return await proceed()

    async def go_on(self, operation: Operation, proceed: Proceed) -> Any:
        return await proceed()

    def plain(self, operation: Operation, proceed: Proceed) -> None: ...


def _plain(operation: Operation, proceed: Proceed) -> None: ...


def _named(name: str, order: list[str]) -> Callable[[Operation, Proceed], Awaitable[Any]]:
    async def middleware(_operation: Operation, proceed: Proceed) -> Any:
        order.append(name)
        result = await proceed()
        order.append(f"{name} again")
        return f"{result}, {name}"

    return middleware


class TestObservers:
    @pytest.mark.parametrize("event", EVENTS)
    @pytest.mark.parametrize("observers", [(), (Observer(),), (Deaf(), Deaf())])
    def test_nobody_is_told_what_nobody_wants_to_know(
        self, event: str, observers: tuple[Observer, ...]
    ) -> None:
        assert Hooks(observers=observers).tell(event) is None

    def test_only_the_methods_that_are_there_are_called(self) -> None:
        listening = Listening()
        hooks = Hooks(observers=[Deaf(), listening])
        tell = hooks.tell("update_published")
        assert tell is not None
        tell("t", 1, 2)
        assert listening.heard == [("t", 1, 2)]
        assert [event for event in EVENTS if hooks.tell(event)] == ["update_published"]

    def test_one_that_raises_changes_nothing_for_the_next(self, caplog: pytest.LogCaptureFixture) -> None:
        listening = Listening()
        tell = Hooks(observers=[Broken(), listening]).tell("update_published")
        assert tell is not None
        tell("t", 1, 2)
        assert listening.heard == [("t", 1, 2)]
        assert [(r.name, r.levelname) for r in caplog.records] == [("heartline.observe", "ERROR")]
        assert "an observer raised in update_published" in caplog.text

    @pytest.mark.parametrize("error", [None, ValueError(), trio.TooSlowError()])
    async def test_a_watch_tells_the_seconds_and_the_error(
        self, error: Exception | None, autojump_clock: object
    ) -> None:
        told = []
        with suppress(Exception), Watch(lambda *what: told.append(what), "call"):
            await trio.sleep(3)
            if error is not None:
                raise error
        assert told == [("call", 3, error)]

    def test_what_is_not_one_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"must be heartline\.Observer objects, not 5"):
            Hooks(observers=[5])  # type: ignore[list-item]
        with pytest.raises(ConfigurationError, match=r"must be async functions: .*, not 'x'"):
            Hooks(middleware=["x"])  # type: ignore[list-item]

    def test_what_is_not_in_a_list_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"^observers must be a list: observers=\[\.\.\.\], not"):
            Hooks(observers=Observer())  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"^middleware must be a list: .*, not <function"):
            Hooks(middleware=lambda: None)  # type: ignore[arg-type]

    @pytest.mark.parametrize("plain", [_plain, partial(_plain), _Middleware().plain, Observer])
    def test_middleware_is_async(self, plain: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"must be async functions: async def .*, not"):
            Hooks([plain])

    @pytest.mark.parametrize(
        "one", [_Middleware(), _Middleware().go_on, partial(_Middleware()), partial(_Middleware().go_on)]
    )
    async def test_anything_async_is_middleware(self, one: Any) -> None:
        assert await Hooks([one]).around(CALL, _operate) == "done"


class TestMiddleware:
    async def test_the_first_is_the_outermost(self) -> None:
        order: list[str] = []
        hooks = Hooks([_named("a", order), _named("b", order)])
        assert await hooks.around(CALL, _operate) == "done, b, a"
        assert order == ["a", "b", "b again", "a again"]

    async def test_nobody_goes_on_twice(self) -> None:
        async def twice(_operation: Operation, proceed: Proceed) -> Any:
            await proceed()
            return await proceed()

        count = []

        async def operate() -> None:
            count.append(1)

        with pytest.raises(RuntimeError, match=r"went on with call 'Any\.thing' twice, or too late"):
            await Hooks([twice]).around(CALL, operate)
        assert count == [1]

    async def test_nobody_goes_on_when_it_is_over(self) -> None:
        kept = []

        async def late(_operation: Operation, proceed: Proceed) -> Any:
            kept.append(proceed)
            return "early"

        assert await Hooks([late]).around(CALL, _operate) == "early"
        with pytest.raises(RuntimeError, match="too late"):
            await kept[0]()

    async def test_the_only_error_of_a_nursery_comes_out_by_itself(self) -> None:
        async def in_nursery(_operation: Operation, proceed: Proceed) -> Any:
            async with trio.open_nursery(strict_exception_groups=True):
                return await proceed()

        async def fail() -> None:
            raise PermissionError("no")

        with pytest.raises(PermissionError, match="no"):
            await Hooks([in_nursery, in_nursery]).around(CALL, fail)

    async def test_two_errors_stay_a_group(self) -> None:
        async def two(_operation: Operation, _proceed: Proceed) -> Any:
            raise ExceptionGroup("two", [ValueError(), PermissionError()])

        with pytest.raises(ExceptionGroup, match="two"):
            await Hooks([two]).around(CALL, _operate)

    async def test_a_guarded_operation_keeps_its_result(self) -> None:
        async def forgets(_operation: Operation, proceed: Proceed) -> Any:
            await proceed()

        assert await Hooks([forgets]).guard(CALL, _operate) == "done"

    async def test_a_guarded_operation_that_was_not_done_is_refused(self) -> None:
        async def skips(_operation: Operation, _proceed: Proceed) -> Any:
            return "something else"

        with pytest.raises(PermissionError, match=r"did not go on with call 'Any\.thing'"):
            await Hooks([skips]).guard(CALL, _operate)
