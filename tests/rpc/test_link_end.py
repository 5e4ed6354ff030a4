"""The link goes: every pending call ends at once, with what is known about it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import Backoff, ConnectionState, Heartbeat, Limits, method, service
from heartline.errors import (
    CallError,
    CallInterrupted,
    ConnectionClosed,
    ConnectionLost,
    Outcome,
)
from heartline.link import Link
from heartline.rpc import Calls
from heartline.wire import HEADER_SIZE, Frame, FrameType
from tests.connection.helpers import Highest
from tests.engine import core_of, link_of
from tests.patience import PATIENCE
from tests.rpc.helpers import QUIET, cut, open_pair, raw_client, raw_server, reconnect, settle


@service
class Worker:
    """Counts what becomes of its calls."""

    def __init__(self) -> None:
        self.begun = self.cancelled = self.cleaned = 0

    async def work(self, seconds: float, result: Any = None) -> Any:
        self.begun += 1
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
            self.cleaned += 1
        return result

    def quick(self, value: Any = None) -> Any:
        self.begun += 1
        return value


class Ends:
    """Makes calls in tasks and keeps how and when they ended."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.results: list[Any] = []
        self.errors: list[CallError] = []
        self.times: list[float] = []

    def start(self, method: Any, *args: Any) -> None:
        self.nursery.start_soon(self._call, method, args)

    async def _call(self, method: Any, args: Any) -> None:
        try:
            self.results.append(await method(*args))
        except CallError as error:
            self.errors.append(error)
        self.times.append(trio.current_time())

    @property
    def outcomes(self) -> list[Outcome]:
        return [error.outcome for error in self.errors]


class TestPendingCalls:
    @pytest.mark.parametrize("side", ["client", "server"])
    async def test_a_lost_link_ends_them_at_once(self, side: str, autojump_clock: MockClock) -> None:
        worker = Worker()
        async with open_pair(worker, reconnect=None) as (client, server), trio.open_nursery() as nursery:
            ends = Ends(nursery)
            for _ in range(5):
                ends.start(client.service("Worker").work, 100)
            await trio.sleep(1)
            cut(client if side == "client" else server)
            await trio.sleep(10)
            assert ends.outcomes == [Outcome.MAYBE_EXECUTED] * 5
            assert all(type(error) is CallInterrupted for error in ends.errors)
            assert all(isinstance(error.__cause__, ConnectionLost) for error in ends.errors)
            assert ends.times == [1] * 5, "at once"
            assert (worker.cancelled, worker.cleaned) == (5, 5), "the handlers of a lost link are cancelled"
            assert core_of(client).idle
            assert core_of(server).idle

    async def test_a_silent_peer_ends_them_too(self, autojump_clock: MockClock) -> None:
        beat = Heartbeat(interval=1, timeout=3)
        async with raw_server(heartbeat=beat) as (client, _), trio.open_nursery() as nursery:
            ends = Ends(nursery)
            ends.start(client.service("Worker").work, 100)
            await trio.sleep(10)
            assert ends.outcomes == [Outcome.MAYBE_EXECUTED]
            assert ends.times == [3]

    async def test_a_goodbye_is_another_reason(self, autojump_clock: MockClock) -> None:
        async with (
            heartline.open_server("memory://", services=[Worker()], heartbeat=QUIET) as server,
            heartline.open_connection(server.urls[0], heartbeat=QUIET) as client,
            trio.open_nursery() as nursery,
        ):
            ends = Ends(nursery)
            ends.start(client.service("Worker").work, 100)
            await trio.sleep(1)
            await server.close_connection(client.id)
            await trio.sleep(1)
            (error,) = ends.errors
            assert error.outcome is Outcome.MAYBE_EXECUTED
            assert isinstance(error.__cause__, ConnectionClosed)
            assert error.__cause__.by_peer

    async def test_leaving_the_block_ends_calls_of_other_tasks(self, autojump_clock: MockClock) -> None:
        async with (
            heartline.open_server("memory://", services=[Worker()], heartbeat=QUIET) as server,
            trio.open_nursery() as nursery,
        ):
            ends = Ends(nursery)
            async with heartline.open_connection(server.urls[0], heartbeat=QUIET) as client:
                ends.start(client.service("Worker").work, 100)
                await trio.sleep(1)
            await settle()
            assert ends.outcomes == [Outcome.MAYBE_EXECUTED]

    async def test_breaking_the_protocol_ends_them(self) -> None:
        async with raw_server() as (client, peer), trio.open_nursery() as nursery:
            ends = Ends(nursery)
            ends.start(client.service("Worker").work, 100)
            await peer.receive()
            await peer.send(Frame(FrameType.CONFIRM))
            await settle()
            assert ends.outcomes == [Outcome.MAYBE_EXECUTED]


class TestNotSent:
    async def test_without_a_link(self, autojump_clock: MockClock) -> None:
        """A client between two links, and one that is closed for good."""
        reconnect = Backoff(initial=60, maximum=60)
        async with open_pair(Worker(), reconnect=reconnect, rng=Highest()) as (client, _):
            cut(client)
            await trio.sleep(0.1)
            assert client.state is ConnectionState.LOST
            with pytest.raises(
                CallInterrupted, match=r"Worker.quick was not called: there is no link"
            ) as info:
                await client.service("Worker").quick()
            assert info.value.outcome is Outcome.NOT_SENT
            await client.aclose()
            with pytest.raises(CallInterrupted, match=r"Worker.quick was not called: .* closed here") as info:
                await client.service("Worker").quick()
            assert info.value.outcome is Outcome.NOT_SENT
            assert isinstance(info.value.__cause__, ConnectionClosed)

    async def test_with_a_timeout_of_its_own(self, autojump_clock: MockClock) -> None:
        @service(name="Worker")
        class Timed:
            @method(timeout=5)
            async def quick(self) -> int:
                return 1

        async with open_pair(Timed(), reconnect=None) as (client, _):
            assert await client.service(Timed).quick() == 1
            await client.aclose()
            with pytest.raises(CallInterrupted) as info:
                await client.service(Timed).quick()
            assert info.value.outcome is Outcome.NOT_SENT

    async def test_after_the_goodbye(self, autojump_clock: MockClock) -> None:
        """Nothing new is begun on a connection that drains."""
        worker = Worker()
        async with (
            heartline.open_server("memory://", services=[worker], heartbeat=QUIET) as server,
            heartline.open_connection(server.urls[0], heartbeat=QUIET, reconnect=None) as client,
            trio.open_nursery() as nursery,
        ):
            ends = Ends(nursery)
            ends.start(client.service("Worker").work, 5, "finished")
            await trio.sleep(1)
            nursery.start_soon(server.drain, 60)
            await trio.sleep(1)
            assert client.state is ConnectionState.LEAVING
            ends.start(client.service("Worker").quick)
            await trio.sleep(1)
            (error,) = ends.errors
            assert error.outcome is Outcome.NOT_SENT
            assert isinstance(error.__cause__, ConnectionClosed)
            assert "draining" in str(error)
            await trio.sleep(10)
            assert ends.results == ["finished"], "what is in progress may end"
            assert worker.begun == 1

    async def test_what_is_still_in_the_outbox(self, autojump_clock: MockClock) -> None:
        """The peer does not read: what it cannot have seen is known not to be executed."""
        async with raw_server(reconnect=None) as (client, _):
            async with trio.open_nursery() as nursery:
                ends = Ends(nursery)
                for _ in range(20):
                    ends.start(client.service("Worker").work, b"x" * 10_000)
                    await settle()  # each of them leaves, as far as the stream takes it
                cut(client)
            outcomes = ends.outcomes
            assert set(outcomes) == {Outcome.NOT_SENT, Outcome.MAYBE_EXECUTED}
            assert outcomes.count(Outcome.NOT_SENT) >= 20 - 8, "64 KiB fit in the stream"

    async def test_a_long_call_that_has_begun_may_have_been_executed(self) -> None:
        """Its last fragment cannot have left, but whoever says so must be sure of every byte."""
        async with raw_server(reconnect=None) as (client, _):
            async with trio.open_nursery() as nursery:
                ends = Ends(nursery)
                ends.start(client.service("Worker").work, bytes(1_000_000))
                await settle()
                ends.start(client.service("Worker").quick)
                await settle()
                cut(client)
            assert sorted(outcome.name for outcome in ends.outcomes) == ["MAYBE_EXECUTED", "NOT_SENT"]

    async def test_not_sent_means_that_it_never_leaves(self) -> None:
        """The peer breaks the protocol while it still reads: the goodbye goes out, waiting calls do not."""
        async with raw_server(reconnect=None) as (client, peer):
            async with trio.open_nursery() as nursery:
                ends = Ends(nursery)
                for _ in range(20):
                    ends.start(client.service("Worker").work, b"x" * 10_000)
                    await settle()
                await peer.send(Frame(FrameType.CONFIRM))
                await settle()
                arrived = []
                while events := await peer.events():
                    arrived += [event.id for event in events if isinstance(event, Frame)]
            sent = ends.outcomes.count(Outcome.MAYBE_EXECUTED)
            assert arrived == list(range(sent))
            assert sent < 20

    async def test_callers_that_wait_for_room_hear_of_it_at_once(self, autojump_clock: MockClock) -> None:
        async with open_pair(Worker(), server_limits=Limits(calls=2), reconnect=None) as (client, _):
            async with trio.open_nursery() as nursery:
                ends = Ends(nursery)
                for _ in range(5):
                    ends.start(client.service("Worker").work, 100)
                await trio.sleep(1)
                cut(client)
            assert (
                sorted(outcome.name for outcome in ends.outcomes) == ["MAYBE_EXECUTED"] * 2 + ["NOT_SENT"] * 3
            )
            assert ends.times == [1] * 5

    async def test_nor_do_they_wait_for_a_peer_that_does_not_read(self, autojump_clock: MockClock) -> None:
        """The old link takes a second to close; nothing may slip into it, or wait for an answer from it."""
        async with raw_server(limits=Limits(calls=2), reconnect=None) as (client, peer):
            async with trio.open_nursery() as nursery:
                ends = Ends(nursery)
                for _ in range(5):
                    ends.start(client.service("Worker").work, bytes(200_000))
                await settle()
                await peer.send(Frame(FrameType.CONFIRM))
                await settle()
                assert len(ends.errors) == 5
            assert core_of(client).idle


class TestCancelledAsItEnds:
    """A caller's cancellation meets the end of its session: what Trio runs then must not raise."""

    @pytest.mark.parametrize("cancel_first", [True, False])
    async def test_in_the_same_tick(self, cancel_first: bool, autojump_clock: MockClock) -> None:
        async with raw_server(reconnect=None) as (client, _), trio.open_nursery() as nursery:
            ends = Ends(nursery)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as cancelled:
                    for _ in range(3):
                        cancelled.start_soon(ends._call, client.service("Worker").work, (100,))
                    await settle()
                    if cancel_first:
                        scope.cancel()
                    core_of(client).end_session(ConnectionLost("over"))
                    scope.cancel()
            assert core_of(client).idle
            assert ends.outcomes == ([] if cancel_first else [Outcome.MAYBE_EXECUTED] * 3)

    async def test_the_cancel_itself_ends_the_session(self, autojump_clock: MockClock) -> None:
        """It is one frame too many for a peer that is gone."""
        late: dict[str, Any] = {"reconnect": Backoff(initial=30), "rng": Highest()}
        async with open_pair(Worker(), resume_window=60, **late) as (client, _):
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                ends = Ends(nursery)
                ends.start(client.service("Worker").work, 100)
                nursery.start_soon(self._cancelled, client, scope)
                await settle()
                cut(client)
                await trio.sleep(1)
                assert client.state is ConnectionState.LOST
                outbox = link_of(client).session.outbox
                for size in (60_000, 0):
                    while outbox.size + HEADER_SIZE + size <= outbox._stuck:
                        link_of(client).put(FrameType.CANCEL, 0, 99, bytes(size))
                assert core_of(client).link is not None
                assert ends.outcomes == []
                scope.cancel()
                await settle()
                assert core_of(client).link is None
            assert ends.outcomes == [Outcome.MAYBE_EXECUTED]
            assert scope.cancelled_caught

    async def _cancelled(self, client: heartline.Connection, scope: trio.CancelScope) -> None:
        with scope:
            await client.service("Worker").work(100)

    async def test_even_if_a_bug_kept_the_call_from_ending(
        self, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Link, "withdraw", bug)
        async with raw_server(reconnect=None) as (client, _):
            with trio.move_on_after(10) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.service("Worker").work, 100)
                    await settle()
                    core_of(client).end_session(ConnectionLost("over"))
            assert scope.cancelled_caught


def bug(*_: object) -> set[int]:
    raise ZeroDivisionError("a bug")


class TestReconnect:
    async def test_no_answer_reaches_the_wrong_call(self, autojump_clock: MockClock) -> None:
        """The calls of the new link have other ids, and the handlers of the old one do not answer."""
        worker = Worker()
        async with open_pair(worker, reconnect=Backoff(initial=0.01)) as (client, _):
            for round_number in range(5):
                async with trio.open_nursery() as nursery:
                    ends = Ends(nursery)
                    for number in range(4):
                        ends.start(client.service("Worker").work, 1, (round_number, number))
                    await settle()
                    await reconnect(client)
                    again = Ends(nursery)
                    for number in range(4):
                        again.start(client.service("Worker").work, 1, (round_number, -number))
                assert ends.outcomes == [Outcome.MAYBE_EXECUTED] * 4
                assert sorted(again.results) == sorted([round_number, -number] for number in range(4))
            assert worker.begun == worker.cleaned == 40

    async def test_handlers_at_the_client_end_with_the_link_too(self, autojump_clock: MockClock) -> None:
        """And when the new link brings a call with the same id, its answer is its own."""
        worker = Worker()
        async with (
            heartline.open_server("memory://", heartbeat=QUIET) as server,
            heartline.open_connection(
                server.urls[0],
                services=[worker],
                heartbeat=QUIET,
                reconnect=Backoff(initial=0.01),
                limits=Limits(resume_window=0),
            ) as client,
            trio.open_nursery() as nursery,
        ):
            ends = Ends(nursery)
            ends.start(server.connections[client.id].service("Worker").work, 100, "old")
            await trio.sleep(1)
            await reconnect(client)
            ends.start(server.connections[client.id].service("Worker").work, 3, "new")
            await trio.sleep(10)
            assert ends.outcomes == [Outcome.MAYBE_EXECUTED]
            assert ends.results == ["new"]
            assert (worker.begun, worker.cancelled, worker.cleaned) == (2, 1, 2)

    async def test_answers_after_a_wrap_of_the_ids(self, autojump_clock: MockClock) -> None:
        """After 2**32 calls the ids begin anew, and pass over those in use."""
        worker = Worker()
        async with open_pair(worker) as (client, _), trio.open_nursery() as nursery:
            old = Ends(nursery)
            old.start(client.service("Worker").work, 50, "old")  # takes id 0
            await settle()
            core_of(client).part(Calls)._next = 2**32 - 3
            new = Ends(nursery)
            for number in range(6):
                new.start(client.service("Worker").work, 1, number)
            await trio.sleep(10)
            assert sorted(new.results) == list(range(6))
            assert old.results == []
            assert core_of(client).part(Calls)._next == 4
            await trio.sleep(50)
            assert old.results == ["old"]


@pytest.mark.slow
async def test_over_a_real_socket() -> None:
    """The server's process is gone in the middle of a call: its socket is closed without a goodbye."""
    worker = Worker()
    async with open_pair(worker, url="tcp://127.0.0.1:0", reconnect=None) as (client, server):
        async with trio.open_nursery() as nursery:
            ends = Ends(nursery)
            ends.start(client.service("Worker").work, 100)
            while not worker.begun:
                await trio.sleep(0.001)
            await link_of(server).stream.aclose()
        assert ends.outcomes == [Outcome.MAYBE_EXECUTED]
        with trio.fail_after(PATIENCE):
            while not worker.cleaned:
                await trio.sleep(0.01)


async def test_one_lost_client_does_not_disturb_another(autojump_clock: MockClock) -> None:
    worker = Worker()
    async with (
        heartline.open_server("memory://", services=[worker], heartbeat=QUIET) as server,
        heartline.open_connection(server.urls[0], heartbeat=QUIET) as good,
        trio.open_nursery() as nursery,
    ):
        ends = Ends(nursery)
        ends.start(good.service("Worker").work, 5, "fine")
        async with raw_client(server.urls[0]) as bad:
            await bad.call(0, "Worker.work", 100)
            await trio.sleep(1)
        await trio.sleep(10)
        assert ends.results == ["fine"]
        assert worker.cancelled == 1
