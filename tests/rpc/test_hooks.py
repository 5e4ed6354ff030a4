"""Middleware and observers around calls, in both directions: every call still ends, and with the truth."""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given
from trio.testing import MockClock

import heartline
from heartline import (
    CallError,
    CallTimeout,
    Connection,
    InvalidArguments,
    Middleware,
    Observer,
    Operation,
    Outcome,
    Overloaded,
    RemoteError,
    Retry,
)
from heartline.observe import Hooks, Proceed
from heartline.rpc._hooked import hook
from heartline.rpc._log import MethodLog
from heartline.rpc._methods import describe
from heartline.rpc._table import Bound
from tests.engine import core_of
from tests.rpc.helpers import QUIET, run, settle
from tests.small_middleware import Journal, TokenBucket

SIDES = ("server", "client")


@heartline.service
class Work:
    """Counts what was executed."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.threads: set[int] = set()

    def inline(self) -> str:
        self.done.append("inline")
        return "inline"

    async def task(self, seconds: float = 0.0) -> str:
        await trio.sleep(seconds)
        self.done.append("task")
        return "task"

    @heartline.method(thread=True)
    def thread(self) -> str:
        self.done.append("thread")
        self.threads.add(threading.get_ident())
        return "thread"

    async def overloaded(self) -> None:
        self.done.append("overloaded")
        raise Overloaded("another one's")

    def fail(self) -> None:
        raise ValueError("broken")


@asynccontextmanager
async def open_caller(
    side: str, work: Work, middleware: Sequence[Middleware] = (), observers: Sequence[Observer] = ()
) -> AsyncIterator[tuple[Connection, Connection]]:
    """The connection that calls, and the other end: the given side serves, and has the hooks."""
    hooked: dict[str, Any] = {"services": [work], "middleware": middleware, "observers": observers}
    server_settings, client_settings = (hooked, {}) if side == "server" else ({}, hooked)
    async with (
        heartline.open_server("memory://", heartbeat=QUIET, **server_settings) as server,
        heartline.open_connection(server.urls[0], heartbeat=QUIET, **client_settings) as client,
    ):
        there = server.connections[client.id]
        yield (client, there) if side == "server" else (there, client)


class Heard(Observer):
    """Writes down what it is told of calls."""

    def __init__(self) -> None:
        self.served: list[tuple[str, float, str | None]] = []
        self.made: list[tuple[str, float, str | None]] = []

    def call_served(self, name: str, seconds: float, error: BaseException | None) -> None:
        self.served.append((name, seconds, None if error is None else type(error).__name__))

    def call_made(self, name: str, seconds: float, error: BaseException | None) -> None:
        self.made.append((name, seconds, None if error is None else type(error).__name__))


async def pass_on(_operation: Operation, proceed: Proceed) -> Any:
    return await proceed()


class TestNoneCostsNone:
    def test_without_hooks_a_method_is_not_wrapped(self) -> None:
        class Unconcerned(Observer):
            def connection_opened(self, connection: Any) -> None:
                pass

        work = Work()
        for spec in describe(Work).values():
            bound = Bound(spec, spec.function.__get__(work), spec.mode, MethodLog(spec.name))
            assert hook(Hooks(), bound, spec.name) is bound
            assert hook(Hooks(observers=[Unconcerned()]), bound, spec.name) is bound

    async def test_without_observers_a_proxy_is_not_wrapped(self) -> None:
        async with open_caller("server", Work()) as (caller, _there):
            assert type(caller.service(Work).task) is heartline.rpc.RemoteMethod

    def test_an_observer_leaves_an_inline_method_inline(self) -> None:
        spec = describe(Work)["inline"]
        bound = Bound(spec, spec.function.__get__(Work()), spec.mode, MethodLog(spec.name))
        assert hook(Hooks(observers=[Heard()]), bound, "inline").mode is spec.mode


@pytest.mark.parametrize("side", SIDES)
class TestMiddleware:
    @pytest.mark.parametrize("name", ["inline", "task", "thread"])
    async def test_it_sees_every_kind_of_method(self, side: str, name: str) -> None:
        seen = []

        async def look(operation: Operation, proceed: Proceed) -> Any:
            if operation.kind == "call":
                seen.append((operation, heartline.current_connection().id))
            return await proceed()

        work, heard = Work(), Heard()
        async with open_caller(side, work, [look], [heard]) as (caller, there):
            assert await getattr(caller.service("Work"), name)() == name
            operation = Operation(kind="call", name=f"Work.{name}", peer=there.id, subject=((), {}))
            assert seen == [(operation, there.id)]
        assert [(called, error) for called, _seconds, error in heard.served] == [(f"Work.{name}", None)]
        assert threading.get_ident() not in work.threads

    async def test_it_changes_the_result(self, side: str) -> None:
        async def shout(operation: Operation, proceed: Proceed) -> Any:
            result = await proceed()
            return result.upper() if operation.kind == "call" else result

        async with open_caller(side, Work(), [shout]) as (caller, _there):
            assert await caller.service(Work).task() == "TASK"

    async def test_a_result_that_cannot_be_sent_is_an_error_of_the_call(self, side: str) -> None:
        async def spoil(_operation: Operation, proceed: Proceed) -> Any:
            await proceed()
            return object()

        async with open_caller(side, Work(), [spoil]) as (caller, _there):
            with pytest.raises(RemoteError, match="SerializationError"):
                await caller.service(Work).task()

    @pytest.mark.parametrize("name", ["inline", "task", "thread"])
    async def test_refused_before_it_ran_is_overloaded_and_can_be_repeated(
        self, side: str, name: str
    ) -> None:
        async def refuse(operation: Operation, proceed: Proceed) -> Any:
            if operation.kind == "call":
                raise Overloaded("not today")
            return await proceed()

        work = Work()
        async with open_caller(side, work, [refuse]) as (caller, _there):
            with pytest.raises(Overloaded, match=rf"^Work\.{name}: not today$") as caught:
                await getattr(caller.service("Work"), name)()
            assert caught.value.outcome is Outcome.COMPLETED
        assert not work.done

    @pytest.mark.parametrize("after", [False, True])
    async def test_overloaded_after_it_ran_does_not_claim_that_it_did_not(
        self, side: str, after: bool
    ) -> None:
        async def refuse(operation: Operation, proceed: Proceed) -> Any:
            result = await proceed()
            if operation.kind == "call" and after:
                raise Overloaded("too late")
            return result

        work = Work()
        async with open_caller(side, work, [refuse]) as (caller, _there):
            method = caller.service(Work).task if after else caller.service(Work).overloaded
            with pytest.raises(RemoteError, match="Overloaded"):
                await method()
        assert len(work.done) == 1

    async def test_a_deadline_holds_for_it_too(self, side: str, autojump_clock: MockClock) -> None:
        left = []

        async def delay(operation: Operation, proceed: Proceed) -> Any:
            if operation.kind == "call":
                left.append(trio.current_effective_deadline() - trio.current_time())
                await trio.sleep(1)
            return await proceed()

        work = Work()
        async with open_caller(side, work, [delay]) as (caller, _there):
            with trio.fail_after(3):
                assert await caller.service(Work).task(1) == "task"
            with pytest.raises(trio.TooSlowError), trio.fail_after(1.5):
                await caller.service(Work).task(1)
            await trio.sleep(3)
        assert work.done == ["task"]
        assert left == pytest.approx([3, 1.5], abs=0.01)

    async def test_the_callers_cancellation_reaches_it(self, side: str, autojump_clock: MockClock) -> None:
        ends = []

        async def wait(operation: Operation, proceed: Proceed) -> Any:
            if operation.kind == "call":
                try:
                    await trio.sleep_forever()
                finally:
                    ends.append(trio.current_time())
            return await proceed()

        heard, work = Heard(), Work()
        async with open_caller(side, work, [wait], [heard]) as (caller, there):
            start = trio.current_time()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(caller.service(Work).task)
                    await trio.sleep(2)
                    scope.cancel()
            await settle()
            assert ends == [start + 2]
            assert core_of(there).idle
        assert heard.served == [("Work.task", 2, "Cancelled")]

    async def test_a_drain_waits_for_it(self, side: str, autojump_clock: MockClock) -> None:
        async def wait(operation: Operation, proceed: Proceed) -> Any:
            if operation.kind == "call":
                await trio.sleep(5)
            return await proceed()

        async with (
            heartline.open_server("memory://", services=[Work()], middleware=[wait]) as server,
            heartline.open_connection(server.urls[0], reconnect=None) as client,
            trio.open_nursery() as nursery,
        ):
            results = []

            async def call() -> None:
                results.append(await client.service(Work).task())

            nursery.start_soon(call)
            await trio.sleep(1)
            assert await server.drain(30)
            await settle()
            assert results == ["task"]
            assert trio.current_time() < 30

    async def test_what_is_built_in_is_no_call(self, side: str) -> None:
        journal, heard = Journal(), Heard()
        async with (
            heartline.open_server("memory://", middleware=[journal], observers=[heard]) as server,
            heartline.open_connection(server.urls[0], observers=[heard]) as client,
            client.subscribe("t"),
        ):
            pass
        assert journal.lines == ["admission ", "subscribe t"]
        assert not heard.served
        assert not heard.made


@pytest.mark.parametrize("side", SIDES)
class TestThreeSmallOnes:
    async def test_a_journal(self, side: str, autojump_clock: MockClock) -> None:
        journal = Journal()
        async with open_caller(side, Work(), [journal]) as (caller, _there):
            work = caller.service(Work)
            await work.task()
            with pytest.raises(RemoteError):
                await caller.service("Work").fail()
            with trio.move_on_after(1):
                await work.task(2)
            await trio.sleep(1)
        calls = [line for line in journal.lines if line.startswith("call")]
        assert calls == ["call Work.task", "call Work.fail: ValueError", "call Work.task: Cancelled"]

    async def test_a_token_bucket_that_refuses(self, side: str, autojump_clock: MockClock) -> None:
        async with open_caller(side, Work(), [TokenBucket(rate=2, size=3)]) as (caller, _there):
            method = caller.service(Work).task
            for _ in range(2):
                for _ in range(3):
                    await method()
                with pytest.raises(Overloaded, match="2 calls a second"):
                    await method()
                await trio.sleep(1.5)

    async def test_a_token_bucket_that_delays(self, side: str, autojump_clock: MockClock) -> None:
        async with open_caller(side, Work(), [TokenBucket(rate=2, size=1, wait=True)]) as (caller, _there):
            method, start = caller.service(Work).task, trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(9):
                    nursery.start_soon(method)
            assert trio.current_time() - start == pytest.approx(4)


async def test_a_token_bucket_is_that_of_one_peer(autojump_clock: MockClock) -> None:
    bucket = TokenBucket(rate=1, size=1)
    async with heartline.open_server("memory://", services=[Work()], middleware=[bucket]) as server:
        for name in ("ada", "ben"):
            async with heartline.open_connection(server.urls[0], identity=name) as client:
                assert await client.service(Work).task() == "task"
                with pytest.raises(Overloaded):
                    await client.service(Work).task()


class TestObservers:
    async def test_both_ends_hear_of_a_call(self, autojump_clock: MockClock) -> None:
        here, there = Heard(), Heard()
        async with (
            heartline.open_server("memory://", services=[Work()], observers=[there]) as server,
            heartline.open_connection(server.urls[0], observers=[here]) as client,
        ):
            await client.service(Work).task(2)
            await heartline.remote(client.service(Work).inline)()
            with pytest.raises(RemoteError):
                await client.service("Work").fail()
            with pytest.raises(heartline.UnknownMethod):
                await client.service("Work").nothing()
        told = [("Work.task", 2, None), ("Work.inline", 0, None)]
        assert here.made == [*told, ("Work.fail", 0, "RemoteError"), ("Work.nothing", 0, "UnknownMethod")]
        assert there.served == [*told, ("Work.fail", 0, "ValueError")]
        assert not here.served
        assert not there.made

    async def test_a_call_with_retries_is_one(self, autojump_clock: MockClock) -> None:
        heard = Heard()
        async with (
            heartline.open_server(
                "memory://", services=[Work()], middleware=[TokenBucket(rate=1, size=1)]
            ) as server,
            heartline.open_connection(server.urls[0], observers=[heard]) as client,
        ):
            work = client.service(Work, retry=Retry(attempts=10))
            await work.task()
            await work.task()
        assert [(name, error) for name, _seconds, error in heard.made] == [("Work.task", None)] * 2

    async def test_one_that_raises_changes_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(Observer):
            def call_served(self, name: str, seconds: float, error: BaseException | None) -> None:
                raise ZeroDivisionError

            call_made = call_served

        async with (
            heartline.open_server("memory://", services=[Work()], observers=[Broken()]) as server,
            heartline.open_connection(server.urls[0], observers=[Broken()]) as client,
        ):
            assert await client.service(Work).task() == "task"
            with pytest.raises(RemoteError, match="ValueError: broken"):
                await client.service("Work").fail()
        assert sum(record.name == "heartline.observe" for record in caplog.records) == 4

    async def test_a_refusal_is_seen_as_what_it_is(self) -> None:
        errors = []

        class Errors(Observer):
            def call_served(self, name: str, seconds: float, error: BaseException | None) -> None:
                errors.append(error)

        async with open_caller("server", Work(), [TokenBucket(rate=1, size=0)], [Errors()]) as (caller, _):
            with pytest.raises(Overloaded):
                await caller.service(Work).task()
        (error,) = errors
        assert type(error) is Overloaded


# Whatever middleware does

STEPS = st.one_of(
    st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.5, 2.0])),
    st.tuples(st.just("shield"), st.sampled_from([0.5, 2.0])),
    st.tuples(st.just("go on"), st.sampled_from([0.0, 0.2, 1.0])),
    st.tuples(st.sampled_from(["swallow", "change", "forbid", "overload", "invalid", "break"]), st.just(0.0)),
)


ERRORS: dict[str, Exception] = {
    "forbid": PermissionError("no"),
    "overload": Overloaded("not now"),
    "invalid": InvalidArguments("odd", outcome=Outcome.NOT_SENT),
    "break": ExceptionGroup("broken", [ZeroDivisionError(), ValueError()]),
}


class Whim:
    """Does to each call what its script says."""

    def __init__(self, steps: list[tuple[str, float]]) -> None:
        self.steps = steps

    async def __call__(self, operation: Operation, proceed: Proceed) -> Any:
        if operation.name != "Work.task":
            return await proceed()
        result: Any = None
        for step, seconds in self.steps:
            if step in ERRORS:
                raise ERRORS[step]
            if step == "change":
                result = "changed"
            elif step == "sleep":
                await trio.sleep(seconds)
            elif step == "shield":
                with trio.CancelScope(shield=True):
                    await trio.sleep(seconds)
            elif step == "swallow":
                with suppress(Exception):
                    result = await proceed()
            else:
                with trio.move_on_after(seconds or math.inf):
                    result = await proceed()
        return result


@given(
    side=st.sampled_from(SIDES),
    scripts=st.lists(st.lists(STEPS, max_size=4), min_size=1, max_size=3),
    calls=st.lists(
        st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.7, 1.5, 60.0])),
        min_size=1,
        max_size=4,
    ),
)
def test_whatever_it_does_every_call_ends_truthfully(
    side: str, scripts: list[list[tuple[str, float]]], calls: list[tuple[float, float]]
) -> None:
    async def main() -> None:
        work = Work()
        whims = [Whim(script) for script in scripts]
        async with open_caller(side, work, whims) as (caller, there):
            for seconds, patience in calls:
                await _check_call(caller, work, seconds, patience)
            await trio.sleep(60)
            assert core_of(there).idle
            assert core_of(caller).idle
            assert await caller.service("Work").inline() == "inline"

    run(main)


async def _check_call(caller: Connection, work: Work, seconds: float, patience: float) -> None:
    before, start = len(work.done), trio.current_time()
    error: CallError | None = None
    with trio.move_on_after(patience) as scope:
        try:
            assert await caller.service(Work).task(seconds) in ("task", "changed", None)
        except CallError as raised:
            error = raised
    assert trio.current_time() <= start + patience
    executed = len(work.done) - before
    assert executed <= 1
    if isinstance(error, CallTimeout):
        assert error.outcome is Outcome.MAYBE_EXECUTED
    elif error is not None:
        assert error.outcome is Outcome.COMPLETED
    if isinstance(error, Overloaded):
        assert not executed
    await trio.sleep(30)
    if not scope.cancelled_caught and not isinstance(error, CallTimeout):
        assert len(work.done) - before == executed, "an answer is final"
