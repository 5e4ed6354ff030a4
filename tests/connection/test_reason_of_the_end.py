"""Once a connection is closed for good, everything says why, and the log says it once."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import Backoff, Connection, ConnectionState, HeartlineError, Peer, Server

from .helpers import QUIET, cut

AGAIN = Backoff(initial=0.1, maximum=0.1, attempts=3)


class Tokens:
    """An ``authenticate`` for which one token is good at a time."""

    def __init__(self) -> None:
        self.good = "t1"

    def check(self, peer: Peer) -> str:
        if peer.credentials != self.good:
            raise PermissionError("the token has expired")
        return "user"


async def expire(server: Server, client: Connection, tokens: Tokens) -> None:
    tokens.good = "t2"
    cut(client)


async def kick(server: Server, client: Connection, tokens: Tokens) -> None:
    await server.close_connection("user", reason="too loud")


async def drain(server: Server, client: Connection, tokens: Tokens) -> None:
    await server.drain(0)


async def leave(server: Server, client: Connection, tokens: Tokens) -> None:
    await client.aclose()


ENDS: dict[str, tuple[Callable[[Server, Connection, Tokens], Awaitable[None]], str]] = {
    "expired": (expire, "the token has expired"),
    "kicked": (kick, "too loud"),
    "given up": (drain, "the server is draining"),
    "closed here": (leave, "closed here"),
}


async def follow(client: Connection) -> None:
    async with client.subscribe("topic"):
        pass


USES: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "send": lambda client: client.send("x"),
    "receive": lambda client: client.receive(),
    "a call": lambda client: client.service("Some").method(),
    "a subscription": follow,
    "a channel": lambda client: client.open_channel("x"),
    "publish": lambda client: client.publish("topic", 1),
    "wait_open": lambda client: client.wait_open(),
}


@pytest.mark.parametrize("end", ENDS)
async def test_every_error_names_the_reason(
    end: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "heartline.link")
    tokens = Tokens()
    finish, reason = ENDS[end]
    async with heartline.open_server("memory://", authenticate=tokens.check, heartbeat=QUIET) as server:
        opening = heartline.open_connection(
            server.urls[0], credentials="t1", reconnect=AGAIN, heartbeat=QUIET
        )
        async with opening as client:
            await finish(server, client, tokens)
            await trio.sleep(10)
            assert client.state is ConnectionState.CLOSED
            for use, call in USES.items():
                with pytest.raises(HeartlineError) as caught:
                    await call(client)
                assert reason in str(caught.value), use
    said = [
        record
        for record in caplog.records
        if "the connection has ended" in record.getMessage() and server.urls[0] in record.getMessage()
    ]
    assert len(said) == 1
    assert reason in said[0].getMessage()
    assert said[0].levelno == (logging.INFO if end == "closed here" else logging.WARNING)


@pytest.mark.parametrize("code", [heartline.CloseCode.UNAUTHENTICATED, 123])
async def test_both_logs_name_the_code(
    code: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "heartline.link")
    async with (
        heartline.open_server("memory://", heartbeat=QUIET) as server,
        heartline.open_connection(server.urls[0], heartbeat=QUIET),
    ):
        await server.close_connection(next(iter(server.connections)), code=code, reason="good bye")
        await trio.sleep(10)
    name = heartline.CloseCode(code).name if isinstance(code, heartline.CloseCode) else str(code)
    said = [line for line in caplog.messages if "good bye" in line]
    assert len(said) >= 2
    for line in said:
        assert "good bye (" in line
        assert name in line
