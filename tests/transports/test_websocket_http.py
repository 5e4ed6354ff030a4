"""What a ``ws://`` port says to those who speak HTTP, or something like it, and no WebSocket."""

from __future__ import annotations

import http.client
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline import testing
from heartline.transports import Listener
from heartline.transports._websocket_stream import PATIENCE
from heartline.transports.memory import MemoryNetwork, use_network
from tests.opening import open_stream

from .conftest import websocket_over


@heartline.service
class Echo:
    """A service that an honest client uses meanwhile."""

    def echo(self, value: str) -> str:
        return value


def request(method: str, *fields: str, target: str = "/", body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: h", *fields, "\r\n"]
    return "\r\n".join(lines).encode("latin-1") + body


UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


@asynccontextmanager
async def open_port(url: str = "ws://127.0.0.1:0/") -> AsyncIterator[str]:
    """A server on real sockets, and the same address as a plain stream's; an honest client still gets in."""
    async with heartline.open_server(url, services=[Echo()]) as server:
        yield server.urls[0].replace("ws://", "tcp://").rstrip("/")
        async with heartline.open_connection(server.urls[0]) as connection:
            assert await heartline.remote(connection.service(Echo).echo)("fine") == "fine"


async def ask(address: str, words: bytes) -> http.client.HTTPResponse:
    """The answer, which the server then ends."""
    async with await open_stream(address) as stream:
        await stream.send_all(words)
        answer = bytearray()
        while chunk := await stream.receive_some():
            answer += chunk
    return parse(answer, words.partition(b" ")[0].decode())


def parse(answer: bytes | bytearray, method: str) -> http.client.HTTPResponse:
    class Socket:
        def makefile(self, _mode: str) -> object:
            import io

            return io.BytesIO(answer)

    response = http.client.HTTPResponse(Socket(), method=method)  # type: ignore[arg-type]
    response.begin()
    return response


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "OPTIONS", "BREW"])
@pytest.mark.parametrize("fields", [(), UPGRADE, ("Content-Length: 0",)])
async def test_another_method_than_get_is_not_allowed(method: str, fields: tuple[str, ...]) -> None:
    async with open_port() as address:
        response = await ask(address, request(method, *fields))
        assert (response.status, response.reason) == (405, "Method Not Allowed")
        assert response.getheader("Allow") == "GET"
        assert response.getheader("Content-Length") == "0"
        assert response.read() == b""


@pytest.mark.parametrize(
    "fields",
    [(), ("Connection: keep-alive",), ("Connection: Upgrade", *UPGRADE[2:]), ("Upgrade: websocket",)],
)
async def test_what_asks_for_no_upgrade_is_told_to(fields: tuple[str, ...]) -> None:
    async with open_port() as address:
        response = await ask(address, request("GET", *fields))
        assert (response.status, response.reason) == (426, "Upgrade Required")
        assert response.getheader("Upgrade") == "websocket"
        assert {"Upgrade", "close"} == set((response.getheader("Connection") or "").split(", "))
        assert response.getheader("Sec-WebSocket-Version") == "13"
        body = response.read()
        assert body.startswith(b"This port speaks WebSocket: ")
        assert len(body) == int(response.getheader("Content-Length") or -1)


@pytest.mark.parametrize("missing", UPGRADE[2:])
async def test_an_upgrade_with_something_missing_is_a_bad_request(missing: str) -> None:
    async with open_port() as address:
        response = await ask(address, request("GET", *(field for field in UPGRADE if field != missing)))
        assert response.status == 400
        assert b"Missing header" in response.read()


async def test_the_answer_arrives_though_nobody_reads_the_body() -> None:
    """To close with unread bytes would reset the connection, and the answer would be lost."""
    body = bytes(3_000_000)
    async with open_port() as address:
        words = request("POST", f"Content-Length: {len(body)}", body=body)
        assert (await ask(address, words)).status == 405


async def test_more_words_after_the_answer_change_nothing() -> None:
    async with open_port() as address, await open_stream(address) as stream:
        await stream.send_all(request("HEAD"))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 405 ")
        await stream.send_all(b"x\r\n\r\n")
        assert await stream.receive_some() == b""


async def test_who_was_turned_down_and_stays_is_left(autojump_clock: MockClock) -> None:
    near, far = testing.memory_pair()
    async with websocket_over(near, near)[1] as stream:
        await far.send_all(request("HEAD"))
        with pytest.raises(trio.BrokenResourceError, match="405"):
            await stream.receive_some()
    assert trio.current_time() == PATIENCE
    assert (await far.receive_some()).startswith(b"HTTP/1.1 405 ")
    assert await far.receive_some() == b""


async def test_a_cancelled_close_does_not_linger(autojump_clock: MockClock) -> None:
    near, far = testing.memory_pair()
    stream = websocket_over(near, near)[1]
    await far.send_all(request("HEAD"))
    with pytest.raises(trio.BrokenResourceError, match="405"):
        await stream.receive_some()
    await trio.aclose_forcefully(stream)
    assert trio.current_time() == 0


# Anything

WORDS = st.sampled_from(
    [
        *(b"GET", b"HEAD", b"POST", b"CONNECT", b" ", b" / ", b" /?a ", b" * ", b"HTTP/1.1", b"HTTP/1.0"),
        *(
            b"\r\n",
            b"\r\n\r\n",
            b"Host: h\r\n",
            b"Host: \xff\r\n",
            b"Host: xn--\xe4\r\n",
            b"X\r\n",
            b": x\r\n",
        ),
        *(field.encode() + b"\r\n" for field in UPGRADE),
        *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n"),
        *(b"Connection: close\r\n", b"Upgrade: h2c\r\n", b"Sec-WebSocket-Version: 8\r\n"),
        *(b"Sec-WebSocket-Protocol: heartline, \xff\r\n", b"Sec-WebSocket-Extensions: a; =;;\r\n"),
        *(
            b"5\r\nhello\r\n0\r\n\r\n",
            b"\x82\x85\0\0\0\0hello",
            b"\x88\x80\0\0\0\0",
            b"\x16\x03\x01",
            b"a" * 20_000,
        ),
    ]
)
WHOLE = st.builds(
    lambda method, fields, body: request(method, *fields, body=body),
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.permutations([*UPGRADE, "Content-Length: 5", "Connection: close", "Expect: 100-continue"]).flatmap(
        lambda fields: st.integers(0, len(fields)).map(lambda count: fields[:count])
    ),
    st.sampled_from([b"", b"hello", b"\x82\x85\0\0\0\0hello", b"GET / HTTP/1.1\r\n\r\n"]),
)
HTTPISH = st.lists(st.one_of(WORDS, WHOLE, st.binary(max_size=40)), max_size=12).map(b"".join)


async def say(stream: trio.abc.Stream, words: bytes, cuts: list[int], pause: float) -> None:
    """Say it in pieces, and read until the other end has heard enough."""
    places = sorted({0, len(words), *(cut % (len(words) + 1) for cut in cuts)})
    async with stream, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def speak() -> None:
            try:
                for start, end in pairwise(places):
                    await stream.send_all(words[start:end])
                    await trio.sleep(pause)
                await stream.send_eof()  # type: ignore[attr-defined]
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it did not want to hear the rest

        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


class WebSocketNetwork(MemoryNetwork):  # type: ignore[misc]  # final for users
    """A network in memory whose listeners speak WebSocket, while those who connect say what they like."""

    def listen(self, name: str = "", *, backlog: int = 128) -> Listener:
        inner = super().listen(name, backlog=backlog)

        class WebSocketListener(trio.abc.Listener[trio.abc.Stream]):
            async def accept(self) -> trio.abc.Stream:
                stream = await inner.accept()
                return websocket_over(stream, stream)[1]

            async def aclose(self) -> None:
                await inner.aclose()

        return Listener(WebSocketListener(), inner.url)


@given(st.lists(st.tuples(HTTPISH, st.lists(st.integers(0, 500), max_size=5)), min_size=1, max_size=4))
def test_whatever_is_said_the_server_lives(peers: list[tuple[bytes, list[int]]]) -> None:
    async def main() -> None:
        network = WebSocketNetwork()
        use_network(network)
        async with heartline.open_server("memory://", services=[Echo()]) as server:
            name = server.urls[0].removeprefix("memory://")
            async with trio.open_nursery() as nursery:
                for words, cuts in peers:
                    nursery.start_soon(say, await network.connect(name), words, cuts, 0.1)
            inner = await network.connect(name)
            async with heartline.open_connection(websocket_over(inner, inner)[0]) as connection:
                assert await heartline.remote(connection.service(Echo).echo)("fine") == "fine"
            await trio.sleep(20)
            assert server.statistics().handshaking == 0
            assert not server.connections

    trio.run(main, clock=MockClock(autojump_threshold=0))


@settings(max_examples=20)
@given(st.lists(st.tuples(HTTPISH, st.lists(st.integers(0, 500), max_size=5)), min_size=1, max_size=10))
def test_whatever_is_said_on_sockets_the_server_lives(peers: list[tuple[bytes, list[int]]]) -> None:
    async def main() -> None:
        async with open_port() as address, trio.open_nursery() as nursery:
            for words, cuts in peers:
                nursery.start_soon(say, await open_stream(address), words, cuts, 0)

    trio.run(main)
