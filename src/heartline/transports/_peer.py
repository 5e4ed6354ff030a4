"""What a stream knows of the peer at its other end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import trio

__all__ = ["StreamInfo", "describe"]


_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """What a stream knows of its peer. Only the certificate is proof of anything: headers can be made up.

    ``path`` and ``headers`` may hold a token or a cookie, so they are not printed with the others.
    """

    address: str
    """``host:port`` (``[host]:port`` for IPv6), ``unix`` for a Unix socket, ``gone`` for a socket that is not
    connected any more, otherwise the name of the stream's class. Behind a proxy it is the proxy's."""

    certificate: Mapping[str, Any] | None = None
    """The peer's TLS certificate, if it gave one and that was verified, as :meth:`ssl.SSLSocket.getpeercert`
    decodes it."""

    certificate_der: bytes | None = field(default=None, repr=False)
    """The same certificate, in DER form."""

    path: str | None = field(default=None, repr=False)
    """What a WebSocket client asked for: the path, and its query if there is one; ``None`` elsewhere."""

    headers: Mapping[str, str] = field(default_factory=lambda: _NONE, repr=False)
    """The headers of a WebSocket client's request; names are in lower case, the values of a name that came
    more than once are joined by ``", "``."""


def describe(stream: trio.abc.Stream) -> StreamInfo:
    """Return what ``stream`` knows of its peer now; a handshake (TLS, WebSocket) that ends later adds to it.

    A stream can have a method ``describe_peer() -> StreamInfo``. A stream without that method that wraps
    another one as its ``transport_stream``, or is stapled (:class:`trio.StapledStream`) and reads from
    another one, knows what the inner stream knows.
    """
    describe_peer = getattr(stream, "describe_peer", None)
    if describe_peer is not None:
        told: StreamInfo = describe_peer()
        return told
    if isinstance(stream, trio.SocketStream):
        return StreamInfo(address=_address(stream))
    wrapped = "receive_stream" if isinstance(stream, trio.StapledStream) else "transport_stream"
    inner = getattr(stream, wrapped, None)
    if not isinstance(inner, trio.abc.Stream):
        return StreamInfo(address=type(stream).__name__)
    if isinstance(stream, trio.SSLStream):
        return _with_certificate(describe(inner), stream)
    return describe(inner)


def _with_certificate(info: StreamInfo, stream: trio.SSLStream[Any]) -> StreamInfo:
    try:
        certificate = stream.getpeercert()
    except trio.NeedHandshakeError:
        return info
    if not certificate:
        return info  # the peer gave none, or (an empty dict) it was not verified
    return replace(info, certificate=certificate, certificate_der=stream.getpeercert(binary_form=True))


def _address(stream: trio.SocketStream) -> str:
    try:
        name = stream.socket.getpeername()
    except OSError:
        return "gone"
    if not isinstance(name, tuple):
        return "unix"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
