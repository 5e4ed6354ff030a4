"""``tls://host:port``: :class:`trio.SSLStream` over TCP.

The streams are ``https_compatible``, in Trio's words: closing sends no ``close_notify``, and its absence is
an ordinary end of stream. Heartline says goodbye in its own protocol (a cut connection is resumed, not
believed to be over), so nothing is lost by that, and closing waits neither for a peer that does not read nor
for a handshake that never ends. Only a handshake that has failed takes up to a second to close: its alert
tells the peer why. Another protocol over such a stream must mark its end by itself.
"""

from __future__ import annotations

import ssl

import trio

from heartline.errors import ConfigurationError
from heartline.transports import tcp
from heartline.transports._context import TransportContext
from heartline.transports._last_words import LastWords, encrypt
from heartline.transports._listener import Listener
from heartline.transports._url import NetworkURL, parse_network

__all__ = ["open_listeners", "open_stream"]


async def open_stream(url: str, context: TransportContext) -> trio.SSLStream[LastWords]:
    """Connect to ``tls://host:port`` and shake hands; the certificate must be the one of ``host``."""
    target = parse_network(url, listening=False)
    return await connect(target, client_context(context.tls))


async def open_listeners(url: str, context: TransportContext) -> list[Listener]:
    """Listen on ``tls://host:port``; the handshake happens at a stream's first I/O."""
    target = parse_network(url, listening=True)
    tls = server_context(url, context.tls)
    listeners, bound = await tcp.listen(target, context.options)
    return [Listener(TLSListener(listener, tls, target.scheme), str(bound)) for listener in listeners]


async def connect(target: NetworkURL, tls: ssl.SSLContext) -> trio.SSLStream[LastWords]:
    """Open a TLS stream to a target, with the handshake done."""
    inner = await trio.open_tcp_stream(target.host, target.port)
    try:
        # A scope (%eth0) and the final dot of a name help to reach the host, but no certificate contains
        # them.
        name = target.host.partition("%")[0].rstrip(".")
        stream = encrypt(inner, tls, server_hostname=name)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError:
            await stream.aclose()  # tells the server why, if it was this side that was not content
            raise
    except BaseException:
        await trio.aclose_forcefully(inner)
        raise
    return stream


class TLSListener(trio.abc.Listener[trio.SSLStream[LastWords]]):
    """A listener whose streams are encrypted; ``scheme`` is that of its URL."""

    def __init__(self, inner: trio.SocketListener, tls: ssl.SSLContext, scheme: str) -> None:
        self._inner = inner
        self._tls = tls
        self._scheme = scheme

    async def accept(self) -> trio.SSLStream[LastWords]:
        """Wait for a connection, whose handshake happens at its first I/O."""
        return encrypt(await self._inner.accept(), self._tls, scheme=self._scheme)

    async def aclose(self) -> None:
        """Stop listening."""
        await self._inner.aclose()


def client_context(tls: ssl.SSLContext | None) -> ssl.SSLContext:
    """Check that the given context is one for clients; without one, make one that trusts the system's CAs."""
    if tls is None:
        return ssl.create_default_context()
    _check_context(tls, unfit=ssl.PROTOCOL_TLS_SERVER, right="ssl.create_default_context()")
    return tls


def server_context(url: str, tls: ssl.SSLContext | None) -> ssl.SSLContext:
    """Check that there is a context, and that it is one for servers."""
    right = "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) with load_cert_chain()"
    if tls is None:
        raise ConfigurationError(f"tls: listening on {url!r} needs a certificate; pass {right}")
    _check_context(tls, unfit=ssl.PROTOCOL_TLS_CLIENT, right=right)
    return tls


def _check_context(tls: ssl.SSLContext, *, unfit: ssl._SSLMethod, right: str) -> None:
    if not isinstance(tls, ssl.SSLContext):
        raise ConfigurationError(f"tls: {tls!r} is not an ssl.SSLContext; pass {right}")
    if tls.protocol is unfit:
        raise ConfigurationError(f"tls: a {unfit.name} context is for the other side; pass {right}")
