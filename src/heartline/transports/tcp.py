"""``tcp://host:port``: plain :class:`trio.SocketStream`, TCP_NODELAY set by Trio on both sides."""

from __future__ import annotations

import ssl
from dataclasses import replace

import trio

from heartline.transports._listener import Listener
from heartline.transports._url import NetworkURL, parse_network, refuse_tls

__all__ = ["open_listeners", "open_stream"]


async def open_stream(url: str, *, tls: ssl.SSLContext | None) -> trio.SocketStream:
    """Connect to ``tcp://host:port``, trying the host's addresses in turn."""
    refuse_tls(url, tls)
    target = parse_network(url, listening=False)
    return await trio.open_tcp_stream(target.host, target.port)


async def open_listeners(url: str, *, tls: ssl.SSLContext | None) -> list[Listener]:
    """Listen on every address of ``tcp://host:port``; with port 0 they share one free port."""
    refuse_tls(url, tls)
    listeners, bound = await listen(parse_network(url, listening=True))
    return [Listener(listener, str(bound)) for listener in listeners]


async def listen(url: NetworkURL) -> tuple[list[trio.SocketListener], NetworkURL]:
    """The listeners of a URL, one for each address of its host, and the URL with the real port."""
    listeners = await trio.open_tcp_listeners(url.port, host=url.host)
    if len(_ports(listeners)) > 1:
        listeners = await _share_a_port(listeners, url.host)
    return listeners, replace(url, port=_ports(listeners).pop())


def _ports(listeners: list[trio.SocketListener]) -> set[int]:
    return {listener.socket.getsockname()[1] for listener in listeners}


async def _share_a_port(listeners: list[trio.SocketListener], host: str) -> list[trio.SocketListener]:
    # Port 0 gave each address a port of its own, but one URL can name only one. One of them is very likely
    # free on the other addresses too; it can be taken only after it was let go.
    candidates = _ports(listeners)
    for listener in listeners:
        listener.socket.close()
    while True:
        try:
            return await trio.open_tcp_listeners(candidates.pop(), host=host)
        except OSError:
            if not candidates:
                raise
