"""Where reconnecting ends: a goodbye for good, a refusal, or a user who has had enough."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import (
    Backoff,
    CloseCode,
    Closed,
    ConnectionClosed,
    ConnectionLost,
    ConnectionRefusedByPeer,
    ConnectionState,
    Limits,
    Lost,
    Reconnected,
)
from heartline.link import Core, Link, connect
from heartline.session import GoAway, Role

from ..engine import link_of
from .helpers import QUIET, Highest, RawPeer, cut, no_leaks, open_pair, settle
from .scripted import SECOND, scripted, welcome_for_a_second

# When it does not


@pytest.mark.parametrize("code", [c for c in CloseCode if not c.is_terminal(c)])
async def test_it_comes_back_after_a_goodbye_that_is_not_terminal(
    code: CloseCode, autojump_clock: MockClock
) -> None:
    async with open_pair(reconnect=SECOND) as (client, there, server):
        events = client.events()
        for _ in range(3):
            start = trio.current_time()
            await server.close_connection(client.id, code=code, reason="come back later")
            lost = await anext(events)
            assert trio.current_time() == start  # answered at once, on every link
            assert isinstance(lost, Lost)
            assert isinstance(lost.reason, ConnectionClosed)
            assert (lost.reason.code, lost.reason.by_peer) == (code, True)
            assert isinstance(await anext(events), Reconnected)
            await settle()


@pytest.mark.parametrize("code", [c for c in CloseCode if c.is_terminal(c)] + [150, 10_000])
async def test_a_terminal_goodbye_is_the_end(code: int, autojump_clock: MockClock) -> None:
    async def serve(_visit: int, stream: trio.abc.Stream) -> None:
        peer = await RawPeer.admit(stream)
        await trio.sleep(1)
        await peer.goodbye(code, "stay away")
        await peer.events()
        await stream.aclose()

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=SECOND) as connection,
    ):
        name = code.name if isinstance(code, CloseCode) else f"code {code}"
        with pytest.raises(ConnectionClosed, match=rf"stay away \({name}\)$") as caught:
            await connection.receive()
        assert (caught.value.code, caught.value.by_peer) == (code, True)
        await trio.sleep(100)
        assert len(script.visits) == 1


@pytest.mark.parametrize("terminal", [False, True])
async def test_a_refusal_on_the_way_back(terminal: bool, autojump_clock: MockClock) -> None:
    code = CloseCode.UNAUTHENTICATED if terminal else CloseCode.OVERLOADED

    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        if visit == 1:
            await RawPeer.admit(stream)
            await trio.sleep(1)
        elif visit < 5:
            peer = RawPeer.of(stream, Role.SERVER)
            await peer.hello()
            peer.session.refuse(code, "no")
            await peer.flush()
        else:
            await RawPeer.admit(stream)
            await trio.sleep(100)
        await stream.aclose()

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=SECOND, heartbeat=QUIET) as connection,
    ):
        events = connection.events()
        assert isinstance(await anext(events), Lost)
        told = await anext(events)
        if terminal:
            assert isinstance(told, Closed)
            assert isinstance(told.reason, ConnectionRefusedByPeer)
            assert told.reason.code == code
            with pytest.raises(ConnectionRefusedByPeer):
                await connection.wait_open()
        else:
            assert isinstance(told, Reconnected)
        assert len(script.visits) == (2 if terminal else 5)


async def test_without_reconnect_the_first_loss_is_the_end(autojump_clock: MockClock) -> None:
    async with open_pair(reconnect=None) as (client, there, _):
        cut(there)
        with pytest.raises(ConnectionLost):
            await client.receive()
        with pytest.raises(ConnectionLost):
            await client.wait_open()
        assert client.state is ConnectionState.CLOSED


# Closed in between


async def test_closed_while_it_sleeps_between_attempts(autojump_clock: MockClock) -> None:
    with no_leaks():
        async with (
            scripted(welcome_for_a_second) as script,
            heartline.open_connection(
                script.url, reconnect=Backoff(initial=60, maximum=60), rng=Highest()
            ) as connection,
        ):
            await trio.sleep(10)
            events = connection.events()
            await connection.aclose()
            assert trio.current_time() == 10
            assert connection.state is ConnectionState.CLOSED
            await trio.sleep(1000)
            assert len(script.visits) == 1
            assert connection.state is ConnectionState.CLOSED
            (closed,) = [event async for event in events]
            assert isinstance(closed, Closed)
            assert isinstance(closed.reason, ConnectionClosed)
            assert not closed.reason.by_peer
            with pytest.raises(ConnectionClosed):
                await connection.send(b"x")


async def test_closed_while_it_shakes_hands_again(autojump_clock: MockClock) -> None:
    ends = []

    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        if visit == 1:
            await welcome_for_a_second(visit, stream)
        else:
            await stream.receive_some()
            ends.append(await stream.receive_some())

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=SECOND) as connection,
    ):
        await trio.sleep(5)
        assert len(script.visits) == 2
        await connection.aclose()
        await trio.sleep(1.5)  # a second is for the answer, which a goodbye would follow
        assert ends == [b""]
        await trio.sleep(100)
        assert len(script.visits) == 2


async def test_closed_in_the_moment_it_is_back(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt has succeeded, but its client was not told yet: no link may be left."""
    ends = []

    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        peer = await RawPeer.admit(stream)
        if visit == 1:
            await trio.sleep(1)
            await stream.aclose()
        else:
            ends.append(await peer.rest())

    async def connect_and_close(core: Core, *args: Any, **settings: Any) -> Any:
        made = await connect(core, *args, **settings)
        if core.statistics().links == 1:
            core.finish(ConnectionClosed("closed", code=0, by_peer=False))
        return made

    monkeypatch.setattr("heartline.endpoints._open.connect", connect_and_close)
    with no_leaks():
        async with (
            scripted(serve) as script,
            heartline.open_connection(script.url, reconnect=SECOND) as connection,
        ):
            await trio.sleep(5)
            assert ends == [[]]
            assert connection.state is ConnectionState.CLOSED
            assert connection.statistics().links == 1


async def test_over_in_the_moment_it_is_resumed(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer has come, and before the client looks at it its session has failed here."""
    caplog.set_level(logging.DEBUG, "heartline.link")
    over: list[Link] = []

    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        async with stream:
            peer = RawPeer.of(stream, Role.SERVER, limits=Limits())
            hello = await peer.hello()
            assert (hello.resume is not None) is (visit == 2)
            peer.session.welcome("me", token=b"token", resumed=visit == 2)
            await peer.flush()
            if visit == 2:
                over[0].give_up(ConnectionLost("the peer does not read"))
            await trio.sleep(1 if visit == 1 else 100)

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=SECOND, heartbeat=QUIET) as client,
    ):
        over.append(link_of(client))
        await trio.sleep(10)
        assert client.state is ConnectionState.OPEN
        assert len(script.visits) == 3
        assert link_of(client) is not over[0]
    assert "the session ended here while the peer resumed it" in caplog.text


async def test_goodbyes_that_cross_do_not_bring_it_back(autojump_clock: MockClock) -> None:
    """Both sides leave in the same moment: the server's invitation to come back is not taken up."""
    visits = []

    async def serve(visit: int, stream: trio.abc.Stream) -> None:
        visits.append(visit)
        peer = await RawPeer.admit(stream)
        await trio.sleep(1)
        await peer.goodbye(CloseCode.GOING_AWAY, "restarting")
        await peer.rest()
        await stream.aclose()

    async with (
        scripted(serve) as script,
        heartline.open_connection(script.url, reconnect=SECOND) as connection,
    ):
        await trio.sleep(1)
        await connection.aclose()
        with pytest.raises(ConnectionClosed) as caught:
            await connection.receive()
        assert not caught.value.by_peer
        await trio.sleep(100)
        assert visits == [1]


async def test_the_goodbye_of_a_closed_connection(autojump_clock: MockClock) -> None:
    said = []

    async def serve(_visit: int, stream: trio.abc.Stream) -> None:
        peer = await RawPeer.admit(stream)
        said.extend(await peer.events())
        await peer.goodbye(CloseCode.NORMAL)
        said.extend(await peer.rest())

    async with scripted(serve) as script, heartline.open_connection(script.url) as connection:
        await connection.aclose()
        assert trio.current_time() == 0
        await connection.aclose()
    (goodbye,) = said
    assert isinstance(goodbye, GoAway)
    assert goodbye.code == CloseCode.NORMAL
