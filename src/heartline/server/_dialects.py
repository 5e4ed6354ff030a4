"""Other protocols on the same port: the first byte of a stream decides which function serves it.

A native stream begins with 0, since no frame is longer than three bytes can say. For other first bytes there
are *dialects*: functions that get the stream and the bytes that were read. The ones here are for protocols
that this port does not speak: they answer in the peer's own protocol, so that it fails at once and says why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, final

import trio

from heartline.link import GOODBYE_GRACE, NoPublicConstructor, Peer
from heartline.server._handshakes import Handshake, Handshakes
from heartline.server._refusals import Refusals, Refused

__all__ = [
    "HTTP_METHODS",
    "NATIVE",
    "TLS_HANDSHAKE",
    "Dialect",
    "Visit",
    "answer_http",
    "answer_tls",
    "answer_unknown",
]

NATIVE = 0x00
"""The first byte of a native stream."""

TLS_HANDSHAKE = 0x16
"""The first byte of a TLS ClientHello: the type of its record (RFC 8446, 5.1)."""

HTTP_METHODS = range(ord("A"), ord("Z") + 1)
"""The first byte of a request in HTTP/1 and of the preface of HTTP/2."""

TLS_ALERT = bytes([0x15, 3, 1, 0, 2, 2, 40])
"""A record with the fatal alert ``handshake_failure`` (RFC 8446, 6), as every version of TLS reads it."""


@final
class Visit(metaclass=NoPublicConstructor):
    """A stream that a dialect serves: where it comes from, and how long it may stay.

    Until :meth:`settle` is called it counts as a handshake: it takes one of ``Limits.handshakes`` places, may
    have to make room for a newcomer, and is cut off after ``Limits.handshake_timeout``.
    """

    __slots__ = ("_handshake", "_handshakes", "_refusals", "peer")

    def __init__(self, peer: Peer, handshake: Handshake, handshakes: Handshakes, refusals: Refusals) -> None:
        self.peer: Peer = peer
        """The peer, without identity and credentials: how those are given is up to the dialect."""
        self._handshake = handshake
        self._handshakes = handshakes
        self._refusals = refusals

    def settle(self) -> None:
        """Let the stream stay as long as the dialect likes; the dialect has to bound that from now on."""
        self._handshake.scope.deadline = float("inf")
        self._handshakes.end(self._handshake)

    async def turn_away(self, stream: trio.abc.Stream, answer: bytes, reason: str) -> None:
        """Log the reason, send the answer, and let the peer read it; takes a second at most."""
        self._refusals.record(self.peer.address, Refused(None, reason, kind="of another protocol"))
        with trio.move_on_after(GOODBYE_GRACE):
            await stream.send_all(answer)
            if isinstance(stream, trio.abc.HalfCloseableStream):
                # To close with something unread would reset the connection, and the answer could be lost.
                await stream.send_eof()
                while await stream.receive_some():
                    pass


Dialect: TypeAlias = Callable[[trio.abc.Stream, bytes, Visit], Awaitable[None]]
"""``(stream, first, visit)``: serves a stream of which ``first``, one byte or more, was read. When it returns
the stream is closed. The call is cancelled when the server ends; an error that it raises is logged."""


async def answer_http(stream: trio.abc.Stream, first: bytes, visit: Visit) -> None:
    """Tell an HTTP client that this is no web server."""
    body = _explanation(visit)
    head = (
        "HTTP/1.1 400 Bad Request",
        "Connection: close",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "\r\n",
    )
    if first.startswith(b"HEAD"):
        body = b""
    await visit.turn_away(stream, "\r\n".join(head).encode() + body, "it speaks HTTP, and this port does not")


async def answer_tls(stream: trio.abc.Stream, _first: bytes, visit: Visit) -> None:
    """Tell a TLS client that this port speaks no TLS."""
    await visit.turn_away(stream, TLS_ALERT, "it speaks TLS, and this port does not")


async def answer_unknown(stream: trio.abc.Stream, first: bytes, visit: Visit) -> None:
    """Tell an unknown client what this port speaks."""
    await visit.turn_away(
        stream, _explanation(visit), f"its first byte is 0x{first[0]:02x}, which no dialect serves"
    )


def _explanation(visit: Visit) -> bytes:
    scheme = visit.peer.url.partition(":")[0]
    return f"This port speaks heartline: use heartline.open_connection with a {scheme}:// URL.\n".encode()
