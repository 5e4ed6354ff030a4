"""What a log says of links: the right level, once, on one line, and no traceback for what a peer did."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import Backoff, CloseCode, ConnectionRefusedByPeer, Peer
from heartline.transports.memory import current_network
from heartline.wire.text import printable
from tests.opening import open_stream
from tests.rpc.helpers import QUIET, cut, raw_client, raw_server, settle

FORGED = "bye\n2026-01-01 CRITICAL root: \x1b[31mall is lost\r\u2028\x00"

AGAIN = Backoff(initial=0.1, maximum=0.1)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "heartline")
    return caplog


def lines(log: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno == level]


async def test_a_link_that_comes_back_is_no_reason_to_worry(
    log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with (
        heartline.open_server("memory://here") as server,
        heartline.open_connection(server.urls[0], identity="ada", reconnect=AGAIN) as client,
    ):
        cut(client)
        await trio.sleep(5)
    assert not [record for record in log.records if record.levelno > logging.INFO]
    told = [line for line in lines(log, logging.INFO) if line.startswith("ada at memory://here:")]
    assert [line.split(": ")[1] for line in told] == [
        "lost",
        "there is a link again, for its session",
        "the connection has ended",
    ]
    attempts = [line for line in lines(log, logging.DEBUG) if "attempt" in line]
    assert len(attempts) == 1
    assert attempts[0].startswith("ada at memory://here: attempt 1 in ")


@pytest.mark.parametrize("how", ["goodbye", "refused", "gave up"])
async def test_the_end_for_good_is_one_warning_with_its_reason(
    how: str, log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    def authenticate(peer: Peer) -> str | None:
        if how == "refused" and server.statistics().accepted:
            raise PermissionError("not any more")
        return peer.identity

    reasons = {
        "goodbye": "you may go",
        "refused": "not any more",
        "gave up": "gave up reconnecting (Backoff.attempts): nobody there",
    }

    async def unreachable(_name: str) -> None:
        raise heartline.ConnectionFailed("nobody there")

    async with (
        heartline.open_server("memory://", authenticate=authenticate) as server,
        heartline.open_connection(
            server.urls[0], identity="ada", reconnect=Backoff(initial=0.1, maximum=0.1, attempts=3)
        ) as client,
    ):
        if how == "goodbye":
            await server.close_connection("ada", code=CloseCode.UNAUTHENTICATED, reason="you may go")
        else:
            if how == "gave up":
                current_network().connect = unreachable  # type: ignore[method-assign, assignment]
            cut(client)
        await trio.sleep(60)
    warnings = [record for record in log.records if record.levelno > logging.INFO]
    assert [record.levelno for record in warnings] == [logging.WARNING]
    assert "ada at memory://" in warnings[0].getMessage()
    assert "the connection has ended: " in warnings[0].getMessage()
    assert reasons[how] in warnings[0].getMessage()
    assert warnings[0].exc_info is None


async def test_a_peer_that_breaks_the_rules_leaves_no_traceback(
    log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        async with raw_client(server.urls[0]) as peer:
            await peer.stream.send_all(b"\xff" * 64)
            await trio.sleep(5)
        stream = await open_stream(server.urls[0])
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            await trio.sleep(30)
        await settle()
    assert log.records
    assert not [record for record in log.records if record.exc_info or record.levelno > logging.INFO]


async def test_a_servers_words_stay_on_one_line(
    log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with raw_server(reconnect=None) as (connection, peer):
        peer.session.go_away(CloseCode.NORMAL, FORGED)
        await peer.flush()
        await trio.sleep(5)
        assert connection.state is heartline.ConnectionState.CLOSED
    _check_lines(log)


async def test_a_clients_words_stay_on_one_line(
    log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with heartline.open_server("memory://") as server:
        async with raw_client(server.urls[0]) as peer:
            peer.session.go_away(CloseCode.NORMAL, FORGED)
            await peer.flush()
            await trio.sleep(5)
        await settle()
    _check_lines(log)


async def test_a_refusals_words_stay_on_one_line(
    log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    def authenticate(peer: Peer) -> str | None:
        raise PermissionError(FORGED)

    async with heartline.open_server("memory://", authenticate=authenticate) as server:
        with pytest.raises(ConnectionRefusedByPeer) as caught:
            async with heartline.open_connection(server.urls[0]):
                pass
    assert caught.value.reason.isprintable()
    _check_lines(log)


def _check_lines(log: pytest.LogCaptureFixture) -> None:
    assert any(printable(FORGED) in record.getMessage() for record in log.records)
    for record in log.records:
        assert record.getMessage().isprintable()
