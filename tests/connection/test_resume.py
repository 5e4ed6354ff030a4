"""A session outlives its links: what stands on it does not notice, and nothing is lost or doubled."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from fuzz.flaky import Flaw, make_flaky
from heartline import (
    Backoff,
    CallInterrupted,
    CallTimeout,
    CloseCode,
    Closed,
    ConnectionClosed,
    ConnectionLost,
    ConnectionState,
    Limits,
    Lost,
    Opened,
    Outcome,
    Reconnected,
)
from heartline._summaries import LINES
from heartline.transports.memory import current_network

from ..engine import core_of
from .helpers import QUIET, Highest, cut, no_leaks, open_pair, pair_of_channels, run, settle

SOON = Backoff(initial=0.1, maximum=0.1)
NEVER = Backoff(initial=1e6, maximum=1e6)


@heartline.service
class Worker:
    """Notes what it was asked for."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    async def work(self, seconds: float, what: Any) -> Any:
        """Answer after a while."""
        await trio.sleep(seconds)
        self.done.append(what)
        return what

    def note(self, what: Any) -> Any:
        """Answer at once."""
        self.done.append(what)
        return what


def resuming(**settings: Any) -> Any:
    settings = {"resume_window": 60.0, "reconnect": SOON, **settings}
    return open_pair(**settings)


async def lose(client: heartline.Connection) -> None:
    """Break the link of a client, and wait for its next one."""
    links = client.statistics().links
    cut(client)
    while client.statistics().links == links:
        await trio.sleep(0.01)


# What goes on


async def test_a_call_in_flight_goes_on(autojump_clock: MockClock) -> None:
    worker = Worker()
    async with (
        heartline.open_server("memory://", services=[worker], heartbeat=QUIET) as server,
        heartline.open_connection(server.urls[0], heartbeat=QUIET, reconnect=SOON) as client,
        trio.open_nursery() as nursery,
    ):
        there = server.connections[client.id]
        results = []

        @nursery.start_soon
        async def call() -> None:
            results.append(await client.service(Worker).work(5, "slow"))

        await trio.sleep(1)
        for _ in range(3):
            await lose(client)
        assert server.connections[client.id] is there
        assert client.statistics().resumed == there.statistics().resumed == 3
        await trio.sleep(4)
        assert results == worker.done == ["slow"]


async def test_an_answer_made_while_the_link_was_down_is_delivered(autojump_clock: MockClock) -> None:
    worker = Worker()
    async with (
        heartline.open_server("memory://", services=[worker], heartbeat=QUIET) as server,
        heartline.open_connection(
            server.urls[0], heartbeat=QUIET, reconnect=Backoff(initial=20, maximum=20), rng=Highest()
        ) as client,
        trio.open_nursery() as nursery,
    ):

        @nursery.start_soon
        async def call() -> None:
            assert await client.service(Worker).work(5, "slow") == "slow"
            assert client.statistics().links == 2

        await trio.sleep(4.99)
        cut(client)
        await trio.sleep(0.02)
        assert worker.done == ["slow"]
        assert client.state is ConnectionState.LOST


async def test_a_new_call_waits_for_the_link(autojump_clock: MockClock) -> None:
    worker = Worker()
    async with (
        heartline.open_server("memory://", services=[worker], heartbeat=QUIET) as server,
        heartline.open_connection(server.urls[0], heartbeat=QUIET, reconnect=SOON) as client,
    ):
        cut(client)
        await settle()
        assert client.state is ConnectionState.LOST
        assert await client.service(Worker).note(1) == 1
        assert client.statistics().resumed == 1


async def test_a_call_that_found_no_link_in_time_was_not_sent(autojump_clock: MockClock) -> None:
    @heartline.service(name="Worker")
    class Impatient:
        @heartline.method(timeout=3)
        def note(self, what: Any) -> Any: ...

    worker = Worker()
    async with (
        heartline.open_server("memory://", services=[worker], heartbeat=QUIET) as server,
        heartline.open_connection(server.urls[0], heartbeat=QUIET, reconnect=NEVER) as client,
    ):
        cut(client)
        await settle()
        with pytest.raises(CallTimeout) as caught:
            await client.service(Impatient).note(1)
        assert caught.value.outcome is Outcome.NOT_SENT
        assert trio.current_time() == 3
        assert worker.done == []


async def test_channels_stay_open(autojump_clock: MockClock) -> None:
    async with resuming(limits=Limits(window=100)) as (client, _, server):
        ours, theirs = await pair_of_channels(client, server.connections[client.id])
        await ours.send("before")
        cut(client)
        await ours.send("while it is down")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def send() -> None:
                await ours.send(bytes(100))
                await ours.send("behind")

            for expected in ("before", "while it is down", bytes(100), "behind"):
                assert await theirs.receive() == expected
        await ours.aclose()
        with pytest.raises(trio.EndOfChannel):
            await theirs.receive()


async def test_credit_that_was_lost_with_its_link_is_told_again(autojump_clock: MockClock) -> None:
    async with resuming(limits=Limits(window=100)) as (client, there, _):
        for number in range(20):
            await client.send(bytes(100))
            await settle()
            cut(client)  # before the CREDIT comes
            assert await there.receive() == bytes(100)
            assert number == client.statistics().resumed
            await client.wait_open()


async def test_subscriptions_do_not_notice(autojump_clock: MockClock) -> None:
    async with resuming() as (client, _, server), client.subscribe("topic") as updates:
        for number in range(1, 6):
            cut(client)
            await server.publish("topic", number)
            update = await anext(updates)
            assert (update.offset, update.value) == (number, number)
        assert server.subscribers("topic") == {client.id}


def everything(flaws: list[Flaw | None], sizes: list[int]) -> Any:
    async def main() -> None:
        make_flaky(iter([None, *flaws]))
        here, there = Worker(), Worker()
        count = len(sizes)
        limits = Limits(window=1000, replay_buffer=5000, frame_size=2048)
        async with (
            heartline.open_server(
                "memory://", services=[there], heartbeat=QUIET, limits=limits, rng=random.Random(0)
            ) as server,
            heartline.open_connection(
                server.urls[0],
                services=[here],
                heartbeat=QUIET,
                reconnect=SOON,
                limits=limits,
                rng=random.Random(0),
            ) as client,
        ):
            ends = (client, server.connections[client.id])
            got: dict[int, list[Any]] = {0: [], 1: []}
            answers: list[Any] = []

            async def send(which: int) -> None:
                for number, size in enumerate(sizes):
                    await ends[which].send([number, bytes(size)])

            async def receive(which: int) -> None:
                for _ in sizes:
                    got[which].append(await ends[which].receive())

            async def call(which: int, number: int) -> None:
                method = ends[which].service(Worker).note if number % 2 else ends[which].service(Worker).work
                arguments = ([which, number, bytes(sizes[number])],)
                answers.append(await method(*(arguments if number % 2 else (0.05, *arguments))))

            async with trio.open_nursery() as nursery:
                for which in (0, 1):
                    nursery.start_soon(send, which)
                    nursery.start_soon(receive, which)
                    for number in range(count):
                        nursery.start_soon(call, which, number)
                        await trio.sleep(0.01)
                for _ in flaws:  # each link that has a flaw gets its turn
                    await trio.sleep(0.2)
                    if client.state is ConnectionState.OPEN:
                        cut(client)
            wanted = [[number, bytes(size)] for number, size in enumerate(sizes)]
            assert got == {0: wanted, 1: wanted}
            for which, worker in ((0, there), (1, here)):
                expected = [[which, number, bytes(size)] for number, size in enumerate(sizes)]
                assert sorted(worker.done) == expected, "each call is executed once"
                assert sorted(a for a in answers if a[0] == which) == expected
            assert ends[1] is server.connections[client.id]

    return main


flaw = st.builds(Flaw, st.booleans(), st.integers(0, 400) | st.integers(0, 20_000))


@given(st.lists(flaw, max_size=8), st.lists(st.sampled_from([0, 10, 300, 3000, 9000]), max_size=6))
def test_whatever_breaks_everything_arrives_once_and_in_order(
    flaws: list[Flaw | None], sizes: list[int]
) -> None:
    run(everything(flaws, sizes))


# When it is over


async def test_after_the_window_the_client_gives_the_session_up(autojump_clock: MockClock) -> None:
    """And goes on to try: the next link begins a new session."""
    worker = Worker()
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
            with trio.CancelScope() as scope:
                async with heartline.open_server("memory://x", services=[worker], heartbeat=QUIET) as server:
                    for connection in [] if task_status is trio.TASK_STATUS_IGNORED else [server]:
                        task_status.started(scope)
                        await trio.sleep_forever()
                        del connection

        scope = await nursery.start(serve)
        async with heartline.open_connection(
            "memory://x", heartbeat=QUIET, reconnect=SOON, limits=Limits(resume_window=10)
        ) as client:
            events = client.events()
            outcomes = {}

            async def call(name: str, seconds: float) -> None:
                try:
                    await client.service(Worker).work(seconds, name)
                except CallInterrupted as error:
                    outcomes[name] = (error.outcome, trio.current_time())

            async with trio.open_nursery() as calls:
                calls.start_soon(call, "sent", 1000)
                await settle()
                cut(client)  # the server's goodbye does not come through
                scope.cancel()
                await trio.sleep(1)
                calls.start_soon(call, "not sent", 1)
            assert outcomes == {"sent": (Outcome.MAYBE_EXECUTED, 10), "not sent": (Outcome.NOT_SENT, 10)}
            assert client.state is ConnectionState.LOST
            await nursery.start(serve)
            await client.wait_open()
            assert client.statistics().resumed == 0
            assert [type(await anext(events)) for _ in range(1)] == [Lost]
            told = await anext(events)
            assert isinstance(told, Reconnected)
            assert not told.resumed
        nursery.cancel_scope.cancel()


async def test_after_the_window_the_server_forgets(autojump_clock: MockClock) -> None:
    async with resuming(resume_window=10, reconnect=NEVER) as (client, there, server):
        events = server.events()
        cut(client)
        await trio.sleep(9)
        assert server.connections[client.id] is there
        assert there.state is ConnectionState.LOST
        await trio.sleep(2)
        assert not server.connections
        lost, closed = await anext(events), await anext(events)
        assert isinstance(lost, Lost)
        assert isinstance(closed, Closed)
        with pytest.raises(ConnectionLost) as caught:
            await there.send("too late")
        assert "Limits.resume_window" in str(caught.value.__cause__)


async def test_the_shorter_window_counts(autojump_clock: MockClock) -> None:
    settings = {"server_limits": Limits(resume_window=3), "reconnect": NEVER}
    async with resuming(resume_window=10, **settings) as (client, _, server):
        cut(client)
        await trio.sleep(2.9)
        assert server.connections
        assert core_of(client).link is not None
        await trio.sleep(0.2)
        assert not server.connections
        assert core_of(client).link is None


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_session_that_one_side_does_not_want_ends_with_its_link(
    who: str, autojump_clock: MockClock
) -> None:
    settings = {"resume_window": 0.0} if who == "client" else {"server_limits": Limits(resume_window=0)}
    async with resuming(**settings, reconnect=NEVER) as (client, _, server):
        cut(client)
        await settle()
        assert not server.connections
        assert core_of(client).link is None


async def test_without_reconnect_nobody_waits(autojump_clock: MockClock) -> None:
    async with resuming(reconnect=None) as (client, _, server):
        cut(client)
        await settle()
        assert not server.connections
        assert client.state is ConnectionState.CLOSED


async def test_leaving_while_the_link_is_down(autojump_clock: MockClock) -> None:
    with no_leaks():
        async with resuming(reconnect=NEVER) as (client, there, server):
            cut(client)
            await settle()
            await client.aclose()
            assert trio.current_time() == 0
            assert client.state is ConnectionState.CLOSED
            with pytest.raises(ConnectionClosed):
                await client.send("x")
            assert there.state is ConnectionState.LOST
            assert server.connections


@pytest.mark.parametrize("way", ["kick", "drain", "close", "leave"])
async def test_a_server_that_closes_what_is_lost(way: str, autojump_clock: MockClock) -> None:
    async with resuming(reconnect=NEVER) as (client, there, server):
        cut(client)
        await settle()
        if way == "kick":
            await server.close_connection(client.id)
        elif way == "drain":
            assert await server.drain(10)
        elif way == "close":
            await there.aclose()
        if way != "leave":
            await settle()
            assert not server.connections
            assert there.state is ConnectionState.CLOSED
            assert trio.current_time() == 0


async def test_a_client_that_was_kicked_while_it_was_away_begins_anew(autojump_clock: MockClock) -> None:
    """The code cannot be told; what the server knew of it is gone."""
    async with resuming(reconnect=Backoff(initial=5, maximum=5)) as (client, there, server):
        cut(client)
        await settle()
        await server.close_connection(client.id)
        await client.wait_open()
        assert server.connections[client.id] is not there
        assert client.statistics().resumed == 0


async def test_a_newcomer_with_the_same_identity_ends_what_is_lost(autojump_clock: MockClock) -> None:
    async with resuming(identity="me", reconnect=NEVER) as (client, there, server):
        cut(client)
        await settle()
        async with heartline.open_connection(server.urls[0], identity="me", heartbeat=QUIET) as second:
            await settle()
            assert server.connections["me"] is not there
            with pytest.raises(ConnectionClosed) as caught:
                await there.send("too late")
            assert caught.value.code == CloseCode.REPLACED
            assert second.state is ConnectionState.OPEN


async def test_a_server_that_was_restarted_does_not_know_the_session(autojump_clock: MockClock) -> None:
    worker = Worker()
    async with trio.open_nursery() as nursery:
        scope, ended = trio.CancelScope(), trio.Event()

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            nonlocal scope
            with trio.CancelScope() as scope:
                async with heartline.open_server("memory://x", services=[worker], heartbeat=QUIET):
                    task_status.started()
                    await trio.sleep_forever()
            ended.set()

        await nursery.start(serve)
        async with heartline.open_connection("memory://x", heartbeat=QUIET, reconnect=SOON) as client:
            failed = trio.Event()

            async def call() -> None:
                with pytest.raises(CallInterrupted, match="cannot be resumed") as caught:
                    await client.service(Worker).work(100, "lost")
                assert caught.value.outcome is Outcome.MAYBE_EXECUTED
                failed.set()

            nursery.start_soon(call)
            await settle()
            cut(client)
            scope.cancel()
            await ended.wait()
            await nursery.start(serve)
            await failed.wait()
            await client.wait_open()
            assert await client.service(Worker).note("new") == "new"
            assert trio.current_time() < 1
        nursery.cancel_scope.cancel()


# What is bounded, and what is told


async def test_who_sends_waits_when_the_replay_buffer_is_full(autojump_clock: MockClock) -> None:
    limits = Limits(replay_buffer=10_000, window=1 << 20, write_buffer=20_000, channels=10)
    late = {"reconnect": Backoff(initial=30, maximum=30), "rng": Highest()}
    async with resuming(limits=limits, **late) as (client, there, _):
        cut(there)
        sent = 0
        with trio.move_on_after(1):
            while True:
                await client.send(bytes(1000))
                sent += 1
        assert sent * 1000 < 40_000
        statistics = client.statistics()
        assert statistics.unconfirmed + statistics.backlog < 40_000
        for _ in range(sent):
            assert await there.receive() == bytes(1000)
        assert client.statistics().resumed == 1


async def test_what_is_confirmed_is_not_kept(autojump_clock: MockClock) -> None:
    limits = Limits(replay_buffer=1 << 20, window=1 << 20, channels=10)
    async with resuming(limits=limits) as (client, there, _):
        for _ in range(200):
            await client.send(bytes(100_000))
            await there.receive()
            assert client.statistics().unconfirmed < 500_000


async def test_the_events_of_both_ends(autojump_clock: MockClock) -> None:
    async with resuming() as (client, there, server):
        ours, theirs, all_of_them = client.events(), there.events(), server.events()
        await lose(client)
        for events, connection in ((ours, client), (theirs, there), (all_of_them, there)):
            lost = await anext(events)
            assert isinstance(lost, Lost)
            assert lost.connection is connection
            again = await anext(events)
            assert isinstance(again, Reconnected)
            assert again.resumed
        async with heartline.open_connection(server.urls[0], heartbeat=QUIET):
            assert isinstance(await anext(all_of_them), Opened)


@pytest.mark.slow
async def test_nothing_is_left_of_a_thousand_losses(autojump_clock: MockClock) -> None:
    async with resuming() as (client, there, server):
        for _ in range(LINES):  # from then on a task at each end sums up the lines of the log
            await lose(client)
            await client.send(b"x")
            await there.receive()
        await settle()
        before = trio.lowlevel.current_statistics().tasks_living
        for number in range(1000):
            await lose(client)
            await client.send(b"x")
            assert await there.receive() == b"x"
            assert number == client.statistics().resumed - LINES - 1
        await settle()
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert client.statistics().unconfirmed < 100
        assert server.statistics().connections == 1


@pytest.mark.parametrize("window", [0.5, 60.0])
async def test_the_end_of_the_window_costs_no_attempt(
    window: float, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Attempts in a row are counted over it, and it falls between two of them."""
    caplog.set_level("DEBUG", "heartline")
    backoff = Backoff(initial=0.3, maximum=0.3, attempts=6)
    async with heartline.open_server("memory://x", heartbeat=QUIET) as server:
        async with heartline.open_connection(
            "memory://x",
            heartbeat=QUIET,
            reconnect=backoff,
            rng=Highest(),
            limits=Limits(resume_window=window),
        ) as client:
            events = client.events()

            async def refuse(_name: str) -> None:
                raise heartline.ConnectionFailed("not today")

            current_network().connect = refuse  # type: ignore[method-assign, assignment]
            cut(client)
            assert isinstance(await anext(events), Lost)
            closed = await anext(events)
            assert isinstance(closed, Closed)
            assert trio.current_time() == pytest.approx(6 * 0.3)
    said = [record.getMessage() for record in caplog.records]
    failed = [found[1] for text in said if (found := re.search(r"attempt (\d) failed", text))]
    assert failed == list("123456")
    assert any("the session is over" in text for text in said) == (window == 0.5)
    assert server.urls == ("memory://x",)
