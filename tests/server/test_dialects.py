"""The first byte of a stream says who serves it; what nobody serves is answered, and ends."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import CloseCode, ConfigurationError, Limits, RemoteProtocolError, Server
from heartline.server import Visit
from heartline.wire import FrameType
from tests.opening import open_stream
from tests.patience import PATIENCE

from ..connection.helpers import QUIET, SOCKETS, no_leaks, settle, url_of
from .test_handshake import answer, hello

KINDS = ["memory://", *SOCKETS]
kinds = pytest.mark.parametrize("kind", KINDS)

PLAIN = b"This port speaks heartline: use heartline.open_connection with a %s:// URL.\n"


async def talk(url: str, sent: bytes, *, dripping: bool = False) -> bytes:
    """Say this, and read up to the end of the stream."""
    received = b""
    async with await open_stream(url) as stream, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def say() -> None:
            try:
                for start in range(len(sent)) if dripping else (0,):
                    await stream.send_all(sent[start : start + 1] if dripping else sent)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it was answered before the end

        try:
            while some := await stream.receive_some():
                received += some
        except trio.BrokenResourceError:
            pass  # a reset behind the answer
        nursery.cancel_scope.cancel()
    return received


@asynccontextmanager
async def watched(kind: str, directory: Any, **settings: Any) -> AsyncIterator[Server]:
    """A server at which nothing happens to a bystander."""
    async with (
        heartline.open_server(url_of(kind, directory), **settings) as server,
        heartline.open_connection(server.urls[0], identity="bystander") as bystander,
    ):
        with trio.fail_after(PATIENCE):
            yield server
        await bystander.send("still here")
        assert await server.connections["bystander"].receive() == "still here"
        assert bystander.statistics().links == 1


# What nobody speaks


@kinds
@pytest.mark.parametrize("dripping", [False, True])
async def test_http_is_answered_in_http(kind: str, dripping: bool, tmp_path: object) -> None:
    async with watched(kind, tmp_path) as server:
        request = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        head, _, body = (await talk(server.urls[0], request, dripping=dripping)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"\r\nConnection: close\r\n" in head
        assert f"\r\nContent-Length: {len(body)}".encode() in head
        assert body == PLAIN % server.urls[0].partition(":")[0].encode()
        assert server.statistics().refused == 1


async def test_a_head_request_is_answered_without_a_body(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://") as server:
        received = await talk(server.urls[0], b"HEAD / HTTP/1.1\r\n\r\n")
        assert received.endswith(b"\r\n\r\n")


@kinds
@pytest.mark.parametrize("dripping", [False, True])
async def test_anything_else_is_told_in_a_line(kind: str, dripping: bool, tmp_path: object) -> None:
    async with watched(kind, tmp_path) as server:
        line = PLAIN % server.urls[0].partition(":")[0].encode()
        for first in (0x01, 0x15, 0x17, ord("a"), 0x80, 0xFF):
            assert await talk(server.urls[0], bytes([first]) * 30, dripping=dripping) == line


@pytest.mark.parametrize("kind", ["tcp://127.0.0.1:0", "unix"])
async def test_a_tls_client_gets_an_alert_at_once(kind: str, tmp_path: object) -> None:
    context = ssl.create_default_context()
    async with watched(kind, tmp_path) as server:
        async with await open_stream(server.urls[0]) as inner:
            stream = trio.SSLStream(inner, context, server_hostname="localhost", https_compatible=True)
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.do_handshake()
            assert isinstance(caught.value.__cause__, ssl.SSLError)
            assert "ALERT_HANDSHAKE_FAILURE" in str(caught.value.__cause__)


async def test_a_client_with_the_wrong_scheme_is_told_so_at_once() -> None:
    async with heartline.open_server("tcp://127.0.0.1:0") as server:
        for scheme, word in (("tls", "handshake failure.* tcp://"), ("ws", "400 .* with a tcp:// URL")):
            with pytest.raises(heartline.ConnectionFailed, match=word):
                async with heartline.open_connection(server.urls[0].replace("tcp", scheme)):
                    pass


async def test_a_client_without_websocket_at_a_websocket_port_is_told_so() -> None:
    async with heartline.open_server("ws://127.0.0.1:0") as server:
        with pytest.raises(RemoteProtocolError, match=r"the peer answered in HTTP: .* ws://"):
            async with heartline.open_connection(server.urls[0].replace("ws", "tcp").rstrip("/")):
                pass


@pytest.mark.parametrize("first", [b"G", b"\x16", b"\xff"])
async def test_whoever_does_not_read_the_answer_costs_a_second(
    first: bytes, autojump_clock: MockClock
) -> None:
    with no_leaks():
        async with heartline.open_server("memory://") as server:
            stream = await open_stream(server.urls[0])
            await stream.send_all(first * 10)
            await trio.sleep(1.1)
            assert server.statistics().handshaking == 0
            await stream.aclose()


async def test_they_are_logged_with_address_and_reason(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "heartline.server")
    async with heartline.open_server("memory://") as server:
        for sent in (b"GET /", b"\x16\x03", b"\x80"):
            await talk(server.urls[0], sent)
    refusals = [record.getMessage() for record in caplog.records if record.module == "_refusals"]
    assert [line.partition(": ")[2] for line in refusals] == [
        "it speaks HTTP, and this port does not",
        "it speaks TLS, and this port does not",
        "its first byte is 0x80, which no dialect serves",
    ]


# What is native


@kinds
async def test_a_native_greeting_may_come_byte_by_byte(kind: str, tmp_path: object) -> None:
    async with watched(kind, tmp_path) as server:
        async with await open_stream(server.urls[0]) as stream:
            for byte in hello(identity="drop by drop"):
                await stream.send_all(bytes([byte]))
            assert (await stream.receive_some())[4] == FrameType.WELCOME
            assert "drop by drop" in server.connections


async def test_a_native_stream_is_served_as_it_is(autojump_clock: MockClock) -> None:
    """No layer around it: the bytes that were read are handed on beside it."""
    async with (
        heartline.open_server("tcp://127.0.0.1:0") as server,
        heartline.open_connection(server.urls[0]) as client,
    ):
        link = server.connections[client.id]._core.link
        assert link is not None
        assert type(link.stream) is trio.SocketStream


# A dialect of somebody else's

BEAT = 0xAB


class Beats:
    """A protocol of heartbeats alone, as a layer above may add one: two bytes each, the second a number."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.visits: list[Visit] = []
        self.over = 0

    async def __call__(self, stream: trio.abc.Stream, first: bytes, visit: Visit) -> None:
        self.visits.append(visit)
        try:
            rest = bytearray(first)
            while True:
                while len(rest) >= 2:
                    self.heard.append(rest[1])
                    del rest[:2]
                    visit.settle()
                    await stream.send_all(b"ok")
                some = await stream.receive_some()
                if not some:
                    return
                rest += some
        finally:
            self.over += 1


@kinds
@pytest.mark.parametrize("dripping", [False, True])
async def test_another_protocol_lives_at_the_same_port(kind: str, dripping: bool, tmp_path: object) -> None:
    beats = Beats()
    async with watched(kind, tmp_path, dialects={BEAT: beats}) as server:
        async with await open_stream(server.urls[0]) as stream:
            sent = bytes([BEAT, 1, BEAT, 2])
            for start in range(4) if dripping else (0,):
                await stream.send_all(sent[start : start + 1] if dripping else sent)
            received = b""
            while len(received) < 4:
                received += await stream.receive_some()
            assert beats.heard == [1, 2]
            (visit,) = beats.visits
            assert (visit.peer.url, visit.peer.identity) == (server.urls[0], None)
            assert visit.peer.address
            assert server.statistics().handshaking == 0
        while not beats.over:
            await trio.sleep(0.01)
        assert server.statistics().refused == 0
        assert list(server.connections) == ["bystander"]


async def test_one_that_raises_as_it_is_cut_off_gets_no_native_word_either(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail_in_cleanup(_stream: trio.abc.Stream, _first: bytes, _visit: Visit) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ZeroDivisionError("a bug")

    async with heartline.open_server("memory://", dialects={BEAT: fail_in_cleanup}) as server:
        async with await open_stream(server.urls[0]) as stream:
            await stream.send_all(bytes([BEAT]))
            assert await stream.receive_some() == b""
        assert server.statistics().refused == 1
    assert "ZeroDivisionError" in caplog.text


async def test_until_it_settles_it_shakes_hands(autojump_clock: MockClock) -> None:
    beats = Beats()
    limits = Limits(handshake_timeout=5)
    async with heartline.open_server("memory://", dialects={BEAT: beats}, limits=limits) as server:
        settled, hesitant = [await open_stream(server.urls[0]) for _ in range(2)]
        await settled.send_all(bytes([BEAT, 1]))
        await hesitant.send_all(bytes([BEAT]))
        await settle()
        assert server.statistics().handshaking == 1
        await trio.sleep(10_000)
        await settled.send_all(bytes([BEAT, 2]))
        assert await settled.receive_some() == b"ok"
        assert await hesitant.receive_some() == b"", "no word of a protocol that it does not speak"
        assert beats.over == 1
        assert server.statistics().refused == 1
        for stream in (settled, hesitant):
            await stream.aclose()


async def test_it_ends_with_the_server(autojump_clock: MockClock) -> None:
    beats = Beats()
    with no_leaks():
        async with heartline.open_server("memory://", dialects={BEAT: beats}) as server:
            stream = await open_stream(server.urls[0])
            await stream.send_all(bytes([BEAT, 1]))
            await settle()
        assert beats.over == 1
        assert trio.current_time() == 0
        await stream.aclose()


@pytest.mark.parametrize("error", [ZeroDivisionError(), ExceptionGroup("", [ValueError()])])
async def test_one_that_raises_harms_its_stream_alone(
    error: Exception, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def faulty(stream: trio.abc.Stream, first: bytes, visit: Visit) -> None:
        visit.settle()
        await trio.sleep(1)
        raise error

    async with watched("memory://", None, dialects={BEAT: faulty}) as server:
        assert await talk(server.urls[0], bytes([BEAT])) == b""
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "0xab" in record.getMessage()


async def test_it_may_take_the_place_of_an_answer_and_turn_away(autojump_clock: MockClock) -> None:
    async def teapot(stream: trio.abc.Stream, first: bytes, visit: Visit) -> None:
        await visit.turn_away(stream, b"HTTP/1.1 418 I'm a teapot\r\n\r\n", "it wants coffee")

    async with heartline.open_server("memory://", dialects={ord("G"): teapot}) as server:
        assert (await talk(server.urls[0], b"GET /coffee")).startswith(b"HTTP/1.1 418")
        assert (await talk(server.urls[0], b"PUT /coffee")).startswith(b"HTTP/1.1 400")
        assert server.statistics().refused == 2


@pytest.mark.parametrize(
    "wrong", [{0: Beats()}, {256: Beats()}, {"G": Beats()}, {True: Beats()}, {7: 7}, [7]]
)
async def test_what_cannot_be_a_dialect_is_refused_where_it_is_given(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="dialects"):
        async with heartline.open_server("memory://", dialects=wrong):
            pass


async def test_a_native_peer_is_refused_natively(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        stream = await open_stream(server.urls[0])
        await stream.send_all(hello(version=9))
        kind, refusal = await answer(stream)
        assert (kind, refusal.code) == (FrameType.REFUSE, CloseCode.UNSUPPORTED_VERSION)
