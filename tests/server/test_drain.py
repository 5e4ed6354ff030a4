"""Draining, closing one connection, and the end of the server."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import (
    Backoff,
    CallInterrupted,
    CloseCode,
    ConfigurationError,
    ConnectionClosed,
    ConnectionRefusedByPeer,
    ConnectionState,
    LocalProtocolError,
    Outcome,
    Peer,
    Server,
)
from heartline.session import Role
from tests.opening import open_stream

from ..connection.helpers import QUIET, RawPeer, no_leaks, settle
from .helpers import open_clients


@heartline.service
class Slow:
    """Calls that last, and what became of them."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    async def sleep(self, seconds: float) -> float:
        await trio.sleep(seconds)
        self.ended.append(seconds)
        return seconds

    async def large(self, seconds: float) -> bytes:
        await trio.sleep(seconds)
        return bytes(3_000_000)


async def test_nothing_to_wait_for(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://") as server:
        assert await server.drain(30)
        assert trio.current_time() == 0
    async with open_clients("a", "b") as (server, clients):
        assert await server.drain(30)
        assert trio.current_time() == 0
        assert not server.connections
        for client in clients:
            with pytest.raises(ConnectionClosed) as caught:
                await client.receive()
            assert (caught.value.code, caught.value.by_peer) == (CloseCode.GOING_AWAY, True)


@pytest.mark.parametrize("method", ["sleep", "large"])
async def test_calls_in_progress_end(method: str, autojump_clock: MockClock) -> None:
    results: list[Any] = []
    async with open_clients("a", "b", server={"services": [Slow()]}) as (server, (a, b)):

        async def call(client: heartline.Connection, seconds: float) -> None:
            results.append(await getattr(client.service(Slow), method)(seconds))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, a, 1)
            nursery.start_soon(call, a, 5)
            nursery.start_soon(call, b, 3)
            await settle()
            assert await server.drain(30)
            assert trio.current_time() == 5
    assert len(results) == 3


async def test_calls_to_the_clients_end_too(autojump_clock: MockClock) -> None:
    async with open_clients("a", services=[Slow()]) as (server, _):
        there = server.connections["a"]
        results: list[Any] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                results.append(await there.service(Slow).large(3))

            await settle()
            assert await server.drain(30)
            assert trio.current_time() == 3
        assert len(results[0]) == 3_000_000


async def test_calls_that_last_too_long_are_cut(autojump_clock: MockClock) -> None:
    slow = Slow()
    async with open_clients("a", "b", server={"services": [slow]}) as (server, (a, b)):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def long() -> None:
                with pytest.raises(CallInterrupted) as caught:
                    await a.service(Slow).sleep(100)
                assert caught.value.outcome is Outcome.MAYBE_EXECUTED

            @nursery.start_soon
            async def short() -> None:
                assert await b.service(Slow).sleep(2) == 2

            await settle()
            assert not await server.drain(5)
            assert 5 <= trio.current_time() <= 6
        await trio.sleep(200)
        assert slow.ended == [2]


async def test_nothing_new_begins(autojump_clock: MockClock) -> None:
    async with open_clients("a", server={"services": [Slow()]}) as (server, (a,)):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def call() -> None:
                assert await a.service(Slow).sleep(5) == 5

            await settle()
            nursery.start_soon(server.drain, 30)
            await trio.sleep(1)
            assert a.state is ConnectionState.LEAVING
            with pytest.raises(CallInterrupted) as caught:
                await a.service(Slow).sleep(1)
            assert caught.value.outcome is Outcome.NOT_SENT
            with pytest.raises(ConnectionRefusedByPeer) as refused:
                async with heartline.open_connection(server.urls[0]):
                    pass
            assert refused.value.code == CloseCode.GOING_AWAY
            assert not refused.value.terminal


async def test_a_handshake_that_began_before_is_refused(autojump_clock: MockClock) -> None:
    """Or it would be let in behind the drain's back, and the drain would wait for it for ever."""

    async def slowly(peer: Peer) -> str | None:
        await trio.sleep(3)
        return peer.identity

    async with heartline.open_server("memory://", authenticate=slowly, heartbeat=QUIET) as server:
        peer = RawPeer.of(await open_stream(server.urls[0]), Role.CLIENT)
        peer.session.hello(identity="late")
        await peer.flush()
        await settle()
        assert await server.drain(10)
        assert trio.current_time() == 0
        (refusal,) = await peer.events()
        assert refusal.code == CloseCode.GOING_AWAY
        assert not server.connections


async def test_a_client_that_does_not_answer_costs_the_timeout_and_a_second(
    autojump_clock: MockClock,
) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        await RawPeer.join(server.urls[0])
        assert await server.drain(4)
        assert trio.current_time() == 4 + 1
        assert not server.connections


async def test_drained_clients_come_back_to_the_next_server(autojump_clock: MockClock) -> None:
    url, restarted = "memory://stable", trio.Event()
    async with trio.open_nursery() as nursery:

        async def visit(task_status: trio.TaskStatus[None]) -> None:
            backoff = Backoff(initial=1, maximum=1)
            async with heartline.open_connection(
                url, identity="me", reconnect=backoff, heartbeat=QUIET
            ) as client:
                task_status.started()
                await restarted.wait()
                assert await client.receive() == "welcome back"

        async with heartline.open_server(url, heartbeat=QUIET) as server:
            await nursery.start(visit)
            assert await server.drain(1)
        async with heartline.open_server(url, heartbeat=QUIET) as server:
            restarted.set()
            opened = await anext(server.events())
            await server.send_to(opened.connection.id, "welcome back")
            await trio.sleep(1)
            assert not server.connections


async def test_draining_twice_and_leaving(autojump_clock: MockClock) -> None:
    with no_leaks():
        async with open_clients("a", server={"services": [Slow()]}) as (server, (a,)):
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def call() -> None:
                    with pytest.raises(CallInterrupted):
                        await a.service(Slow).sleep(100)

                await settle()
                nursery.start_soon(server.drain, 50)
                await trio.sleep(1)
                assert not await server.drain(0)  # on second thoughts: now
                assert trio.current_time() <= 2


# One connection


async def test_close_connection(autojump_clock: MockClock) -> None:
    async with open_clients("a", "b", reconnect=Backoff()) as (server, (a, b)):
        await server.close_connection("a", reason="spam")
        assert set(server.connections) == {"b"}
        with pytest.raises(ConnectionClosed, match="spam") as caught:
            await a.receive()
        assert (caught.value.code, caught.value.by_peer) == (CloseCode.KICKED, True)
        await trio.sleep(100)
        assert set(server.connections) == {"b"}
        with pytest.raises(LocalProtocolError, match="'a'"):
            await server.close_connection("a")
        await server.close_connection("b", code=CloseCode.GOING_AWAY)
        await trio.sleep(100)
        assert set(server.connections) == {"b"}  # it came back
        assert b.statistics().links == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        *(({"code": code}, "code must be") for code in ("kicked", None, 1.5, True, -1, 2**31)),
        ({"reason": None}, "reason must be a str, not None"),
        ({"reason": b"spam"}, "reason must be a str"),
    ],
)
async def test_a_wrong_code_or_reason_closes_nothing(
    settings: dict[str, Any], words: str, autojump_clock: MockClock
) -> None:
    async with open_clients("a") as (server, (a,)):
        with pytest.raises(ConfigurationError, match=words):
            await server.close_connection("a", **settings)
        await settle()
        assert set(server.connections) == {"a"}
        assert a.state is ConnectionState.OPEN


async def test_a_code_of_the_application_arrives(autojump_clock: MockClock) -> None:
    async with open_clients("a") as (server, (a,)):
        await server.close_connection("a", code=2**31 - 1)
        with pytest.raises(ConnectionClosed) as caught:
            await a.receive()
        assert caught.value.code == 2**31 - 1


@pytest.mark.parametrize("timeout", ["x", None, True, -1, float("nan")])
async def test_a_wrong_timeout_drains_nothing(timeout: Any, autojump_clock: MockClock) -> None:
    async with open_clients("a") as (server, (a,)):
        with pytest.raises(ConfigurationError, match="timeout must be seconds of at least 0"):
            await server.drain(timeout)
        await settle()
        assert a.state is ConnectionState.OPEN
        async with heartline.open_connection(server.urls[0]):
            pass  # new clients are let in


async def test_close_connection_of_a_peer_that_does_not_answer(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        peer = await RawPeer.join(server.urls[0], identity="mute")
        await server.close_connection("mute")
        assert trio.current_time() == 1
        assert [event.code for event in await peer.rest()] == [CloseCode.KICKED]


async def test_a_cancelled_server_says_goodbye_too(autojump_clock: MockClock) -> None:
    async def serve(task_status: trio.TaskStatus[tuple[Server, trio.CancelScope]]) -> None:
        async with trio.open_nursery() as inner:
            server = await inner.start(heartline.serve, "memory://")
            task_status.started((server, inner.cancel_scope))

    async with trio.open_nursery() as nursery:
        server, scope = await nursery.start(serve)
        async with heartline.open_connection(server.urls[0], reconnect=None) as connection:
            scope.cancel()
            with pytest.raises(ConnectionClosed) as caught:
                await connection.receive()
            assert (caught.value.code, caught.value.by_peer) == (CloseCode.GOING_AWAY, True)


async def test_serve_runs_until_it_is_cancelled(autojump_clock: MockClock) -> None:
    with no_leaks():
        async with trio.open_nursery() as nursery:
            server = await nursery.start(heartline.serve, "memory://")
            async with heartline.open_connection(server.urls[0]) as connection:
                assert connection.id in server.connections
            nursery.cancel_scope.cancel()
