"""The opening handshake of a WebSocket, over any stream: wsproto knows the rules, this module moves bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import NoReturn

import trio
import wsproto
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, Event, RejectConnection, RejectData, Request
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from heartline.errors import ConfigurationError
from heartline.transports._context import TransportOptions
from heartline.transports._url import NetworkURL
from heartline.transports._websocket_request import UpgradeRequest, read_request

SUBPROTOCOL = "heartline"
"""Offered by clients, and chosen by servers if offered: other clients need not know it."""

_STATUS = {
    "Request method must be GET": 405,
    "Missing header, 'Connection: Upgrade'": 426,
    "Missing header, 'Upgrade: websocket'": 426,
}
"""The status for requests that wsproto refuses, where its own status is too general."""

_FIELDS = {
    405: ("Allow: GET", "Connection: close"),
    426: ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Connection: Upgrade, close"),
}
"""The header lines that an answer with this status needs."""

_TLS_ALERT = b"\x15\x03"
"""How a TLS server's answer to a client without TLS begins (RFC 8446, 5.1)."""

BODY_SIZE = 200
"""Bytes of the body of a server's refusal that an error shows: a sentence or two."""

BODY_TIMEOUT = 1.0
"""Seconds for them: they come with the status, unless the server never ends its answer."""

Write = Callable[[bytes], Awaitable[None]]


def begin_request(target: NetworkURL) -> tuple[wsproto.WSConnection, bytes]:
    """A client's protocol state and the bytes of its request, made before any I/O: a bad URL raises here."""
    protocol = wsproto.WSConnection(ConnectionType.CLIENT)
    request = Request(host=target.authority, target=target.path, subprotocols=[SUBPROTOCOL])
    try:
        return protocol, protocol.send(request)
    except (LocalProtocolError, UnicodeError) as error:
        raise ConfigurationError(f"url: {target} does not fit into a WebSocket request: {error}") from error


async def await_acceptance(
    protocol: wsproto.WSConnection, inner: trio.abc.Stream, write: Write, *, request: bytes
) -> None:
    """Send the request and read the answer; raises ``trio.BrokenResourceError`` if it is not the upgrade."""
    await write(request)
    try:
        event = await _first_answer(protocol, inner)
    except (RemoteProtocolError, UnicodeError) as error:
        raise trio.BrokenResourceError(f"the server's WebSocket handshake is wrong: {error}") from error
    if isinstance(event, RejectConnection):
        words = await _read_body(protocol, inner) if event.has_body else ""
        raise trio.BrokenResourceError(
            f"the server answered HTTP {event.status_code} instead of a WebSocket upgrade"
            + (f": {words}" if words else "")
        )
    assert isinstance(event, AcceptConnection)


async def _first_answer(protocol: wsproto.WSConnection, inner: trio.abc.Stream) -> Event:
    """What the server answers; a server that speaks another protocol is not waited for."""
    data = await inner.receive_some()
    if not data:
        raise trio.BrokenResourceError(
            "the server ended the stream in the WebSocket handshake; does it listen for WebSockets there?"
        )
    if not data.startswith(b"HTTP/"[: len(data)]):
        speaks_tls = data.startswith(_TLS_ALERT)
        hint = "the URL's scheme may have to be wss:// or tls://" if speaks_tls else repr(bytes(data[:40]))
        raise trio.BrokenResourceError(f"the server did not answer in HTTP: {hint}")
    protocol.receive_data(bytes(data))
    return await _next_event(protocol, inner)


async def _read_body(protocol: wsproto.WSConnection, inner: trio.abc.Stream) -> str:
    """The first words of the body of a refusal: what comes of them in time is enough."""
    body = b""
    with trio.move_on_after(BODY_TIMEOUT):
        try:
            while len(body) < BODY_SIZE:
                event = await _next_event(protocol, inner)
                assert isinstance(event, RejectData)
                body += event.data
                if event.body_finished:
                    break
        except (RemoteProtocolError, trio.BrokenResourceError):
            pass
    text = body.decode(errors="replace").strip()
    if len(text) > BODY_SIZE:
        text = text[: BODY_SIZE - 1] + "…"
    return text if text.isprintable() else ascii(text)  # a peer's words stay on one line


async def answer_request(
    protocol: wsproto.WSConnection,
    inner: trio.abc.Stream,
    write: Write,
    *,
    path: str,
    options: TransportOptions,
) -> UpgradeRequest:
    """Read the client's request and accept it, or answer it with a 4xx status.

    When it was cancelled while reading it can be called again. Raises ``trio.BrokenResourceError`` for a
    request that was turned down.
    """
    try:
        event = await _next_event(protocol, inner)
    except RemoteProtocolError as error:
        hint = error.event_hint
        status = hint.status_code if isinstance(hint, RejectConnection) else 400
        await _reject(write, _STATUS.get(str(error), status), str(error))
    except UnicodeError:
        await _reject(write, 400, "a header is not ASCII")
    else:
        assert isinstance(event, Request)
        request = read_request(event)
        if request.origin is not None and not options.allows(request.origin):
            await _reject(write, 403, "pages of this origin may not connect (allowed_origins)")
        if event.target.partition("?")[0] != path:
            await _reject(write, 404, f"nothing at this path, try {path}")
        chosen = SUBPROTOCOL if SUBPROTOCOL in event.subprotocols else None
        await write(protocol.send(AcceptConnection(subprotocol=chosen)))
        return request


async def _next_event(protocol: wsproto.WSConnection, inner: trio.abc.Stream) -> Event:
    while True:
        for event in protocol.events():
            return event
        data = await inner.receive_some()
        if not data:
            raise trio.BrokenResourceError("the peer left during the WebSocket handshake")
        protocol.receive_data(bytes(data))


async def _reject(write: Write, status: int, reason: str) -> NoReturn:
    """Answer in HTTP, and raise; written by hand, as wsproto cannot answer every request that it refuses."""
    # The answer to another method than GET, such as HEAD, may have to be without a body.
    body = b"" if status == 405 else f"This port speaks WebSocket: {reason}\n".encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *_FIELDS.get(status, ("Connection: close",)),
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "\r\n",
    ]
    await write("\r\n".join(lines).encode() + body)
    raise trio.BrokenResourceError(f"turned down a WebSocket handshake with HTTP {status}: {reason}")
