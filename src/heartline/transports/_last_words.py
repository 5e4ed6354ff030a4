"""What TLS has to say when a handshake fails: Trio drops that alert, and here the peer gets it.

Without it a client sees its stream end, and nobody tells it that the server wanted a certificate.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any, cast, final

import trio

__all__ = ["LastWords", "encrypt"]

PATIENCE = 1.0
"""Seconds for the peer to read them: a stream that is closed with something unread is reset, and they could
be lost."""

TLS_HANDSHAKE = 0x16
"""The first byte of a client that speaks TLS (RFC 8446, 5.1)."""

TLS_ALERT = bytes([0x15, 3, 1, 0, 2, 2, 70])
"""A record with the fatal alert ``protocol_version``; its first bytes tell a native client what this is."""

NOT_HTTP = """HTTP/1.1 400 Bad Request\r
Connection: close\r
Content-Type: text/plain; charset=utf-8\r
Content-Length: {size}\r
\r
{body}"""


@final
class LastWords(trio.abc.Stream):
    """A stream below TLS that says, before it closes, what TLS has left unsaid."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, scheme: str | None) -> None:
        self.transport_stream = inner
        self.outgoing: ssl.MemoryBIO | None = None
        """Where TLS puts what it wants to be sent."""
        self._scheme = scheme
        """The scheme of a server's URL; ``None`` on a client."""
        self._first = b""
        # No call in between for each write, nor for each read but the first.
        self.send_all = inner.send_all  # type: ignore[method-assign]
        self.wait_send_all_might_not_block = inner.wait_send_all_might_not_block  # type: ignore[method-assign]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See :attr:`transport_stream`, which takes the place of this method."""
        raise AssertionError

    async def wait_send_all_might_not_block(self) -> None:
        """See :attr:`transport_stream`, which takes the place of this method."""
        raise AssertionError

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive, and keep the first byte: it tells who does not speak TLS at all."""
        data = await self.transport_stream.receive_some(max_bytes)
        self._first = bytes(data[:1])
        self.receive_some = self.transport_stream.receive_some  # type: ignore[method-assign]
        return data

    async def aclose(self) -> None:
        """Say what is left to be said, within a second, and close."""
        words = self.outgoing.read() if self.outgoing is not None else b""
        words = words or self._answer()
        try:
            if words:
                await self._say(words)
        finally:
            await self.transport_stream.aclose()  # Trio's rule: a stream closes even when cancelled

    async def _say(self, words: bytes) -> None:
        gone = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)
        with suppress(*gone), trio.move_on_after(PATIENCE):
            await self.transport_stream.send_all(words)
            await self.transport_stream.send_eof()
            while await self.transport_stream.receive_some():
                pass

    def _answer(self) -> bytes:
        """What a client is told that does not speak TLS."""
        if self._scheme is None or not self._first or self._first[0] == TLS_HANDSHAKE:
            return b""
        if not self._first.isupper():
            return TLS_ALERT
        body = f"This port speaks TLS: the URL's scheme is {self._scheme}://.\n"
        return NOT_HTTP.format(size=len(body), body=body).encode()


class _Tap:
    """A TLS context that tells the stream below where its bytes go: Trio asks it for nothing else."""

    def __init__(self, tls: ssl.SSLContext, below: LastWords) -> None:
        self._tls = tls
        self._below = below

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **how: Any) -> ssl.SSLObject:
        self._below.outgoing = outgoing
        return self._tls.wrap_bio(incoming, outgoing, **how)


def encrypt(
    inner: trio.abc.HalfCloseableStream,
    tls: ssl.SSLContext,
    *,
    server_hostname: str | None = None,
    scheme: str | None = None,
) -> trio.SSLStream[LastWords]:
    """A TLS stream over ``inner``: a client's, or a server's under this ``scheme``."""
    below = LastWords(inner, scheme)
    return trio.SSLStream(
        below,
        cast("ssl.SSLContext", _Tap(tls, below)),
        server_hostname=server_hostname,
        server_side=scheme is not None,
        https_compatible=True,
    )
