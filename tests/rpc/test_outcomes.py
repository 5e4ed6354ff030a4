"""Whatever makes a call fail, its caller gets a CallError that names the method and tells the truth."""

from __future__ import annotations

from typing import Any

import trio
from hypothesis import given
from hypothesis import strategies as st

from heartline import Connection, Limits, Retry, method, service
from heartline.errors import ApplicationError, CallError, Outcome, RemoteError
from heartline.testing import CallChecker
from tests.rpc.helpers import cut, open_pair, run

LIMIT = 64 * 1024
"""Bytes of a message, in either direction."""


class Unsendable:
    pass


ARGUMENTS: dict[str, Any] = {
    "fits": 1,
    "wrong": "text",
    "unsendable": Unsendable(),
    "too long": bytes(2 * LIMIT),
}
NEVER_SENT = {"unsendable", "too long"}
RESULTS: dict[str, Any] = {
    "fits": 1,
    "wrong": "text",
    "unsendable": Unsendable(),
    "too long": bytes(2 * LIMIT),
}
ERRORS: dict[str, Exception] = {
    "raises": ValueError("no"),
    "forbids": PermissionError("you may not"),
    "raises what callers expect": ApplicationError("sold out", code="sold out", data=[1]),
    "raises it with data that cannot be sent": ApplicationError("no", code="no", data=Unsendable()),
    "raises it with data that is too long": ApplicationError("no", code="no", data=bytes(LIMIT)),
    "raises a group": ExceptionGroup("many", [ValueError("one"), KeyError("two")]),
}


@service
class Trouble:
    """Its methods do as they are told, and note that they ran."""

    def __init__(self, checker: CallChecker) -> None:
        self.checker = checker

    def _end(self, number: int, end: str) -> Any:
        self.checker.executed(number)
        if end in ERRORS:
            raise ERRORS[end]
        return RESULTS[end]

    def inline(self, argument: int, number: int, seconds: float, end: str) -> int:
        result: int = self._end(number, end)
        return result

    async def task(self, argument: int, number: int, seconds: float, end: str) -> int:
        result: int = self._end(number, end)
        await trio.sleep(seconds)
        return result

    @method(timeout=1)
    async def short(self, argument: int, number: int, seconds: float, end: str) -> int:
        return await self.task(argument, number, seconds, end)


SECONDS = st.sampled_from([0.0, 0.5, 1.5, 3.0])
CALLS = st.tuples(
    st.sampled_from(["inline", "task", "short", "missing"]),
    st.sampled_from(sorted(ARGUMENTS)),
    SECONDS,
    st.sampled_from(sorted(RESULTS) + sorted(ERRORS)),
)


async def end_connection(client: Connection, server: Connection, how: str) -> None:
    if how == "cut":
        cut(client)
    elif how == "closed here":
        await client.aclose()
    elif how == "closed there":
        await server.aclose()


@given(
    calls=st.lists(st.tuples(SECONDS, CALLS), min_size=1, max_size=8),
    ends=st.sampled_from(["never", "cut", "closed here", "closed there"]),
    when=SECONDS,
    resume_window=st.sampled_from([0.0, 10.0]),
    retry=st.sampled_from([None, Retry()]),
    typed=st.booleans(),
)
def test_every_failure_is_a_call_error_with_a_true_outcome(
    calls: list[tuple[float, tuple[str, str, float, str]]],
    ends: str,
    when: float,
    resume_window: float,
    retry: Retry | None,
    typed: bool,
) -> None:
    checker = CallChecker()

    async def call(proxy: Any, number: int, start: float, how: tuple[str, str, float, str]) -> None:
        name, argument, seconds, end = how
        await trio.sleep(start)
        checker.called(number)
        failure: CallError | None = None
        try:
            await getattr(proxy, name)(ARGUMENTS[argument], number, seconds, end)
        except CallError as error:
            failure = error
        if failure is None:
            checker.returned(number)
        else:
            checker.failed(number, failure)
            assert str(failure).startswith(f"Trouble.{name}")
            assert failure.method == f"Trouble.{name}"
            if end == "raises what callers expect" and isinstance(failure, RemoteError):
                assert isinstance(failure, ApplicationError)
        if argument in NEVER_SENT:
            assert failure is not None
            assert failure.outcome is Outcome.NOT_SENT

    async def main() -> None:
        limits = Limits(frame_size=LIMIT, message_size=LIMIT, calls=2)
        async with (
            open_pair(Trouble(checker), limits=limits, resume_window=resume_window) as (client, server),
            trio.open_nursery() as nursery,
        ):
            for number, (start, how) in enumerate(calls):
                by_class = typed and how[0] != "missing"  # which has no such attribute
                proxy: Any = client.service(Trouble if by_class else "Trouble", retry=retry)
                nursery.start_soon(call, proxy, number, start, how)
            await trio.sleep(when)
            await end_connection(client, server, ends)
        checker.finish()

    run(main)
