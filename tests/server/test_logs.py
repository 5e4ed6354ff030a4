"""What a server's log says of beginnings: where it listens, and who was let in."""

from __future__ import annotations

import errno
import logging
import os
import re
from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import CloseCode, ConnectionClosed, ConnectionLost, Observer, Peer
from heartline._summaries import FIRST_PERIOD, LINES
from heartline.server import Visit
from heartline.transports import Listener
from heartline.transports.memory import use_network
from tests.engine import link_of
from tests.opening import open_stream
from tests.rpc.helpers import QUIET, raw_client


async def test_where_it_listens_and_who_was_let_in(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heartline.server")

    def authenticate(peer: Peer) -> str:
        addresses.append(peer.address)
        return "ada"

    addresses: list[str] = []
    async with heartline.open_server(
        "tcp://127.0.0.1:0", "memory://here", authenticate=authenticate
    ) as server:
        async with heartline.open_connection(server.urls[0]):
            pass
    listening, let_in = caplog.records
    assert listening.getMessage() == f"listening on {server.urls[0]}, memory://here"
    assert let_in.getMessage() == f"ada at {addresses[0]}: let in"
    assert listening.levelno == let_in.levelno == logging.INFO


@pytest.mark.parametrize(
    ("code", "name"), [(CloseCode.NORMAL, ""), (CloseCode.KICKED, r" \(KICKED\)"), (77, r" \(code 77\)")]
)
async def test_a_goodbye_names_its_code_unless_it_is_normal(code: int, name: str) -> None:
    async with (
        heartline.open_server("memory://") as server,
        heartline.open_connection(server.urls[0], reconnect=None) as client,
    ):
        await server.close_connection(client.id, code=code, reason="enough")
        with pytest.raises(ConnectionClosed, match=rf"enough{name}$"):
            await client.receive()


# What peers can cause again and again


async def test_short_visits_do_not_hide_the_loss_of_a_worker(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO, "heartline.link")
    limits = heartline.Limits(resume_window=5)
    async with heartline.open_server("memory://", limits=limits) as server, AsyncExitStack() as stack:
        worker = await stack.enter_async_context(raw_client(server.urls[0], limits))
        (connection,) = server.connections.values()
        for _ in range(5 * LINES):
            async with heartline.open_connection(server.urls[0]):
                pass
        caplog.clear()
        await trio.aclose_forcefully(worker.stream)
        await trio.sleep(10)
        told = [record.getMessage() for record in caplog.records if connection.id in record.getMessage()]
        assert len(told) == 1
        assert "the connection has ended: no link within 5 s (Limits.resume_window)" in told[0]


class FullListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener of a system that is short of descriptors."""

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class FullNetwork:
    def listen(self, name: str = "", *, backlog: int) -> Listener:
        return Listener(FullListener(), f"memory://{name}")

    async def connect(self, name: str) -> trio.abc.Stream:
        raise NotImplementedError


async def test_a_lack_of_descriptors_is_a_page_without_tracebacks(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    use_network(FullNetwork())
    async with heartline.open_server("memory://here"):
        await trio.sleep(300)
    assert LINES < len(caplog.records) < 2 * LINES
    assert not any(record.exc_info for record in caplog.records)
    assert "Too many open files" in caplog.records[0].getMessage()
    assert sum(int(count) for count in re.findall(r"(\d+) failures to accept", caplog.text)) > 2_900


async def test_a_dialect_that_raises_each_time_is_no_flood(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async def faulty(_stream: trio.abc.Stream, _first: bytes, _visit: Visit) -> None:
        raise ZeroDivisionError

    async with heartline.open_server("memory://", dialects={0xAB: faulty}) as server:
        for _ in range(5 * LINES):
            async with await open_stream(server.urls[0]) as stream:
                await stream.send_all(b"\xab")
                assert await stream.receive_some() == b""
        await trio.sleep(FIRST_PERIOD)
    assert sum(record.exc_info is not None for record in caplog.records) == LINES
    assert f"{4 * LINES} dialects raised" in caplog.text


async def test_peers_that_do_not_read_are_summed_up(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.WARNING, "heartline")
    async with heartline.open_server("memory://", heartbeat=QUIET) as server, AsyncExitStack() as peers:
        for _ in range(2 * LINES):
            await peers.enter_async_context(raw_client(server.urls[0]))
        for connection in server.connections.values():
            link_of(connection)._end_unread(ConnectionLost("it does not read"))
        await trio.sleep(FIRST_PERIOD + 1)
    assert sum("is given up" in record.getMessage() for record in caplog.records) == LINES
    assert f"{LINES} given up" in caplog.text


async def test_an_observer_that_raises_each_time_is_no_flood(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    class Faulty(Observer):
        def update_published(self, topic: str, offset: int, size: int) -> None:
            raise ZeroDivisionError

    async with heartline.open_server("memory://", observers=[Faulty()]) as server:
        for number in range(5 * LINES):
            await server.publish("topic", number)
    assert sum(record.exc_info is not None for record in caplog.records) == LINES
    assert f"{4 * LINES} observers raised" in caplog.text
