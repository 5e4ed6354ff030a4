"""Which failed calls are made again, how often, and when."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.lowlevel
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline import Backoff, Connection, Limits, Retry, method, service
from heartline.errors import (
    CallError,
    CallInterrupted,
    CallTimeout,
    ConfigurationError,
    Forbidden,
    InvalidArguments,
    Outcome,
    Overloaded,
    RemoteError,
    UnknownMethod,
)
from heartline.rpc._faults import Fault, encode_fault
from heartline.wire import Frame, FrameType
from tests.engine import link_of
from tests.rpc.helpers import QUIET, cut, open_pair, raw_server, run

FIXED = Backoff(initial=1.0, factor=1.0, maximum=1.0)


@service
class Job:
    async def once(self) -> str: ...  # type: ignore[empty-body]

    @method(idempotent=True)
    async def again(self) -> str: ...  # type: ignore[empty-body]

    @method(idempotent=True, timeout=1)
    async def short(self) -> str: ...  # type: ignore[empty-body]


class Script:
    """A peer that fails calls as it is told, then answers; it keeps the times of the calls."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = list(kinds)
        self.times: list[float] = []

    @asynccontextmanager
    async def play(self, seed: int = 0) -> AsyncIterator[Connection]:
        async with raw_server(rng=random.Random(seed)) as (client, peer), trio.open_nursery() as nursery:

            @nursery.start_soon
            async def answer() -> None:
                while True:
                    frame = await peer.receive()
                    if frame.type != FrameType.CALL:
                        continue
                    self.times.append(trio.current_time())
                    kind = self.kinds.pop(0) if self.kinds else "result"
                    if kind == "result":
                        await peer.result(frame.id, "done")
                    elif kind != "silence":
                        payload = encode_fault(Fault(kind, "told so"))
                        await peer.send(Frame(FrameType.FAULT, id=frame.id, payload=payload))

            yield client
            nursery.cancel_scope.cancel()


FAULTS: dict[str, type[CallError]] = {
    "overloaded": Overloaded,
    "timeout": CallTimeout,
    "raised": RemoteError,
    "arguments": InvalidArguments,
    "unknown": UnknownMethod,
    "forbidden": Forbidden,
}
RETRIED_ALWAYS = {"overloaded"}
RETRIED_IF_IDEMPOTENT = {"overloaded", "timeout"}


class TestWhatIsRetried:
    @pytest.mark.parametrize("kind", FAULTS)
    @pytest.mark.parametrize("name", ["once", "again"])
    async def test_by_declaration(self, kind: str, name: str, autojump_clock: MockClock) -> None:
        allowed = RETRIED_ALWAYS if name == "once" else RETRIED_IF_IDEMPOTENT
        script = Script(kind)
        async with script.play() as client:
            call = getattr(client.service(Job, retry=Retry(backoff=FIXED)), name)
            if kind in allowed:
                assert await call() == "done"
            else:
                with pytest.raises(FAULTS[kind]):
                    await call()
            assert len(script.times) == 1 + (kind in allowed)

    @pytest.mark.parametrize("idempotent", [True, False])
    async def test_by_name_the_caller_says_it(self, idempotent: bool, autojump_clock: MockClock) -> None:
        script = Script("timeout")
        async with script.play() as client:
            job = client.service("Job", retry=Retry(backoff=FIXED, idempotent=idempotent))
            if idempotent:
                assert await job.once() == "done"
            else:
                with pytest.raises(CallTimeout):
                    await job.once()

    @pytest.mark.parametrize("kind", FAULTS)
    async def test_nothing_without_a_policy(self, kind: str) -> None:
        script = Script(kind)
        async with script.play() as client:
            with pytest.raises(FAULTS[kind]):
                await client.service(Job).again()
            assert len(script.times) == 1

    async def test_the_methods_own_timeout(self, autojump_clock: MockClock) -> None:
        """It is for each attempt; the caller's deadline is for all of them."""
        script = Script("silence", "silence")
        async with script.play() as client:
            assert await client.service(Job, retry=Retry(backoff=FIXED)).short() == "done"
            assert 2 <= script.times[2] <= 4

    async def test_the_callers_deadline_ends_it(self, autojump_clock: MockClock) -> None:
        script = Script(*["silence"] * 99)
        async with script.play() as client:
            with trio.move_on_after(10):
                await client.service(Job, retry=Retry(attempts=99, backoff=FIXED)).short()
            assert trio.current_time() == 10

    async def test_a_lost_link(self, autojump_clock: MockClock) -> None:
        """A call that may have been executed is repeated on the new link only if that does no harm."""
        begun: list[str] = []

        @service(name="Job")
        class Loses:
            async def once(self) -> str:
                return await self.again()

            @method(idempotent=True)
            async def again(self) -> str:
                begun.append("x")
                if len(begun) == 1:
                    cut(heartline.current_connection())
                    await trio.sleep_forever()
                return "done"

        for name, expected in (("again", 2), ("once", 1)):
            begun.clear()
            async with open_pair(Loses(), reconnect=Backoff(initial=0.01)) as (client, _):
                call = getattr(client.service(Job, retry=Retry(backoff=FIXED)), name)
                if name == "again":
                    assert await call() == "done"
                else:
                    with pytest.raises(CallInterrupted) as info:
                        await call()
                    assert info.value.outcome is Outcome.MAYBE_EXECUTED
            assert len(begun) == expected

    async def test_what_was_not_sent_waits_for_the_next_link(self, autojump_clock: MockClock) -> None:
        """However long the server is away, unless the caller has a deadline."""
        begun: list[str] = []

        @service(name="Job")
        class Answers:
            async def once(self) -> str:
                begun.append("x")
                return "done"

        async def serve(start: float, end: float) -> None:
            await trio.sleep_until(start)
            with trio.move_on_at(end):
                await heartline.serve("memory://home", services=[Answers()], heartbeat=QUIET)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, 0, 10)
            nursery.start_soon(serve, 1000, 2000)
            await trio.testing.wait_all_tasks_blocked()
            async with heartline.open_connection("memory://home", heartbeat=QUIET) as client:
                await trio.sleep(20)
                job = client.service(Job, retry=Retry(attempts=2, backoff=FIXED))
                with trio.move_on_after(100) as impatient:
                    await job.once()
                assert impatient.cancelled_caught
                assert await job.once() == "done"
                assert trio.current_time() >= 1000
                assert begun == ["x"]
            nursery.cancel_scope.cancel()

    async def test_nothing_is_repeated_on_a_closed_connection(self, autojump_clock: MockClock) -> None:
        async with open_pair() as (client, _):
            await client.aclose()
            start = trio.current_time()
            with pytest.raises(CallInterrupted):
                await client.service(Job, retry=Retry(backoff=FIXED)).once()
            assert trio.current_time() == start

    async def test_the_outcome_is_that_of_all_attempts(self, autojump_clock: MockClock) -> None:
        """The last attempt was not sent; the first may have been executed."""

        @service(name="Job")
        class Loses:
            @method(idempotent=True)
            async def again(self) -> str:
                cut(heartline.current_connection())
                await trio.sleep_forever()
                return ""

        async def close_later(client: Connection) -> None:
            await trio.sleep(10)
            await client.aclose()

        reconnect = Backoff(initial=1000, maximum=1000)
        async with open_pair(Loses(), reconnect=reconnect, rng=random.Random(1)) as (client, _):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(close_later, client)
                with pytest.raises(CallInterrupted, match="was not called") as info:
                    await client.service(Job, retry=Retry(backoff=FIXED)).again()
            assert info.value.outcome is Outcome.MAYBE_EXECUTED
            assert trio.current_time() == pytest.approx(10, abs=4)


class TestAttemptsAndDelays:
    @given(attempts=st.integers(1, 6), failures=st.integers(0, 8))
    def test_the_number_of_attempts(self, attempts: int, failures: int) -> None:
        async def main() -> None:
            script = Script(*["overloaded"] * failures)
            async with script.play() as client:
                call = client.service(Job, retry=Retry(attempts=attempts, backoff=FIXED)).once
                if failures < attempts:
                    assert await call() == "done"
                else:
                    with pytest.raises(Overloaded):
                        await call()
            assert len(script.times) == min(attempts, failures + 1)

        run(main)

    async def test_the_delays_are_those_of_the_backoff(self, autojump_clock: MockClock) -> None:
        backoff = Backoff(initial=0.1, maximum=1.0, factor=3)
        script = Script(*["overloaded"] * 5)
        async with script.play(seed=7) as client:
            await client.service(Job, retry=Retry(attempts=6, backoff=backoff)).once()
        rng = random.Random(7)
        rng.random()  # where the shares of the heartbeats begin
        expected = [delay for delay, _ in zip(backoff.delays(rng), range(5), strict=False)]
        delays = [b - a for a, b in zip(script.times, script.times[1:], strict=False)]
        assert delays == pytest.approx(expected)
        assert max(delays) > 0.1, "the ceiling grows"

    async def test_calls_do_not_share_their_backoff(self, autojump_clock: MockClock) -> None:
        script = Script("overloaded", "overloaded", "result", "overloaded")
        backoff = Backoff(initial=1, factor=100, maximum=1e4)
        async with script.play() as client:
            job = client.service(Job, retry=Retry(backoff=backoff))
            await job.once()
            start = trio.current_time()
            await job.once()
            assert trio.current_time() - start <= 1

    async def test_an_overloaded_peer_for_real(self, autojump_clock: MockClock) -> None:
        """A caller that ignores the peer's limit: its retries get through in time."""

        @service(name="Job")
        class Busy:
            async def once(self) -> str:
                await trio.sleep(1)
                return "done"

        async with (
            heartline.open_server(
                "memory://", services=[Busy()], limits=Limits(calls=2), heartbeat=QUIET
            ) as server,
            heartline.open_connection(server.urls[0], heartbeat=QUIET) as client,
        ):
            await trio.testing.wait_all_tasks_blocked()
            link = link_of(client)
            link.peer_limits = heartline.session.PeerLimits.of(Limits())
            results: list[Any] = []

            async def call() -> None:
                results.append(await client.service(Job, retry=Retry(attempts=50)).once())

            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(call)
            assert results == ["done"] * 10
            assert trio.current_time() >= 5


@pytest.mark.parametrize("attempts", [0, -1, 1.5, "3", None])
def test_attempts_are_counted(attempts: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Retry\.attempts must be at least 1"):
        Retry(attempts=attempts)


@pytest.mark.parametrize("backoff", [Backoff(attempts=3), 1.0, None])
def test_the_backoff_does_not_count_too(backoff: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Retry\.backoff must be a Backoff without attempts"):
        Retry(backoff=backoff)
