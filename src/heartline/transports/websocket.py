"""``ws://host[:port][/path]`` and ``wss://``: binary WebSocket messages as a byte stream.

A browser lets the page of any site connect, and names the site: only pages of the sites in
``TransportOptions.allowed_origins`` are let in. Other programs are judged by their credentials, as on any
transport.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio
import wsproto
from wsproto.connection import ConnectionType

from heartline.transports import tcp
from heartline.transports import tls as tls_transport
from heartline.transports._context import TransportContext
from heartline.transports._listener import Listener
from heartline.transports._url import NetworkURL, parse_network, refuse_tls
from heartline.transports._websocket_handshake import answer_request, await_acceptance, begin_request
from heartline.transports._websocket_stream import Handshake, WebSocketStream

__all__ = ["WebSocketStream", "open_listeners", "open_stream"]

_DEFAULT_PORTS = {"ws": 80, "wss": 443}


async def open_stream(url: str, context: TransportContext) -> WebSocketStream:
    """Connect to ``ws://`` or ``wss://`` and shake hands; a query after the path is sent along."""
    target = _parse(url, listening=False)
    protocol, request = begin_request(target)
    inner: trio.abc.Stream
    if target.scheme == "wss":
        inner = await tls_transport.connect(target, tls_transport.client_context(context.tls))
    else:
        refuse_tls(url, context.tls)
        inner = await trio.open_tcp_stream(target.host, target.port)
    stream = WebSocketStream(inner, protocol, partial(await_acceptance, request=request))
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def open_listeners(url: str, context: TransportContext) -> list[Listener]:
    """Listen on ``ws://`` or ``wss://``; the handshakes happen at a stream's first I/O."""
    target = _parse(url, listening=True)
    wrap: Callable[[trio.SocketListener], trio.abc.Listener[trio.abc.Stream]]
    if target.scheme == "wss":
        tls = tls_transport.server_context(url, context.tls)
        wrap = partial(tls_transport.TLSListener, tls=tls, scheme=target.scheme)
    else:
        refuse_tls(url, context.tls)
        wrap = _as_it_is
    answer = partial(answer_request, path=target.path, options=context.options)
    listeners, bound = await tcp.listen(target, context.options)
    return [Listener(_WebSocketListener(wrap(inner), answer), str(bound)) for inner in listeners]


def _as_it_is(listener: trio.SocketListener) -> trio.SocketListener:
    return listener


class _WebSocketListener(trio.abc.Listener[WebSocketStream]):
    def __init__(self, inner: trio.abc.Listener[trio.abc.Stream], handshake: Handshake) -> None:
        self._inner = inner
        self._handshake = handshake

    async def accept(self) -> WebSocketStream:
        stream = await self._inner.accept()
        return WebSocketStream(stream, wsproto.WSConnection(ConnectionType.SERVER), self._handshake)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _parse(url: str, *, listening: bool) -> NetworkURL:
    scheme = url.partition(":")[0].lower()
    return parse_network(url, listening=listening, default_port=_DEFAULT_PORTS[scheme], has_path=True)
