"""A handshake on a stream that has no link yet: one message there, one back."""

from __future__ import annotations

import trio

from heartline.errors import ConnectionLost, RemoteProtocolError
from heartline.link._reading import READ_SIZE
from heartline.session import Session
from heartline.session.session import Event
from heartline.transports import reason_of

__all__ = ["read_some", "receive_greeting", "send_greeting"]


_TLS_ALERT = b"\x15\x03"
"""How a TLS server's answer to a client without TLS begins (RFC 8446, 5.1)."""


async def send_greeting(stream: trio.abc.Stream, session: Session) -> None:
    """Write what the session has to say."""
    try:
        await stream.send_all(b"".join(session.take(0, trio.current_time())))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # a peer that does not listen may have said why: the next read finds that


async def read_some(stream: trio.abc.Stream) -> bytes:
    """The next bytes, none at the end of the stream; raises :class:`ConnectionLost`."""
    try:
        return bytes(await stream.receive_some(READ_SIZE))
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise ConnectionLost(f"the link broke in the handshake: {reason_of(error)}") from error


async def receive_greeting(stream: trio.abc.Stream, session: Session, data: bytes = b"") -> Event | None:
    """Receive the peer's handshake message; ``None`` when it ended the stream. ``data`` was read before.

    Raises :class:`ConnectionLost`, and :class:`RemoteProtocolError` for anything that is no greeting.
    """
    data = data or await read_some(stream)
    if data.startswith(_TLS_ALERT):
        raise RemoteProtocolError(
            "the peer answered in TLS: the URL's scheme may have to be tls:// or wss://", offset=0
        )
    while True:
        if not data:
            try:
                session.receive_eof()
            except RemoteProtocolError as error:
                raise ConnectionLost(str(error)) from None
            return None
        events = session.receive(data, trio.current_time())
        if events:
            return events[0]
        data = await read_some(stream)
