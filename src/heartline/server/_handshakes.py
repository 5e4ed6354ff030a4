"""Places for streams that are shaking hands: bounded, shared among hosts, and not held by silent peers.

Until its greeting is complete a stream has proved nothing. When places run short, in all or for one host, the
oldest such stream makes room for the newcomer: an honest client completes its greeting within a round trip. A
stream whose greeting is complete, and which waits for ``authenticate``, is never given up for another one.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Hashable

import trio

from heartline.link import Peer
from heartline.server._refusals import Refused
from heartline.session import CloseCode
from heartline.wire import Limits

__all__ = ["Handshake", "Handshakes"]


class Handshake:
    """The place of one stream."""

    __slots__ = ("evicted", "host", "peer", "scope", "understood")

    def __init__(self, host: Hashable, deadline: float) -> None:
        self.host: Hashable = host
        self.scope: trio.CancelScope = trio.CancelScope(deadline=deadline)
        """The handshake runs in it."""
        self.peer: Peer | None = None
        """The peer, once the stream's first bytes have come."""
        self.understood: bool = True
        """Whether the peer would understand a REFUSE."""
        self.evicted: bool = False


class Handshakes:
    """The places of a server."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._all: set[Handshake] = set()
        # A dictionary for an ordered set: the oldest first.
        self._incomplete: dict[Handshake, None] = {}
        self._by_host: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._all)

    def begin(self, stream: trio.abc.Stream) -> Handshake:
        """Give this stream a place; raises ``Refused`` when no other stream can make room."""
        limits, host = self._limits, host_of(stream)
        if host is not None and self._by_host[host] >= limits.handshakes_per_host:
            self._evict_one_of(host)
        elif len(self._all) >= limits.handshakes:
            self._evict(next(iter(self._incomplete), None))
        handshake = Handshake(host, trio.current_time() + limits.handshake_timeout)
        self._all.add(handshake)
        self._incomplete[handshake] = None
        self._by_host[host] += 1
        return handshake

    def complete(self, handshake: Handshake) -> None:
        """Keep the place until the peer is judged: the greeting has come."""
        self._incomplete.pop(handshake, None)

    def end(self, handshake: Handshake) -> None:
        """Free the place; doing it twice is fine."""
        if handshake in self._all:
            self._all.discard(handshake)
            self._incomplete.pop(handshake, None)
            self._by_host[handshake.host] -= 1
            if not self._by_host[handshake.host]:
                del self._by_host[handshake.host]

    def verdict(self, handshake: Handshake) -> Refused:
        """Return why a handshake was cut off."""
        if handshake.evicted:
            return Refused(CloseCode.OVERLOADED, "its place was needed for others that shake hands")
        timeout = self._limits.handshake_timeout
        return Refused(CloseCode.HANDSHAKE_TIMEOUT, f"no handshake within {timeout:g} s")

    def _evict_one_of(self, host: Hashable) -> None:
        self._evict(next((handshake for handshake in self._incomplete if handshake.host == host), None))

    def _evict(self, handshake: Handshake | None) -> None:
        if handshake is None:
            raise Refused(CloseCode.OVERLOADED, "too many handshakes are under way")
        handshake.evicted = True
        handshake.scope.cancel()
        self.end(handshake)


def host_of(stream: trio.abc.Stream) -> Hashable:
    """Return what counts as one host: an IPv4 address, or the /64 network of an IPv6 address.

    A single host has a whole /64. ``None`` for streams that can only come from this machine, such as Unix
    sockets, and for unknown kinds of streams.
    """
    inner: object = stream
    while not isinstance(inner, trio.SocketStream):
        inner = getattr(inner, "transport_stream", None)
        if inner is None:
            return None
    try:
        name = inner.socket.getpeername()
    except OSError:
        return None
    if not isinstance(name, tuple):
        return None
    host: str = name[0].partition("%")[0].removeprefix("::ffff:")
    return socket.inet_pton(socket.AF_INET6, host)[:8] if ":" in host else host
