"""``tcp://host:port``: plain :class:`trio.SocketStream`, TCP_NODELAY set by Trio on both sides."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from dataclasses import replace

import trio

from heartline.transports._context import TransportContext, TransportOptions
from heartline.transports._listener import Listener
from heartline.transports._url import NetworkURL, parse_network, refuse_tls

__all__ = ["open_listeners", "open_stream"]


async def open_stream(url: str, context: TransportContext) -> trio.SocketStream:
    """Connect to ``tcp://host:port``, trying the host's addresses in turn."""
    refuse_tls(url, context.tls)
    target = parse_network(url, listening=False)
    return await trio.open_tcp_stream(target.host, target.port)


async def open_listeners(url: str, context: TransportContext) -> list[Listener]:
    """Listen on every address of ``tcp://host:port``; with port 0 they share one free port."""
    refuse_tls(url, context.tls)
    listeners, bound = await listen(parse_network(url, listening=True), context.options)
    return [Listener(listener, str(bound)) for listener in listeners]


async def listen(url: NetworkURL, options: TransportOptions) -> tuple[list[trio.SocketListener], NetworkURL]:
    """The listeners of a URL, one for each address of its host, and the URL with the real port."""
    listeners = await _listen(url.host, url.port, options)
    if len(_ports(listeners)) > 1:
        listeners = await _share_a_port(listeners, url.host, options)
    return listeners, replace(url, port=_ports(listeners).pop())


async def _listen(host: str, port: int, options: TransportOptions) -> list[trio.SocketListener]:
    """Like :func:`trio.open_tcp_listeners`, which sets no SO_REUSEPORT."""
    addresses = await trio.socket.getaddrinfo(
        host, port, type=trio.socket.SOCK_STREAM, flags=trio.socket.AI_PASSIVE
    )
    listeners: list[trio.SocketListener] = []
    unsupported: OSError | None = None
    with ExitStack() as undo:
        for family, kind, protocol, _, address in addresses:
            try:
                listening = trio.socket.socket(family, kind, protocol)
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    raise
                unsupported = error  # the addresses of the other family are enough
                continue
            undo.callback(listening.close)
            _configure(listening, options)
            await listening.bind(address)
            listening.listen(options.backlog)
            listeners.append(trio.SocketListener(listening))
        if unsupported is not None and not listeners:
            raise unsupported
        undo.pop_all()
    return listeners


def _configure(listening: trio.socket.SocketType, options: TransportOptions) -> None:
    # A server that is restarted must not wait until the system has forgotten the port's old connections.
    listening.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
    if options.reuse_port:
        listening.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEPORT, 1)
    if listening.family == trio.socket.AF_INET6:
        # [::] listens on IPv6 only, on every system, and leaves 0.0.0.0 to another listener.
        listening.setsockopt(trio.socket.IPPROTO_IPV6, trio.socket.IPV6_V6ONLY, 1)


def _ports(listeners: list[trio.SocketListener]) -> set[int]:
    return {listener.socket.getsockname()[1] for listener in listeners}


async def _share_a_port(
    listeners: list[trio.SocketListener], host: str, options: TransportOptions
) -> list[trio.SocketListener]:
    # Port 0 gave each address a port of its own, but a URL can name only one port. One of these ports is very
    # likely free on the other addresses too. To take it there, all sockets are closed first.
    candidates = _ports(listeners)
    for listener in listeners:
        listener.socket.close()
    while True:
        try:
            return await _listen(host, candidates.pop(), options)
        except OSError:
            if not candidates:
                raise
