"""The handshake as a client sees it: every way in which it fails is one clear error, at once and bare."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import (
    CloseCode,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionRefusedByPeer,
    Limits,
    LocalProtocolError,
    RemoteProtocolError,
    SerializationError,
)
from heartline.session import GoAway, PeerLimits, Role, Welcome
from heartline.session.messages import parse, render
from heartline.testing import memory_pair
from heartline.wire import Frame, FrameDecoder, FrameType, encode

from .helpers import QUIET, SOCKETS, RawPeer, data, listen, no_leaks, url_of

Play = Callable[[trio.abc.Stream], Awaitable[None]]


def welcome(version: int = 1) -> bytes:
    message = Welcome(
        version=version, session="me", limits=PeerLimits.of(Limits()), heartbeat_timeout=QUIET.timeout
    )
    return encode([Frame(FrameType.WELCOME, payload=render(message))])


def says(answer: bytes) -> Play:
    """A server that answers this to whatever comes, and leaves."""

    async def play(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.aclose()

    return play


async def refuses(stream: trio.abc.Stream) -> None:
    peer = RawPeer.of(stream, Role.SERVER)
    await peer.hello()
    peer.session.refuse(CloseCode.UNAUTHENTICATED, "not you")
    await peer.flush()
    await stream.aclose()


async def leaves(stream: trio.abc.Stream) -> None:
    await stream.aclose()


FAILURES = [
    (leaves, ConnectionFailed),
    (says(b""), ConnectionFailed),
    (says(welcome()[:-1]), ConnectionFailed),
    (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), RemoteProtocolError),
    (says(b"\0\0\0\1\x77\0\0\0\0\0\0\0?"), RemoteProtocolError),
    (says(b"\xff" * 100), RemoteProtocolError),
    (says(welcome(version=2)), RemoteProtocolError),
    (says(encode([Frame(FrameType.WELCOME, payload=b"\x81" * 5000)])), RemoteProtocolError),
    (says(encode([data(b"before the WELCOME")])), RemoteProtocolError),
    (refuses, ConnectionRefusedByPeer),
]


@pytest.mark.parametrize(("play", "error"), FAILURES)
async def test_a_failure_is_raised_at_once_and_bare(
    play: Play, error: type[Exception], autojump_clock: MockClock
) -> None:
    here, there = memory_pair()
    with no_leaks():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play, there)
            with pytest.raises(error) as caught:
                async with heartline.open_connection(here):
                    raise AssertionError("there is no connection")
        assert type(caught.value) is error
    assert trio.current_time() < 1
    with pytest.raises(trio.ClosedResourceError):
        await here.send_all(b"x")


@pytest.mark.parametrize("kind", SOCKETS)
@pytest.mark.parametrize(("play", "error"), [FAILURES[1], FAILURES[4]])
async def test_the_same_on_sockets(kind: str, play: Play, error: type[Exception], tmp_path: object) -> None:
    with no_leaks():
        async with await listen(url_of(kind, tmp_path)) as listener, trio.open_nursery() as nursery:

            async def accept() -> None:
                stream = await listener.accept()
                async with stream:
                    await play(stream)

            nursery.start_soon(accept)
            with pytest.raises(error):
                async with heartline.open_connection(listener.url):
                    raise AssertionError("there is no connection")


async def test_a_refusal_says_what_and_whether_to_try_again() -> None:
    here, there = memory_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuses, there)
        with pytest.raises(ConnectionRefusedByPeer, match="not you") as caught:
            async with heartline.open_connection(here):
                pass
    assert caught.value.code == CloseCode.UNAUTHENTICATED
    assert caught.value.terminal


@pytest.mark.parametrize("url", ["memory://nobody", "tcp://127.0.0.1:1"])
async def test_nobody_listens(url: str) -> None:
    with pytest.raises(ConnectionFailed):
        async with heartline.open_connection(url):
            pass


@pytest.mark.parametrize("timeout", [0.5, 10.0])
async def test_a_silent_server_costs_the_handshakes_time(timeout: float, autojump_clock: MockClock) -> None:
    here, there = memory_pair()
    with pytest.raises(ConnectionFailed, match="handshake_timeout"):
        async with heartline.open_connection(here, limits=Limits(handshake_timeout=timeout)):
            pass
    assert trio.current_time() == timeout
    await there.receive_some()
    assert await there.receive_some() == b""


async def test_a_server_that_never_reads_costs_no_more_than_the_handshake(autojump_clock: MockClock) -> None:
    here, _there = memory_pair(buffer_size=1)
    with pytest.raises(ConnectionFailed, match="handshake_timeout"):
        async with heartline.open_connection(here, limits=Limits(handshake_timeout=5)):
            pass
    assert trio.current_time() == 5


async def test_cancelled_in_the_handshake(autojump_clock: MockClock) -> None:
    here, there = memory_pair()
    with no_leaks():
        with trio.move_on_after(3) as scope:
            async with heartline.open_connection(here):
                pass
        assert scope.cancelled_caught
        assert trio.current_time() == 4  # the server has a second to answer
        await there.receive_some()
        assert await there.receive_some() == b""


@pytest.mark.parametrize(
    ("credentials", "error"), [(b"x" * 300_000, LocalProtocolError), (object(), SerializationError)]
)
async def test_credentials_that_do_not_fit(credentials: object, error: type[Exception]) -> None:
    here, there = memory_pair()
    with pytest.raises(error):
        async with heartline.open_connection(here, credentials=credentials):
            pass
    assert await there.receive_some() == b""


# What comes right behind the WELCOME, in the same bytes


async def test_a_message_behind_the_welcome_is_not_lost() -> None:
    here, there = memory_pair()
    await there.send_all(welcome() + encode([data(b"early")]))
    async with heartline.open_connection(here) as connection:
        assert await connection.receive() == b"early"
        there.close()


async def test_garbage_behind_the_welcome_is_noticed_at_once(autojump_clock: MockClock) -> None:
    here, there = memory_pair()
    await there.send_all(welcome() + b"\xff" * 20)
    with pytest.raises(RemoteProtocolError, match="4294967295 bytes"):
        async with heartline.open_connection(here, heartbeat=QUIET):
            pass
    assert trio.current_time() < 1
    hello, goodbye = FrameDecoder().feed(await there.receive_some())
    assert (hello.type, goodbye.type) == (FrameType.HELLO, FrameType.GOAWAY)
    assert parse(goodbye.payload, GoAway).code == CloseCode.PROTOCOL_ERROR
    assert "4294967295 bytes" in parse(goodbye.payload, GoAway).reason


async def test_kicked_in_the_moment_of_coming_in() -> None:
    here, there = memory_pair()
    goodbye = render(GoAway(code=CloseCode.KICKED, reason="full moon"))
    await there.send_all(welcome() + encode([Frame(FrameType.GOAWAY, payload=goodbye)]))
    there.close()
    with pytest.raises(ConnectionClosed, match="full moon"):
        async with heartline.open_connection(here):
            pass
