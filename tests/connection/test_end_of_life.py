"""However a connection's block is left: its error comes out bare, and nothing is left behind."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import (
    Backoff,
    CloseCode,
    Closed,
    Connection,
    ConnectionClosed,
    ConnectionLost,
    ConnectionState,
    Limits,
    Lost,
    RemoteProtocolError,
)
from heartline.rpc._wire import encode_call
from heartline.wire import CborSerializer, Frame, FrameType
from tests.patience import PATIENCE
from tests.rpc.helpers import call_frame

from ..engine import core_of
from .helpers import (
    QUIET,
    SOCKETS,
    Highest,
    RawPeer,
    cut,
    data,
    listen,
    no_leaks,
    open_pair,
    open_to_raw,
    settle,
    url_of,
)

KINDS = [*SOCKETS, "memory://"]


class Problem(Exception):
    pass


@heartline.service
class Slow:
    """Calls that last."""

    async def sleep(self, seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds


async def busy(client: Connection, there: Connection, nursery: trio.Nursery) -> None:
    """A connection in the middle of everything: calls, channels, messages, readers that wait."""
    await client.open_channel("x")
    await there.accept_channel()
    await client.send(b"unread")

    async def call() -> None:
        with pytest.raises(heartline.CallInterrupted):
            await client.service(Slow).sleep(1e9)

    async def receive(connection: Connection) -> None:
        with pytest.raises((ConnectionClosed, ConnectionLost)):
            while True:
                await connection.receive()

    nursery.start_soon(call)
    nursery.start_soon(receive, client)
    nursery.start_soon(receive, there)
    await client.service(Slow).sleep(0)


@asynccontextmanager
async def open_busy(kind: str, directory: object) -> AsyncIterator[Connection]:
    async with trio.open_nursery() as nursery:  # outside: whoever waits there must be told of the end
        try:
            async with (
                heartline.open_server(url_of(kind, directory), services=[Slow()], heartbeat=QUIET) as server,
                heartline.open_connection(server.urls[0], heartbeat=QUIET) as client,
            ):
                await busy(client, server.connections[client.id], nursery)
                yield client
        except* Problem:
            raise Problem from None


# Ways to leave


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["normally", "by an error", "cancelled", "closed by hand"])
async def test_nothing_is_left_behind(kind: str, way: str, tmp_path: Path) -> None:
    with no_leaks():
        start = trio.current_time()
        with trio.CancelScope() as scope:
            try:
                async with open_busy(kind, tmp_path) as client:
                    if way == "by an error":
                        raise Problem
                    if way == "cancelled":
                        scope.cancel()
                        await trio.sleep_forever()
                    if way == "closed by hand":
                        await client.aclose()
                        await client.aclose()
            except* Problem:
                assert way == "by an error"
        assert trio.current_time() - start < 0.9, "a healthy peer needs no grace"
        gc.collect()
    assert list(tmp_path.iterdir()) == []


async def test_the_error_of_the_body_is_bare() -> None:
    problem = Problem()
    async with heartline.open_server("memory://") as server:
        with pytest.raises(Problem) as caught:
            async with heartline.open_connection(server.urls[0]):
                raise problem
        assert caught.value is problem
    with pytest.raises(Problem) as caught:
        async with heartline.open_server("memory://"):
            raise problem
    assert caught.value is problem


async def test_an_error_in_the_body_says_goodbye(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://") as server:
        events = server.events()
        with pytest.raises(Problem):
            async with heartline.open_connection(server.urls[0]):
                raise Problem
        assert isinstance(await anext(events), heartline.Opened)
        closed = await anext(events)
        assert isinstance(closed, Closed)
        assert isinstance(closed.reason, ConnectionClosed)
        assert closed.reason.by_peer


@pytest.mark.parametrize("way", ["normally", "cancelled"])
@pytest.mark.parametrize("what", ["receive", "events"])
async def test_readers_outside_learn_of_the_end(way: str, what: str, autojump_clock: MockClock) -> None:
    told: list[str] = []

    async def listen(events: Any) -> None:
        told.append(" ".join([type(event).__name__ async for event in events]))

    async def receive(connection: Connection) -> None:
        with pytest.raises((ConnectionClosed, ConnectionLost)):
            await connection.receive()
        told.append("end")

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with open_pair() as (client, there, server):
                for connection in (client, there):
                    if what == "receive":
                        nursery.start_soon(receive, connection)
                    else:
                        nursery.start_soon(listen, connection.events())
                if what == "events":
                    nursery.start_soon(listen, server.events())
                await settle()
                if way == "cancelled":
                    scope.cancel()
        assert client.state is there.state is ConnectionState.CLOSED
    assert sorted(told) == (["end"] * 2 if what == "receive" else ["Closed"] * 2 + ["Lost Closed"])


# Peers that do not read


async def filled(connection: Connection) -> None:
    with trio.move_on_after(0.001):
        while True:
            await connection.send(bytes(20_000))


@pytest.mark.parametrize(("way", "seconds"), [("normally", 2), ("by an error", 2), ("cancelled", 1)])
async def test_a_peer_that_never_reads_costs_the_grace(
    way: str, seconds: float, autojump_clock: MockClock
) -> None:
    raw = {"limits": Limits(window=1 << 30, memory=1 << 42)}
    with no_leaks():
        async with open_to_raw(raw=raw) as (sacrifice, peer):
            await filled(sacrifice)
            start = trio.current_time()
            with trio.CancelScope() as scope:
                try:
                    async with closing(sacrifice):
                        if way == "by an error":
                            raise Problem
                        if way == "cancelled":
                            scope.cancel()
                            await trio.lowlevel.checkpoint()
                except Problem:
                    pass
            assert trio.current_time() - start <= 2
            assert sacrifice.state is ConnectionState.CLOSED


@asynccontextmanager
async def closing(connection: Connection) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await connection.aclose()


@pytest.mark.parametrize("way", ["normally", "cancelled"])
async def test_leaving_beside_a_peer_that_never_reads(way: str, autojump_clock: MockClock) -> None:
    """The whole endpoint, cancelled from outside."""
    url = "memory://"
    with no_leaks():
        with trio.CancelScope() as scope:
            async with heartline.open_server(url, heartbeat=QUIET) as server:
                peer = await RawPeer.join(server.urls[0], limits=Limits(window=1 << 30, memory=1 << 42))
                await filled(next(iter(server.connections.values())))
                start = trio.current_time()
                if way == "cancelled":
                    scope.cancel()
        assert trio.current_time() - start <= 2
        await peer.stream.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOCKETS)
async def test_the_same_with_sockets(kind: str, tmp_path: Path) -> None:
    with no_leaks(), trio.fail_after(PATIENCE):
        async with heartline.open_server(url_of(kind, tmp_path), heartbeat=QUIET) as server:
            peer = await RawPeer.join(server.urls[0], limits=Limits(window=1 << 30, memory=1 << 42))
            (connection,) = server.connections.values()
            with trio.move_on_after(0.05):
                while True:
                    await connection.send(bytes(100_000))
        await trio.aclose_forcefully(peer.stream)
        gc.collect()


# What the peer is told, and does


async def test_a_broken_rule_is_told_with_its_reason() -> None:
    async with open_to_raw(reconnect=None) as (connection, peer):
        await peer.send(data(b"fine"), Frame(FrameType.RESULT, flags=0), Frame(FrameType.CONFIRM))
        with pytest.raises(RemoteProtocolError, match="CONFIRM"):
            while True:
                await connection.receive()
        goodbye = (await peer.rest())[-1]
        assert goodbye.code == CloseCode.PROTOCOL_ERROR
        assert "CONFIRM" in goodbye.reason


async def test_the_end_of_the_stream_is_a_loss() -> None:
    async with open_to_raw(reconnect=None) as (connection, peer):
        events = connection.events()
        await peer.send(data(b"last"))
        peer.stream.close()  # type: ignore[attr-defined]
        assert await connection.receive() == b"last"
        lost = await anext(events)
        assert isinstance(lost, Lost)
        assert "without a goodbye" in str(lost.reason)


async def test_a_peer_that_does_not_answer_a_goodbye(autojump_clock: MockClock) -> None:
    async with open_to_raw() as (connection, _peer):
        await connection.aclose()
        assert trio.current_time() == 1
        with pytest.raises(ConnectionClosed) as caught:
            await connection.receive()
        assert not caught.value.by_peer


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_in_a_cancelled_scope_waits_for_nothing(
    kind: str, tmp_path: Path, mock_clock: MockClock
) -> None:
    """And says goodbye all the same. The clock stands: whoever waited for time would wait for ever."""
    async with await listen(url_of(kind, tmp_path)) as listener, trio.open_nursery() as nursery:
        peers: list[RawPeer] = []

        @nursery.start_soon
        async def admit() -> None:
            peers.append(await RawPeer.admit(await listener.accept()))

        async with heartline.open_connection(listener.url, heartbeat=QUIET) as connection:
            await connection.send(b"sent before")
            await trio.aclose_forcefully(connection)
            assert connection.state is ConnectionState.CLOSED
            goodbye, message = await peers[0].rest()  # what is said about the link itself goes first
            assert message.payload == b"sent before"
            assert goodbye.code == CloseCode.NORMAL
            await trio.aclose_forcefully(connection)
            with pytest.raises(ConnectionClosed):
                await connection.send(b"too late")
        await peers[0].stream.aclose()


async def test_what_is_left_of_a_read_goes_with_the_session(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A read with many frames is handled in turns, and the session may end between two of them."""
    async with open_to_raw() as (connection, peer):
        await peer.send(*(call_frame(number, "Nobody.knows") for number in range(1000)))
        while not connection.statistics().frames_received:
            await trio.lowlevel.checkpoint()
        await trio.aclose_forcefully(connection)
        await settle()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("state", [ConnectionState.OPEN, ConnectionState.LEAVING, ConnectionState.LOST])
async def test_it_is_closed_at_once_in_every_state(
    side: str, state: ConnectionState, autojump_clock: MockClock
) -> None:
    slowly: dict[str, Any] = {"reconnect": Backoff(initial=20), "rng": Highest(), "resume_window": 600}
    async with open_pair(**slowly) as (client, there, _):
        connection, other = (client, there) if side == "client" else (there, client)
        if state is ConnectionState.LOST:
            cut(connection)
            await settle()
        elif state is ConnectionState.LEAVING:
            core_of(connection).close(CloseCode.NORMAL, "in a while", drain=100)
        assert connection.state is state
        start = trio.current_time()
        await trio.aclose_forcefully(connection)
        assert trio.current_time() == start
        assert connection.state is ConnectionState.CLOSED
        with pytest.raises(ConnectionClosed):
            await connection.receive()
        await settle()
        assert trio.current_time() == start
        if state is not ConnectionState.LOST:
            assert other.state is not ConnectionState.OPEN


@pytest.mark.parametrize(
    "last",
    [
        Frame(FrameType.OPEN, channel=1, payload=b"x"),
        Frame(FrameType.CALL, payload=encode_call(CborSerializer(), "X.y", b"X.y", (), {}, 1.0)[0]),
    ],
    ids=["OPEN", "CALL"],
)
async def test_what_was_read_before_the_end_and_not_handled_is_void(
    last: Frame, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """More frames came in one read than are handled in one go, and meanwhile the connection is closed."""
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        peer = await RawPeer.join(server.urls[0], identity="me")
        connection = server.connections["me"]

        async def close() -> None:
            await connection.receive()
            await trio.aclose_forcefully(connection)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            await settle()
            await peer.send(*[data(b"x")] * 1000, last)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_connection_without_a_session_is_not_open(side: str, autojump_clock: MockClock) -> None:
    """It is closed in the moment in which its link is lost: who waits for a link has to wait indeed."""
    async with open_pair() as (client, there, _):
        core = core_of(client if side == "client" else there)
        assert core.link is not None
        core.link.lose(ConnectionLost("the heartbeat met silence"))
        core.close(CloseCode.NORMAL, "closed here")
        assert core.link is None
        assert core.state is ConnectionState.LOST
        with pytest.raises(ConnectionClosed, match="closed here"):
            await core.wait_open()


async def test_a_goodbye_is_answered_and_what_follows_is_read(autojump_clock: MockClock) -> None:
    async with open_to_raw(reconnect=None) as (connection, peer):
        await peer.goodbye(CloseCode.NORMAL, "done")
        (answer,) = await peer.events()
        assert answer.code == CloseCode.NORMAL
        assert connection.state is ConnectionState.LEAVING
        await peer.send(data(b"what was queued behind it"))
        assert await connection.receive() == b"what was queued behind it"
        peer.stream.close()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionClosed, match="done"):
            await connection.receive()
        assert trio.current_time() == 0


async def test_a_goodbye_without_an_end(autojump_clock: MockClock) -> None:
    async with open_to_raw(reconnect=None) as (connection, peer):
        await peer.goodbye(CloseCode.NORMAL, "done", drain=5)
        with pytest.raises(ConnectionClosed, match="done"):
            await connection.receive()
        assert trio.current_time() == 5 + 1


async def test_a_reason_is_no_place_for_a_megabyte() -> None:
    async with open_to_raw(reconnect=None) as (connection, _peer):
        core_of(connection).close(CloseCode.NORMAL, "x" * 200_000)
        assert connection.statistics().backlog < 10_000


# A stream that was given


async def test_a_given_stream_is_used_and_closed() -> None:
    one, two = trio.socket.socketpair()
    async with trio.open_nursery() as nursery:
        streams = trio.SocketStream(one), trio.SocketStream(two)
        peers: list[RawPeer] = []

        @nursery.start_soon
        async def admit() -> None:
            peers.append(await RawPeer.admit(streams[1]))

        async with heartline.open_connection(streams[0], reconnect=Backoff()) as connection:
            await connection.send(b"x")
            assert [event.payload for event in await peers[0].events()] == [b"x"]
            await streams[1].aclose()
            with pytest.raises(heartline.HeartlineError):
                await connection.receive()
    assert one.fileno() == -1


async def test_a_given_stream_that_is_closed_outside(tmp_path: Path) -> None:
    """Its descriptor may be another file's at once: not a byte goes there."""
    one, two = trio.socket.socketpair()
    number = one.fileno()
    opened: list[int] = []
    async with trio.open_nursery() as nursery:
        given = trio.SocketStream(one)
        nursery.start_soon(RawPeer.admit, trio.SocketStream(two))
        async with heartline.open_connection(given, reconnect=None) as connection:
            given.socket.close()
            while number not in opened:
                opened.append(os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT))
            # A lone call is written at once, wherever the stream is known to be nobody else's.
            with pytest.raises(heartline.CallInterrupted):
                await connection.service("Secret").secret()
            with pytest.raises(ConnectionLost):
                await connection.receive()
    for descriptor in opened:
        os.close(descriptor)
    assert (tmp_path / "other").read_bytes() == b""
    two.close()


async def test_ctrl_c_in_a_method_is_a_goodbye_too(autojump_clock: MockClock) -> None:
    """To whoever called it, and to everybody else: nobody waits for a session that has gone."""

    @heartline.service
    class Careless:
        def interrupt(self) -> None:
            raise KeyboardInterrupt

    async with trio.open_nursery() as nursery:
        reasons = {}

        async def visit(url: str, name: str, *, task_status: trio.TaskStatus[Connection]) -> None:
            async with heartline.open_connection(url, identity=name, heartbeat=QUIET) as client:
                events = client.events()
                task_status.started(client)
                lost = await anext(events)
                assert isinstance(lost, heartline.Lost)
                reasons[name] = lost.reason

        with pytest.raises(KeyboardInterrupt):
            async with heartline.open_server("memory://", services=[Careless()], heartbeat=QUIET) as server:
                client = await nursery.start(visit, server.urls[0], "one")
                await nursery.start(visit, server.urls[0], "two")
                with pytest.raises(heartline.CallInterrupted):
                    await client.service("Careless").interrupt()
                await trio.sleep_forever()
        await trio.sleep(1)
        assert set(reasons) == {"one", "two"}
        for reason in reasons.values():
            assert isinstance(reason, ConnectionClosed)
            assert reason.code == CloseCode.GOING_AWAY
