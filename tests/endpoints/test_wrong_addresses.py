"""The wrong scheme, certificate or port: the client is told what to change, and the server logs a line."""

from __future__ import annotations

import datetime
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest
import trio
import trustme

import heartline
from heartline import ConnectionFailed, HeartlineError, RemoteProtocolError
from tests.patience import PATIENCE

PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
OURS, OTHERS = trustme.CA(), trustme.CA()

Context = ssl.SSLContext


def server(
    name: str = "127.0.0.1",
    *,
    authority: trustme.CA = OURS,
    expired: bool = False,
    wants: trustme.CA | None = None,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> Context:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name, not_after=PAST if expired else None).configure_cert(context)
    context.maximum_version = newest
    if wants is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        wants.configure_trust(context)
    return context


def client(
    *,
    authority: trustme.CA | None = None,
    expired: bool = False,
    oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
) -> Context:
    context = ssl.create_default_context()
    OURS.configure_trust(context)
    context.minimum_version = oldest
    if authority is not None:
        authority.issue_cert("me", not_after=PAST if expired else None).configure_cert(context)
    return context


V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Mistake(NamedTuple):
    server: Callable[[], Context]
    client: Callable[[], Context]
    told: str
    logged: str


MISTAKES = {
    "no certificate": Mistake(
        lambda: server(wants=OURS),
        client,
        "'certificate required': .*load_cert_chain",
        "showed no certificate",
    ),
    "no certificate, TLS 1.2": Mistake(
        lambda: server(wants=OURS, newest=V1_2),
        client,
        "'handshake failure': .*load_cert_chain",
        "showed no certificate",
    ),
    "an authority that the server does not know": Mistake(
        lambda: server(wants=OURS),
        lambda: client(authority=OTHERS),
        "'unknown ca'",
        "certificate verify failed: unable to get",
    ),
    "an expired certificate of the client": Mistake(
        lambda: server(wants=OURS),
        lambda: client(authority=OURS, expired=True),
        "'certificate expired'",
        "certificate verify failed: certificate has expired",
    ),
    "an authority that the client does not know": Mistake(
        lambda: server(authority=OTHERS),
        client,
        "certificate verify failed: .*cafile=",
        "TLS alert 'unknown ca'",
    ),
    "an expired certificate of the server": Mistake(
        lambda: server(expired=True),
        client,
        "certificate verify failed: certificate has expired$",
        "TLS alert 'certificate expired'",
    ),
    "the certificate of another host": Mistake(
        lambda: server("example.org"), client, "not valid for '127.0.0.1'$", "TLS alert 'bad certificate'"
    ),
    "no version in common": Mistake(
        lambda: server(newest=V1_2),
        lambda: client(oldest=V1_3),
        "'protocol version': there is no version of TLS in common",
        "no version of TLS in common",
    ),
}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "heartline.server")
    return caplog


async def try_in_vain(url: str, tls: Context | None = None) -> HeartlineError:
    with trio.fail_after(PATIENCE):
        with pytest.raises((ConnectionFailed, RemoteProtocolError)) as caught:
            async with heartline.open_connection(url, tls=tls, reconnect=None):
                pass
    assert str(caught.value).isprintable()
    return caught.value


async def check_log(log: pytest.LogCaptureFixture, pattern: str) -> None:
    with trio.fail_after(PATIENCE):
        while not any("refused" in record.getMessage() for record in log.records):
            await trio.sleep(0.01)
    (record,) = (record for record in log.records if "listening on" not in record.getMessage())
    assert record.levelno == logging.INFO
    assert not record.exc_info
    assert record.getMessage().startswith("refused 127.0.0.1:")
    assert pytest.RaisesExc(Exception, match=pattern).matches(Exception(record.getMessage()))


@pytest.mark.parametrize("scheme", ["tls", "wss"])
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_certificate_that_is_refused(
    mistake: str, scheme: str, log: pytest.LogCaptureFixture
) -> None:
    made = MISTAKES[mistake]
    async with heartline.open_server(f"{scheme}://127.0.0.1:0", tls=made.server()) as there:
        error = await try_in_vain(there.urls[0], made.client())
        assert isinstance(error, ConnectionFailed)
        assert pytest.RaisesExc(ConnectionFailed, match=made.told).matches(error)
        await check_log(log, made.logged)


SCHEMES: dict[tuple[str, str], tuple[str, str]] = {
    ("tcp", "tls"): ("answered in TLS: .* tls://", "does not speak TLS"),
    ("tcp", "wss"): ("answered in TLS: .* wss://", "does not speak TLS"),
    ("tcp", "ws"): ("answered in HTTP: .* ws://", "WebSocket handshake with HTTP 400"),
    ("ws", "tcp"): ("HTTP 400 .* tcp://", "it speaks HTTP"),
    ("ws", "tls"): ("HTTP 400 .* the URL's scheme is tls://", "speaks HTTP without TLS"),
    ("ws", "wss"): ("HTTP 400 .* the URL's scheme is wss://", "speaks HTTP without TLS"),
    ("tls", "tcp"): ("'handshake failure': .* tcp://", "it speaks TLS"),
    ("tls", "ws"): ("does not speak TLS; .* ws://", "WebSocket handshake with HTTP 400"),
    ("tls", "wss"): ("answered in HTTP: .* wss://", "WebSocket handshake with HTTP 400"),
    ("wss", "tcp"): ("'handshake failure': .* tcp://", "it speaks TLS"),
    ("wss", "ws"): ("does not speak TLS; .* ws://", "WebSocket handshake with HTTP 400"),
    ("wss", "tls"): ("HTTP 400 .* tls://", "it speaks HTTP"),
}
"""What is told and logged for a client's scheme at a server's."""


@pytest.mark.parametrize(("ours", "theirs"), SCHEMES)
async def test_the_wrong_scheme(ours: str, theirs: str, log: pytest.LogCaptureFixture) -> None:
    told, logged = SCHEMES[ours, theirs]
    encrypted = {"tls", "wss"}
    tls = server() if theirs in encrypted else None
    async with heartline.open_server(f"{theirs}://127.0.0.1:0", tls=tls) as there:
        port = there.urls[0].rstrip("/").rpartition(":")[2]
        error = await try_in_vain(f"{ours}://127.0.0.1:{port}", client() if ours in encrypted else None)
        assert pytest.RaisesExc(HeartlineError, match=told).matches(error)
        await check_log(log, logged)


async def like_a_web_server(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n")


async def like_ssh(stream: trio.SocketStream) -> None:
    await stream.send_all(b"SSH-2.0-OpenSSH_9.6\r\n")
    await stream.receive_some()


async def like_a_web_server_with_tls(stream: trio.SocketStream) -> None:
    """It sends an alert of seven bytes, fewer than the head of a frame."""
    await stream.receive_some()
    await stream.send_all(b"\x15\x03\x01\x00\x02\x02\x46")


async def like_a_closed_door(stream: trio.SocketStream) -> None:
    await stream.send_eof()
    await stream.receive_some()


STRANGERS: dict[tuple[str, Callable[[trio.SocketStream], Awaitable[None]]], str] = {
    ("tcp", like_a_web_server): "answered in HTTP: .* ws://",
    ("tls", like_a_web_server): "does not speak TLS; .* ws://",
    ("ws", like_a_web_server): "the server answered HTTP 400",
    ("wss", like_a_web_server): "does not speak TLS; .* ws://",
    ("tcp", like_ssh): "is the other end heartline",
    ("tls", like_ssh): "does not speak TLS",
    ("ws", like_ssh): "did not answer in HTTP: b'SSH-2.0",
    ("wss", like_ssh): "does not speak TLS",
    ("tcp", like_a_web_server_with_tls): "answered in TLS: .* tls://",
    ("ws", like_a_web_server_with_tls): "did not answer in HTTP: .* wss://",
    ("tcp", like_a_closed_door): "without a word; does heartline listen there",
    ("tls", like_a_closed_door): "ended the stream in the TLS handshake; does it speak TLS",
    ("ws", like_a_closed_door): "does it listen for WebSockets there",
    ("wss", like_a_closed_door): "ended the stream in the TLS handshake; does it speak TLS",
}


@pytest.mark.parametrize(("scheme", "stranger"), STRANGERS)
async def test_a_port_of_somebody_else(
    scheme: str, stranger: Callable[[trio.SocketStream], Awaitable[None]]
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await stranger(stream)
        except trio.BrokenResourceError:
            pass

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        tls = client() if scheme in ("tls", "wss") else None
        error = await try_in_vain(f"{scheme}://127.0.0.1:{port}", tls)
        assert pytest.RaisesExc(HeartlineError, match=STRANGERS[scheme, stranger]).matches(error)
        nursery.cancel_scope.cancel()
