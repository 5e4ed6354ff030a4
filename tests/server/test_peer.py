"""Who is at the other end: what ``authenticate`` judges, and what both ends are told later."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import ConfigurationError, ConnectionRefusedByPeer, Peer
from heartline.testing import memory_pair
from heartline.transports import Listener, StreamInfo, TransportContext, _registry, describe
from tests.opening import open_stream
from tests.transports.test_peer import make_mutual

from ..connection.helpers import QUIET, SOCKETS, cut, settle, url_of
from .helpers import vouch

KINDS = ["memory://", *SOCKETS]


class Judge:
    """An ``authenticate`` that keeps what it was shown."""

    def __init__(self, answer: Callable[[Peer], str | None] = vouch) -> None:
        self.shown: list[Peer] = []
        self._answer = answer

    async def __call__(self, peer: Peer) -> str | None:
        self.shown.append(peer)
        return self._answer(peer)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_that_was_given_knows_its_peer_too(kind: str, tmp_path: object) -> None:
    async with heartline.open_server(url_of(kind, tmp_path)) as server:
        stream = await open_stream(server.urls[0])
        known = describe(stream)
        async with heartline.open_connection(stream) as client:
            assert client.peer == Peer.of(known, url="")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_known_of_a_client(kind: str, tmp_path: object) -> None:
    judge = Judge(lambda _: "ada")
    async with (
        heartline.open_server(url_of(kind, tmp_path), "memory://", authenticate=judge) as server,
        heartline.open_connection(server.urls[0], identity="claimed", credentials={"key": b"\0\1"}) as client,
    ):
        (peer,) = judge.shown
        assert (peer.identity, peer.credentials) == ("claimed", {"key": b"\0\1"})
        assert peer.url == server.urls[0]
        assert peer.address == server.connections["ada"].peer.address
        assert peer.certificate is None
        if kind.startswith("ws"):
            assert peer.path == "/"
            assert peer.headers["upgrade"] == "websocket"
        else:
            assert (peer.path, peer.headers) == (None, {})
        assert client.id == "ada"
        there = server.connections["ada"].peer
        assert (there.identity, there.url, there.headers) == ("claimed", peer.url, peer.headers)
        assert (client.peer.url, client.peer.identity) == (server.urls[0], None)


async def test_the_url_is_that_of_the_listener_that_accepted() -> None:
    judge = Judge()
    async with heartline.open_server("memory://", "tcp://127.0.0.1:0", authenticate=judge) as server:
        for url in server.urls:
            async with heartline.open_connection(url, identity="a"):
                assert judge.shown[-1].url == url


@pytest.mark.parametrize("scheme", ["tls", "wss"])
async def test_a_certificate_can_be_the_credentials(scheme: str) -> None:
    contexts = make_mutual(ssl.CERT_REQUIRED)

    def by_certificate(peer: Peer) -> str:
        assert peer.certificate is not None
        ((_, name),) = peer.certificate["subjectAltName"]
        assert isinstance(name, str)
        return name.partition("@")[0]

    judge = Judge(by_certificate)
    async with (
        heartline.open_server(f"{scheme}://127.0.0.1:0", tls=contexts.server, authenticate=judge) as server,
        heartline.open_connection(server.urls[0], identity="mallory", tls=contexts.client) as client,
    ):
        assert client.id == "device-7"
        assert judge.shown[0].certificate_der == server.connections["device-7"].peer.certificate_der
        assert client.peer.certificate is not None, "the server's"


async def test_no_secret_is_kept_or_shown(autojump_clock: MockClock) -> None:
    judge = Judge()
    async with (
        heartline.open_server("memory://", authenticate=judge) as server,
        heartline.open_connection(server.urls[0], identity="a", credentials="hunter2") as client,
    ):
        for connection in (client, server.connections["a"]):
            assert connection.peer.credentials is None
        assert judge.shown[0].credentials == "hunter2"
        assert "hunter2" not in repr(judge.shown[0])


async def test_a_stream_that_was_given_has_no_url(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://") as server:
        stream = await open_stream(server.urls[0])
        async with heartline.open_connection(stream) as client:
            assert client.peer.url == ""
            assert client.peer.address
            assert client.peer.address in repr(client)


async def test_another_link_is_judged_again(autojump_clock: MockClock) -> None:
    """It may come from elsewhere, and whoever is not let in any more is out with the next link."""
    judge = Judge()
    async with (
        heartline.open_server("memory://", authenticate=judge, heartbeat=QUIET) as server,
        heartline.open_connection(server.urls[0], identity="a", heartbeat=QUIET) as client,
    ):
        before = server.connections["a"].peer
        cut(client)
        await trio.sleep(60)
        assert client.statistics().resumed == 1
        assert len(judge.shown) == 2
        assert server.connections["a"].peer == before
        assert server.connections["a"].peer is not before


class Describing(trio.abc.Stream):
    """A stream of another make, which tells of its peer itself."""

    def __init__(self, inner: trio.abc.Stream, answer: Callable[[], StreamInfo]) -> None:
        self._inner = inner
        self.describe_peer = answer

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._inner.aclose()


class Describers(trio.abc.Listener[trio.abc.Stream]):
    """Accepts streams that tell of their peers what ``answer`` says; ``connect`` gives the other ends."""

    def __init__(self, answer: Callable[[], StreamInfo]) -> None:
        self._answer = answer
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](9)

    async def connect(self) -> trio.abc.Stream:
        here, there = memory_pair()
        await self._send.send(Describing(there, self._answer))
        return here

    async def accept(self) -> trio.abc.Stream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_describing(
    answer: Callable[[], StreamInfo], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[heartline.Server, Describers]]:
    describers = Describers(answer)

    async def connect(_url: str, _context: TransportContext) -> trio.abc.Stream:
        return await describers.connect()

    async def listen(url: str, _context: TransportContext) -> list[Listener]:
        await trio.lowlevel.checkpoint()
        return [Listener(describers, url)]

    monkeypatch.setitem(_registry._transports, "describing", _registry.Transport(connect, listen))
    async with heartline.open_server("describing://", "memory://") as server:
        yield server, describers


async def test_a_stream_is_asked_once(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer() -> StreamInfo:
        asked.append(1)
        return StreamInfo(address="satellite 7", headers={"dish": "left"})

    async with open_describing(answer, monkeypatch) as (server, describers):
        async with heartline.open_connection(await describers.connect(), identity="a"):
            assert server.connections["a"].peer == Peer(
                address="satellite 7", headers={"dish": "left"}, url="describing://", identity="a"
            )
            assert len(asked) == 1


async def test_a_stream_that_cannot_tell_harms_itself_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def answer() -> StreamInfo:
        raise RuntimeError("a bug of the transport's")

    async with open_describing(answer, monkeypatch) as (server, describers):
        async with heartline.open_connection(server.urls[1]) as bystander:
            with pytest.raises(ConnectionRefusedByPeer, match="internal error") as caught:
                async with heartline.open_connection(await describers.connect()):
                    pass
            assert not caught.value.terminal
            await settle()
            assert list(server.connections) == [bystander.id]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "a bug of the transport's" in caplog.text


@pytest.mark.parametrize("wrong", ["a token", 5, {"ada": "secret"}])
async def test_what_is_no_function_is_refused_where_it_is_given(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="authenticate must be callable"):
        async with heartline.open_server("memory://", authenticate=wrong):
            pass
