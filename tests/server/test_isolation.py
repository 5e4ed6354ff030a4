"""What one peer does, or what goes wrong for it, is nobody else's business."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import CloseCode, Connection, ConnectionLost, Limits, RemoteProtocolError, Server
from heartline.link import Unsent
from heartline.push import Push
from heartline.rpc._wire import encode_call
from heartline.session import outbox
from heartline.session.messages import CONFIRMATION, MARK
from heartline.wire import CborSerializer, Flag, Frame, FrameType

from ..connection.helpers import QUIET, RawPeer, data, settle
from ..engine import core_of
from .helpers import open_clients


@heartline.service
class Echo:
    """A service that the others use meanwhile."""

    def echo(self, value: Any) -> Any:
        return value


@asynccontextmanager
async def bystander(channels: int = 256, **server: Any) -> AsyncIterator[tuple[Server, RawPeer, Connection]]:
    """A server, a peer to be naughty, its connection there; a third one must not notice."""
    options = {"services": [Echo()]} | server
    async with open_clients("other", server=options) as (open_server, (other,)):
        peer = await RawPeer.join(
            open_server.urls[0],
            identity="naughty",
            limits=Limits(channels=channels, memory=1 << 42, resume_window=0),
        )
        yield open_server, peer, open_server.connections["naughty"]
        assert await other.service(Echo).echo("fine") == "fine"
        await open_server.send_to("other", "fine")
        assert await other.receive() == "fine"
        assert other.statistics().links == 1


OFFENCES = {
    "unknown type": [Frame(0x77)],
    "HELLO again": [Frame(FrameType.HELLO)],
    "WELCOME to a server": [Frame(FrameType.WELCOME)],
    "malformed PING": [Frame(FrameType.PING, payload=b"x")],
    "confirmed more than was sent": [Frame(FrameType.ACK, payload=CONFIRMATION.pack(1000))],
    "PING that confirms too much": [Frame(FrameType.PING, payload=MARK.pack(0.0, 1000))],
    "GOAWAY of nonsense": [Frame(FrameType.GOAWAY, payload=b"\xff")],
    "malformed CONFIRM": [Frame(FrameType.CONFIRM)],
    "more than the window": [data(bytes(260_000))] * 3,
    "an endless message": [data(bytes(250_000), flags=Flag.MORE)] * 300,
    "too many halves": [data(b"x", number=n, flags=Flag.MORE) for n in range(80_000)],
    "an empty fragment": [data(b"x", flags=Flag.MORE), data(b"", flags=Flag.MORE)],
}


@pytest.mark.parametrize("offence", OFFENCES)
async def test_a_broken_rule_ends_one_connection(offence: str, autojump_clock: MockClock) -> None:
    limits = Limits(message_size=10_000_000)
    async with bystander(limits=limits) as (server, peer, connection):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def offend() -> None:
                try:
                    await peer.send(*OFFENCES[offence])
                except trio.BrokenResourceError:
                    pass  # it was cut off in the middle

            goodbye = (await peer.rest())[-1]
        assert goodbye.code == CloseCode.PROTOCOL_ERROR
        assert len(goodbye.reason) > 10
        with pytest.raises(RemoteProtocolError):
            while True:
                await connection.receive()
        await settle()
        assert set(server.connections) == {"other"}
        assert trio.current_time() < 1


class Buggy(Push):
    """A part with bugs."""

    def __init__(self, *where: str) -> None:
        self._where = where

    def on_frame(self, frame: Frame) -> None:
        if "frame" in self._where:
            raise ZeroDivisionError("a bug")

    def on_session_end(self, reason: Exception, unsent: Unsent) -> None:
        if "end" in self._where:
            raise ZeroDivisionError("a bug")


async def test_a_bug_ends_one_connection_and_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with bystander() as (server, peer, connection):
        core_of(connection)._parts[Push.family] = Buggy("frame")
        await peer.send(Frame(FrameType.PUSH))
        (goodbye,) = await peer.rest()
        assert goodbye.code == CloseCode.INTERNAL_ERROR
        assert "bug" not in goodbye.reason
        await settle()
        assert set(server.connections) == {"other"}
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "naughty" in record.getMessage()
    assert record.exc_info is not None


async def test_a_bug_at_the_end_of_a_link_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with bystander() as (server, peer, connection):
        core_of(connection)._parts[Push.family] = Buggy("end")
        await peer.goodbye(CloseCode.NORMAL)
        await peer.rest()
        await settle()
        assert set(server.connections) == {"other"}
    assert len(caplog.records) == 1


# Peers that do not read


async def test_credit_for_a_peer_that_never_reads_costs_no_memory(autojump_clock: MockClock) -> None:
    async with bystander() as (_server, peer, connection):
        for _ in range(5_000):
            await peer.send(data(b""))
            await connection.receive()
        assert connection.statistics().backlog < 1000


async def test_pings_of_a_peer_that_never_reads_cost_no_memory(autojump_clock: MockClock) -> None:
    async with bystander() as (_server, peer, connection):
        for _ in range(5_000):
            await peer.send(Frame(FrameType.PING, payload=MARK.pack(0.0, 0)))
        await settle()
        assert connection.statistics().backlog < 1000


async def test_answers_to_a_peer_that_never_reads_are_bounded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It calls and calls, and takes no answer; in the end its link is given up."""
    monkeypatch.setattr(outbox, "STUCK_LIMIT", 50_000)
    most = 0
    async with bystander(limits=Limits(calls=4, write_buffer=50_000)) as (server, peer, connection):
        payload, flags = encode_call(CborSerializer(), "Echo.nothing", b"Echo.nothing", (), {}, float("inf"))
        with pytest.raises(trio.BrokenResourceError):
            for number in range(100_000):
                await peer.send(Frame(FrameType.CALL, flags, 0, number, payload))
                most = max(most, connection.statistics().backlog)
        await settle()
        assert set(server.connections) == {"other"}
        assert most < 200_000
        with pytest.raises(ConnectionLost, match="does not read"):
            await connection.receive()


async def test_whatever_is_queued_for_a_peer_that_never_reads_is_bounded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its link is given up; the task that happened to queue the last frame is not to blame."""
    monkeypatch.setattr(outbox, "STUCK_LIMIT", 50_000)
    async with bystander(limits=Limits(write_buffer=50_000), channels=10_000) as (server, peer, connection):
        with pytest.raises(ConnectionLost, match=r"no link|has ended"):
            for _ in range(10_000):
                await connection.open_channel("x" * 256)
        with pytest.raises(ConnectionLost, match="does not read"):
            await connection.receive()
        assert set(server.connections) == {"other"}


async def test_garbage_that_drips_costs_no_time_of_others(autojump_clock: MockClock) -> None:
    async with bystander() as (server, peer, _connection):
        for byte in b"\0\0\x10\0\x11\0\0\0\0\0\0\0" + bytes(2000):
            await peer.stream.send_all(bytes([byte]))
        await settle()
        assert "naughty" in server.connections


async def test_ten_peers_vanish_at_once(autojump_clock: MockClock) -> None:
    async with bystander() as (server, peer, _connection):
        peers = [peer] + [await RawPeer.join(server.urls[0]) for _ in range(9)]
        assert len(server.connections) == 11
        for one in peers:
            one.stream.close()  # type: ignore[attr-defined]
        await settle()
        assert set(server.connections) == {"other"}
        assert QUIET.timeout > trio.current_time()
