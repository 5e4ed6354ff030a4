"""Deadlines and cancellation: they reach the other side, and every handler's cleanup runs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import Connection, Limits, method, service
from heartline.errors import CallTimeout, Outcome
from heartline.rpc import Calls
from heartline.rpc._wire import LONGEST_TIMEOUT, decode_call, encode_call
from heartline.wire import CborSerializer, Frame, FrameType
from tests.engine import core_of
from tests.rpc.helpers import CBOR, open_pair, raw_server, run, settle


@service
class Slow:
    """Keeps a diary of what happens to its calls."""

    def __init__(self) -> None:
        self.diary: list[str] = []
        self.deadline = 0.0

    async def sleep(self, seconds: float) -> str:
        self.deadline = trio.current_effective_deadline()
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.diary.append(f"cancelled at {trio.current_time():g}")
            raise
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.25)
            self.diary.append("cleaned up")
        return "slept"

    @method(timeout=2)
    async def short(self, seconds: float) -> str:
        return await self.sleep(seconds)

    async def stubborn(self, seconds: float) -> str:
        """Does not let itself be cancelled."""
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
        self.diary.append("done")
        return "stubborn"

    def now(self) -> float:
        return trio.current_time()


class TestDeadlines:
    async def test_the_callers_deadline_is_the_handlers(self, autojump_clock: MockClock) -> None:
        slow = Slow()
        async with open_pair(slow) as (client, server):
            proxy: Any = client.service(Slow)
            with pytest.raises(trio.TooSlowError), trio.fail_after(3):
                await proxy.sleep(100)
            assert trio.current_time() == 3
            assert slow.deadline == pytest.approx(3, abs=0.01)
            assert slow.deadline >= 3, "never earlier than the caller's"
            await trio.sleep(1)
            assert slow.diary == ["cancelled at 3", "cleaned up"]
            assert core_of(client).idle
            assert core_of(server).idle

    async def test_the_nearest_of_several_scopes_counts(self, autojump_clock: MockClock) -> None:
        slow = Slow()
        async with open_pair(slow) as (client, _):
            proxy: Any = client.service(Slow)
            with trio.move_on_after(5), trio.move_on_after(2), trio.move_on_after(3):
                await proxy.sleep(100)
            assert slow.deadline == pytest.approx(2, abs=0.01)

    async def test_without_a_deadline_there_is_none(self, autojump_clock: MockClock) -> None:
        slow = Slow()
        async with open_pair(slow) as (client, _):
            proxy: Any = client.service(Slow)
            assert await proxy.sleep(1_000_000) == "slept"
            assert slow.deadline == math.inf

    @pytest.mark.parametrize("target", [Slow, "Slow"])
    async def test_the_methods_own_timeout(self, target: Any, autojump_clock: MockClock) -> None:
        """Enforced on both sides: by name the caller does not know of it."""
        slow = Slow()
        async with open_pair(slow) as (client, _):
            start = trio.current_time()
            with pytest.raises(CallTimeout, match=r"Slow\.short.*\(timeout: 2000 ms\)") as info:
                await client.service(target).short(100)
            assert info.value.timeout == 2
            assert info.value.outcome is Outcome.MAYBE_EXECUTED
            # By name it is the callee that says so, when its handler has cleaned up.
            assert trio.current_time() - start == pytest.approx(2 if target is Slow else 2.25, abs=0.01)
            await trio.sleep(1)
            assert slow.diary[1:] == ["cleaned up"]
            assert await client.service(target).short(1) == "slept"

    async def test_the_callers_deadline_may_be_earlier(self, autojump_clock: MockClock) -> None:
        async with open_pair(Slow()) as (client, _):
            proxy: Any = client.service(Slow)
            with pytest.raises(trio.TooSlowError), trio.fail_after(1):
                await proxy.short(100)

    async def test_the_peer_says_that_the_deadline_passed(self, autojump_clock: MockClock) -> None:
        """Seen where the caller extends its deadline when the call is out already."""
        slow = Slow()
        async with open_pair(slow) as (client, _), trio.open_nursery() as nursery:
            proxy: Any = client.service(Slow)
            scope = trio.CancelScope(deadline=1)

            async def call() -> None:
                with (
                    scope,
                    pytest.raises(CallTimeout, match=r"its deadline passed at the peer \(timeout: 1000 ms\)"),
                ):
                    await proxy.sleep(100)

            nursery.start_soon(call)
            await settle()
            scope.deadline = math.inf
        assert slow.diary == ["cancelled at 1", "cleaned up"]

    async def test_who_does_not_let_itself_be_cancelled_is_late(self, autojump_clock: MockClock) -> None:
        slow = Slow()
        async with open_pair(slow) as (client, _):
            proxy: Any = client.service(Slow)
            with trio.move_on_after(1) as scope:
                await proxy.stubborn(10)
            assert scope.cancelled_caught
            assert trio.current_time() == 1, "the caller does not wait for it"
            assert await proxy.now() == 1
            await trio.sleep(20)
            assert slow.diary == ["done"]
            assert core_of(client).idle

    @given(timeout=st.floats(0, 1e300))
    def test_a_timeout_never_comes_early(self, timeout: float) -> None:
        payload, _ = encode_call(CborSerializer(), "S.m", b"S.m", (), {}, timeout)
        _, decoded, *_ = decode_call(payload)
        assert decoded >= timeout
        if timeout < LONGEST_TIMEOUT:
            assert decoded <= timeout + 0.0011


class TestCancellation:
    async def test_the_handler_is_cancelled_and_cleans_up(self, autojump_clock: MockClock) -> None:
        slow = Slow()
        async with open_pair(slow) as (client, server):
            proxy: Any = client.service(Slow)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(proxy.sleep, 100)
                    await trio.sleep(1)
                    assert not core_of(server).idle
                    scope.cancel()
            assert trio.current_time() == 1
            await trio.sleep(1)
            assert sorted(slow.diary) == ["cancelled at 1"] * 3 + ["cleaned up"] * 3
            assert core_of(client).idle
            assert core_of(server).idle

    async def test_before_sending_nothing_is_sent(self, autojump_clock: MockClock) -> None:
        slow = Slow()
        async with open_pair(slow) as (client, _):
            proxy: Any = client.service(Slow)
            before = client.statistics().frames_sent
            with trio.CancelScope() as cancelled:
                cancelled.cancel()
                await proxy.sleep(0)
            with trio.move_on_after(0) as expired:
                await proxy.sleep(0)
            with trio.move_on_at(trio.current_time() - 5) as long_ago:
                await proxy.sleep(0)
            assert cancelled.cancelled_caught
            assert expired.cancelled_caught
            assert long_ago.cancelled_caught
            await settle()
            assert client.statistics().frames_sent == before
            assert slow.diary == []

    async def test_a_deadline_that_is_moved_at_the_last_moment(self, mock_clock: MockClock) -> None:
        """It has passed when the call begins, and in the same tick it is extended: then the call is made."""
        async with open_pair(Slow()) as (client, _):
            proxy: Any = client.service(Slow)
            results: list[float] = []

            async def call(scope: trio.CancelScope) -> None:
                with scope:
                    mock_clock.jump(2)
                    results.append(await proxy.now())

            async def extend(scope: trio.CancelScope) -> None:
                scope.deadline = math.inf

            for _ in range(40):  # the order within a tick is random
                scope = trio.CancelScope(deadline=trio.current_time() + 1)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call, scope)
                    nursery.start_soon(extend, scope)
            assert len(results) == 40

    async def test_a_call_is_a_checkpoint_even_without_a_link(self, autojump_clock: MockClock) -> None:
        async with open_pair(Slow()) as (client, _):
            proxy: Any = client.service(Slow)
            await client.aclose()
            with trio.CancelScope() as scope:
                scope.cancel()
                await proxy.now()
            assert scope.cancelled_caught

    async def test_late_results_are_ignored(self) -> None:
        """The answer and the CANCEL cross; the next call is not confused by it."""
        async with raw_server() as (client, peer), trio.open_nursery() as nursery:
            proxy = client.service("Anything")
            scope = trio.CancelScope()

            async def cancelled() -> None:
                with scope:
                    await proxy.first()

            nursery.start_soon(cancelled)
            first = await peer.receive()
            scope.cancel()
            cancel = await peer.receive()
            assert (cancel.type, cancel.id) == (FrameType.CANCEL, first.id)
            results = []

            async def call() -> None:
                results.append(await proxy.second())

            nursery.start_soon(call)
            second = await peer.receive()
            assert second.id != first.id
            await peer.result(first.id, "late")
            await settle()
            assert results == []
            await peer.result(second.id, "mine")
            await settle()
            assert results == ["mine"]

    async def test_a_result_and_the_cancellation_in_the_same_tick(self) -> None:
        """Whichever is first, the call ends once."""
        payload = b"\x01" + CBOR.encode(1, [])
        async with raw_server() as (client, peer):
            for cancel_first in (True, False):
                async with trio.open_nursery() as nursery:
                    scope = trio.CancelScope()

                    async def call(scope: trio.CancelScope = scope) -> None:
                        with scope:
                            assert await client.service("S").m() == 1

                    nursery.start_soon(call)
                    frame = await peer.receive()
                    if cancel_first:
                        scope.cancel()
                    result = Frame(FrameType.RESULT, id=frame.id, payload=payload)
                    core_of(client).part(Calls).on_frame(result)
                    scope.cancel()
                    await settle()
                assert core_of(client).idle

    async def test_the_deadline_that_passes_while_the_caller_waits_for_room(
        self, autojump_clock: MockClock
    ) -> None:
        """Such a call was not sent, and says so."""

        async def time_out(client: Connection) -> None:
            with pytest.raises(CallTimeout, match="2000 ms") as info:
                await client.service(Slow).short(0)
            assert info.value.outcome is Outcome.NOT_SENT

        slow = Slow()
        async with (
            open_pair(slow, server_limits=Limits(calls=1)) as (client, _),
            trio.open_nursery() as nursery,
        ):
            proxy: Any = client.service(Slow)
            nursery.start_soon(proxy.sleep, 10)
            await settle()
            await time_out(client)
            nursery.cancel_scope.cancel()


@given(
    plan=st.lists(
        st.tuples(st.floats(0, 5), st.floats(0, 5), st.sampled_from(["deadline", "cancel"])), max_size=8
    )
)
def test_a_handler_never_outlives_its_caller_for_long(plan: list[tuple[float, float, str]]) -> None:
    """Each call either returns, or its handler is cancelled when the caller is; all clean up."""

    async def main() -> None:
        slow = Slow()

        async def call(proxy: Any, seconds: float, patience: float, how: str) -> None:
            scope = trio.CancelScope(
                deadline=trio.current_time() + patience if how == "deadline" else math.inf
            )
            async with trio.open_nursery() as nursery:
                if how == "cancel":

                    @nursery.start_soon
                    async def cancel() -> None:
                        await trio.sleep(patience)
                        scope.cancel()

                with scope:
                    assert await proxy.sleep(seconds) == "slept"
                    assert trio.current_time() == pytest.approx(seconds + 0.25)
                if scope.cancelled_caught:
                    assert trio.current_time() == pytest.approx(patience)
                    assert patience <= seconds + 0.2501
                nursery.cancel_scope.cancel()

        async with open_pair(slow) as (client, server):
            async with trio.open_nursery() as nursery:
                for one in plan:
                    nursery.start_soon(call, client.service(Slow), *one)
            await trio.sleep(1)
            assert core_of(client).idle
            assert core_of(server).idle
            entered = slow.diary.count("cleaned up")
            assert entered <= len(plan)
            assert entered >= sum(patience > 0 for _, patience, _ in plan)

    run(main)
