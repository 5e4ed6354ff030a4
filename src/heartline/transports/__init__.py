"""Byte streams by URL. A transport is a :class:`trio.abc.Stream`: there is no interface of our own.

=================================  ==============================================================
``memory://name``                  in one process; listen on ``memory://`` for a fresh name
``tcp://host:port``                plain :class:`trio.SocketStream`
``tls://host:port``                :class:`trio.SSLStream` over TCP
``unix:///absolute/path``          :class:`trio.SocketStream` on a Unix socket
``ws://host[:port][/path]``        binary WebSocket messages over TCP, default port 80
``wss://host[:port][/path]``       the same over TLS, default port 443
=================================  ==============================================================

Further schemes come from :func:`register`, or from the entry point group ``heartline.transports``.
"""

from __future__ import annotations

import os
import ssl

import trio

from heartline.errors import ConnectionFailed
from heartline.transports import memory, tcp, unix, websocket
from heartline.transports import tls as _tls
from heartline.transports._context import TransportContext, TransportOptions
from heartline.transports._listener import Listener
from heartline.transports._peer import StreamInfo, describe
from heartline.transports._reasons import hint_of, reason_of
from heartline.transports._registry import OpenListeners, OpenStream, find, known_schemes, register

__all__ = [
    "Listener",
    "OpenListeners",
    "OpenStream",
    "StreamInfo",
    "TransportContext",
    "TransportOptions",
    "describe",
    "known_schemes",
    "open_listeners",
    "open_stream",
    "reason_of",
    "register",
]


async def open_stream(url: str, context: TransportContext) -> trio.abc.Stream:
    """Connect to ``url`` and return the stream, after the transport's own handshake (TLS, WebSocket).

    ``context.tls`` is for ``tls://`` and ``wss://``; ``None`` there means ``ssl.create_default_context()``,
    which reads the system's certificates each time: a client that reconnects often should make a context
    once.

    There is no timeout: put the call into a cancel scope. Cancelling leaves neither a socket nor a task
    behind.

    Raises :class:`~heartline.errors.ConfigurationError`, before any I/O, for a bad URL or a TLS context that
    does not fit it; :class:`~heartline.errors.ConnectionFailed`, caused by the system's error, if there is no
    connection.
    """
    transport = find(url)
    try:
        return await transport.open_stream(url, context)
    except (OSError, trio.BrokenResourceError) as error:
        raise _failed("connect to", url, error) from _root(error)


async def open_listeners(url: str, context: TransportContext) -> list[Listener]:
    """Listen on ``url``: a listener for each of the host's addresses, all with the same ``url`` and port.

    ``context.tls`` is the server's, needed for ``tls://`` and ``wss://``. Handshakes happen at the first I/O
    of an accepted stream, so a slow peer delays nobody; give that I/O a deadline.

    Raises :class:`~heartline.errors.ConfigurationError`, before any I/O, for a bad URL or a TLS context that
    does not fit it; :class:`~heartline.errors.ConnectionFailed`, caused by the system's error, if the address
    is taken, or is not one of this machine. Cancelling leaves no socket behind.
    """
    transport = find(url)
    try:
        return await transport.open_listeners(url, context)
    except OSError as error:
        raise _failed("listen on", url, error) from _root(error)


def _failed(verb: str, url: str, error: Exception) -> ConnectionFailed:
    causes = error.__cause__
    errors = causes.exceptions if isinstance(causes, BaseExceptionGroup) else (_root(error),)
    place = url.partition("?")[0]  # a query may be a token
    return ConnectionFailed(f"cannot {verb} {place}: {'; '.join(dict.fromkeys(map(_reason, errors)))}")


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError) or not isinstance(error, OSError) or not error.strerror:
        return reason_of(error) + hint_of(error)
    if error.errno is not None and error.strerror.startswith("Error connecting to "):
        return os.strerror(error.errno)  # Trio's words have the address again, which the URL says
    return error.strerror


def _root(error: BaseException) -> BaseException:
    """The system's own error, inside those in which Trio wraps it."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
        return cause.exceptions[0]
    if isinstance(error, trio.BrokenResourceError) and isinstance(cause, OSError):
        return cause
    return error


register("memory", open_stream=memory.open_stream, open_listeners=memory.open_listeners)
register("tcp", open_stream=tcp.open_stream, open_listeners=tcp.open_listeners)
register("tls", open_stream=_tls.open_stream, open_listeners=_tls.open_listeners)
register("unix", open_stream=unix.open_stream, open_listeners=unix.open_listeners)
register("ws", open_stream=websocket.open_stream, open_listeners=websocket.open_listeners)
register("wss", open_stream=websocket.open_stream, open_listeners=websocket.open_listeners)
