"""Credentials by a function: asked at every handshake, so that a token can be renewed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import (
    Backoff,
    CloseCode,
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionRefusedByPeer,
    ConnectionState,
    Limits,
    Lost,
    Peer,
    Server,
)
from tests.connection.helpers import QUIET, cut

SECOND = Backoff(initial=1.0, maximum=1.0)


class Gate:
    """An ``authenticate`` that wants a certain token."""

    def __init__(self, token: Any) -> None:
        self.token = token
        self.shown: list[Any] = []

    def __call__(self, peer: Peer) -> str:
        self.shown.append(peer.credentials)
        if peer.credentials != self.token:
            raise PermissionError("the token has expired")
        return "ada"


@asynccontextmanager
async def open_gate(
    gate: Callable[[Peer], str], credentials: Any, **settings: Any
) -> AsyncIterator[tuple[Server, Connection]]:
    settings = {"reconnect": SECOND, "heartbeat": QUIET, **settings}
    async with (
        heartline.open_server("memory://", authenticate=gate, heartbeat=QUIET) as server,
        heartline.open_connection(server.urls[0], credentials=credentials, **settings) as client,
    ):
        yield server, client


def in_turn(*answers: Any) -> Callable[[], Any]:
    """A function that gives, or raises, one after the other, and then the last one again."""
    rest = list(answers)

    def ask() -> Any:
        answer = rest.pop(0) if len(rest) > 1 else rest[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return ask


def async_(function: Callable[[], Any]) -> Callable[[], Any]:
    async def ask() -> Any:
        await trio.sleep(0.1)
        return function()

    return ask


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_it_is_asked_at_every_handshake(asynchronous: bool, autojump_clock: MockClock) -> None:
    gate = Gate("t1")
    source = in_turn("t1", "t2", "t3")
    async with open_gate(gate, async_(source) if asynchronous else source) as (_, client):
        assert gate.shown == ["t1"]
        gate.token = "t2"  # days later the first one is not good any more
        cut(client)
        await trio.sleep(10)
        assert client.state is ConnectionState.OPEN
        assert client.statistics().resumed == 1
        assert gate.shown == ["t1", "t2"]


async def test_a_session_that_is_forgotten_takes_another_one(autojump_clock: MockClock) -> None:
    """Two handshakes, and a server may take each token once."""
    shown = []

    def once(peer: Peer) -> str:
        if peer.credentials in shown:
            raise PermissionError("a token is good once")
        shown.append(peer.credentials)
        return f"client {len(shown)}"  # so that there is no session of that name

    tokens = iter(range(100))
    async with open_gate(once, lambda: next(tokens)) as (_, client):
        cut(client)
        await trio.sleep(10)
        assert client.state is ConnectionState.OPEN
        assert client.statistics().resumed == 0
        assert shown == [0, 1, 2]


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("a bug"),
        OSError("no token service"),
        ConnectionRefusedByPeer(102, "not by the server, by the token service", terminal=True),
        ExceptionGroup("", [ValueError()]),
    ],
)
async def test_what_it_raises_first_comes_out_as_it_is(error: Exception, autojump_clock: MockClock) -> None:
    with pytest.raises(type(error)) as caught:
        async with open_gate(Gate("t1"), in_turn(error)):
            pass
    assert caught.value is error or isinstance(error, ExceptionGroup)  # which nurseries build anew


@pytest.mark.parametrize(
    "error",
    [
        OSError("no token service"),
        ConnectionRefusedByPeer(102, "not by the server, by the token service", terminal=True),
        ConnectionClosed("to the token service", code=CloseCode.KICKED, by_peer=True),
    ],
)
async def test_what_it_raises_later_is_a_failed_attempt(
    error: Exception, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_gate(Gate("t1"), in_turn("t1", error, error, "t1")) as (_, client):
        cut(client)
        await trio.sleep(10)
        assert client.state is ConnectionState.OPEN
        assert client.statistics().resumed == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert str(error) in caplog.text


@pytest.mark.parametrize("unfit", [object(), b"x" * 300_000])
async def test_what_cannot_be_sent_is_a_failed_attempt_too(unfit: object, autojump_clock: MockClock) -> None:
    async with open_gate(Gate("t1"), in_turn("t1", unfit, "t1")) as (_, client):
        cut(client)
        await trio.sleep(10)
        assert client.state is ConnectionState.OPEN


async def test_attempts_are_bounded_as_any(autojump_clock: MockClock) -> None:
    backoff = Backoff(initial=1.0, maximum=1.0, attempts=3)
    async with open_gate(Gate("t1"), in_turn("t1", OSError("gone")), reconnect=backoff) as (_, client):
        cut(client)
        with pytest.raises(ConnectionFailed, match="gave up"):
            while True:
                await client.receive()


async def test_one_that_hangs_has_the_time_of_a_handshake(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionFailed, match="no credentials within 7 s"):
        async with open_gate(Gate("t1"), trio.sleep_forever, limits=Limits(handshake_timeout=7)):
            pass
    assert trio.current_time() == 7


async def test_the_server_does_not_wait_for_it(autojump_clock: MockClock) -> None:
    """A token service that takes its time must not cost the time of the server's handshake."""

    async def slow() -> str:
        await trio.sleep(9.9)
        return "t1"

    async with open_gate(Gate("t1"), slow, limits=Limits(handshake_timeout=10)) as (server, _):
        assert server.statistics().accepted == 1


async def test_credentials_that_are_not_accepted_any_more_are_asked_for_again(
    autojump_clock: MockClock,
) -> None:
    """Whoever renews them may be late by some seconds, or minutes; the backoff bounds the attempts."""
    gate = Gate("t1")
    token = "t1"
    async with open_gate(gate, lambda: token) as (_, client):
        gate.token = "t2"
        cut(client)
        await trio.sleep(20)
        assert client.state is ConnectionState.LOST
        assert 10 < len(gate.shown) < 80
        token = "t2"
        await trio.sleep(2)
        assert client.state is ConnectionState.OPEN


async def test_so_are_those_that_expire_while_the_link_is_up(autojump_clock: MockClock) -> None:
    gate = Gate("t1")
    async with open_gate(gate, in_turn("t1", "t2")) as (server, client):
        events = client.events()
        gate.token = "t2"
        await server.close_connection("ada", code=CloseCode.UNAUTHENTICATED, reason="token expired")
        await trio.sleep(5)
        assert client.state is ConnectionState.OPEN
        assert isinstance(await anext(events), Lost)


@pytest.mark.parametrize("credentials", ["t1", lambda: "t1"])
async def test_being_thrown_out_is_final_with_either(credentials: Any, autojump_clock: MockClock) -> None:
    async with open_gate(Gate("t1"), credentials) as (server, client):
        await server.close_connection("ada")
        await trio.sleep(5)
        assert client.state is ConnectionState.CLOSED


async def test_a_refusal_of_a_value_is_final_logged_and_named_by_every_later_error(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate("t1")
    async with open_gate(gate, "t1") as (_, client):
        gate.token = "t2"
        cut(client)
        await trio.sleep(10)
        assert client.state is ConnectionState.CLOSED
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "has ended" in record.getMessage()
        assert "the token has expired" in record.getMessage()
        for use in (
            client.send("x"),
            client.receive(),
            client.wait_open(),
            client.open_channel("x"),
            client.accept_channel(),
            client.service("Any").method(),
        ):
            with pytest.raises(heartline.HeartlineError, match="the token has expired"):
                await use
        with pytest.raises(heartline.HeartlineError, match="the token has expired"):
            client.send_nowait("x")
        with pytest.raises(heartline.HeartlineError, match="the token has expired"):
            async with client.subscribe("x") as updates:
                await anext(updates)


@pytest.mark.parametrize("way", ["left", "closed"])
async def test_an_end_of_its_own_is_no_news(
    way: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_gate(Gate("t1"), "t1") as (_, client):
        if way == "closed":
            await client.aclose()
    assert not caplog.records


async def test_what_the_server_says_is_shown_in_one_line(autojump_clock: MockClock) -> None:
    def deny(_peer: Peer) -> None:
        raise PermissionError("no\n\x1b[31mERROR: all is lost")

    async with heartline.open_server("memory://", authenticate=deny) as server:
        with pytest.raises(ConnectionRefusedByPeer) as caught:
            async with heartline.open_connection(server.urls[0]):
                pass
    assert caught.value.reason == "no\\n\\x1b[31mERROR: all is lost"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("way", ["raises", "is wrong"])
async def test_an_hour_without_credentials_is_a_page_of_log(
    way: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def credentials() -> str:
        if way == "raises" and server.statistics().accepted:
            raise OSError("the service for tokens is down")
        return "right" if not server.statistics().accepted else "expired"

    def authenticate(peer: heartline.Peer) -> None:
        if peer.credentials != "right":
            raise PermissionError

    caplog.set_level(logging.WARNING, "heartline.link")
    async with (
        heartline.open_server("memory://", authenticate=authenticate, heartbeat=QUIET) as server,
        heartline.open_connection(server.urls[0], credentials=credentials, heartbeat=QUIET) as client,
    ):
        cut(client)
        await trio.sleep(3600)
    assert 20 < len(caplog.records) < 40, "of four attempts a minute"
    assert sum(record.exc_info is not None for record in caplog.records) <= 22
