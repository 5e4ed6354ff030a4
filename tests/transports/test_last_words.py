"""A stream below TLS: what it says at its end, for how long, and that it closes whatever happens."""

from __future__ import annotations

import ssl

import pytest
import trio
import trustme
from trio.testing import MockClock

from heartline.testing import memory_pair
from heartline.transports._last_words import PATIENCE, LastWords, encrypt
from heartline.transports.memory import MemoryStream


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


async def refuse(tls: ssl.SSLContext, said: bytes) -> tuple[MemoryStream, trio.SSLStream[LastWords]]:
    """A client that has said something else than TLS, and the stream that does not understand it."""
    client, inner = memory_pair()
    await client.send_all(said)
    stream = encrypt(inner, tls, scheme="tls")
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    return client, stream


async def test_a_peer_that_reads_them_costs_no_time(tls: ssl.SSLContext, autojump_clock: MockClock) -> None:
    client, stream = await refuse(tls, b"GET / HTTP/1.1\r\n\r\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.aclose)
        answer = b""
        while data := await client.receive_some():
            answer += data
        await client.aclose()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"tls://" in body
    assert trio.current_time() == 0


@pytest.mark.parametrize("floods", [False, True])
async def test_a_peer_that_stays_is_left(
    floods: bool, tls: ssl.SSLContext, autojump_clock: MockClock
) -> None:
    client, stream = await refuse(tls, b"\0" * 20)
    async with trio.open_nursery() as nursery:
        if floods:

            @nursery.start_soon
            async def flood() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    while True:
                        await client.send_all(bytes(1000))
                        await trio.sleep(0.01)

        await stream.aclose()
        assert trio.current_time() <= PATIENCE + 0.1


async def test_it_closes_when_it_is_cancelled(tls: ssl.SSLContext, autojump_clock: MockClock) -> None:
    client, stream = await refuse(tls, b"\0" * 20)
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"x")


async def test_who_said_nothing_is_told_nothing(tls: ssl.SSLContext, autojump_clock: MockClock) -> None:
    client, inner = memory_pair()
    await encrypt(inner, tls, scheme="tls").aclose()
    assert await client.receive_some() == b""
    assert trio.current_time() == 0
