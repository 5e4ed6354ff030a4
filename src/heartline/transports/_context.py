"""What a transport gets beside the URL: a nursery for its tasks, a TLS context, and options."""

from __future__ import annotations

import re
import ssl
from collections.abc import Collection
from dataclasses import dataclass, field

import trio

from heartline.errors import ConfigurationError

__all__ = ["ANY_ORIGIN", "TransportContext", "TransportOptions"]

ANY_ORIGIN = "*"
"""Allows every origin."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_DEFAULT_PORTS = (("http://", ":80"), ("https://", ":443"))
_MAX_BACKLOG = 65535


@dataclass(frozen=True, kw_only=True)
class TransportOptions:
    """How transports listen and connect; one set serves all URLs of an endpoint.

    A scheme ignores the options that mean nothing to it: a Unix socket has no port to share. A transport with
    options of its own takes a subclass of this. A bad value raises :class:`~heartline.ConfigurationError`.

    - ``backlog``: connections that may wait to be accepted.
    - ``reuse_port``: whether several servers may listen on one TCP port.
    - ``allowed_origins``: sites whose pages may connect from a browser, or ``"*"``; by default none may.
    """

    backlog: int = 4096
    """Connections that may wait for ``accept``; one more has to try again, over TCP after a second. A whole
    fleet may come back at once after an outage. The system may lower it (on Linux to ``net.core.somaxconn``,
    by default this number); at most 65,535."""

    reuse_port: bool = False
    """Whether several servers may listen on one TCP port (``SO_REUSEPORT``), among which the system
    distributes the connections: for a process per core. Off by default: a second server that is started by
    mistake would take half of the clients. Besides, only one server knows the session of a lost connection,
    so a client that comes back often has to begin a new one."""

    allowed_origins: Collection[str] = ()
    """Sites whose pages may connect to a ``ws://`` or ``wss://`` listener from a browser, as browsers name
    them: ``["https://app.example.org"]``, or ``"*"`` for all. By default none may, since any page that a
    person opens could otherwise use everything that this person's machine and network can reach. Programs
    other than browsers send no origin, and are let in."""

    def __post_init__(self) -> None:
        if type(self.backlog) is not int or not 0 < self.backlog <= _MAX_BACKLOG:
            raise ConfigurationError(
                f"TransportOptions.backlog must be a number from 1 to {_MAX_BACKLOG}, not {self.backlog!r}"
            )
        if not isinstance(self.reuse_port, bool):
            raise ConfigurationError(
                f"TransportOptions.reuse_port must be True or False, not {self.reuse_port!r}"
            )
        # A frozen copy: the caller's list may change later.
        object.__setattr__(self, "allowed_origins", _check_origins(self.allowed_origins))

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may connect."""
        return ANY_ORIGIN in self.allowed_origins or origin in self.allowed_origins


@dataclass(frozen=True, kw_only=True)
class TransportContext:
    """The nursery of the streams and listeners of one endpoint, and the settings that they are made with."""

    nursery: trio.Nursery
    """For the tasks that a transport needs. They end with the nursery, or earlier, with their stream or
    listener. A task that raises ends the endpoint: an error of one stream should break that stream
    instead."""

    tls: ssl.SSLContext | None = None
    """The TLS context, for schemes that encrypt; the others refuse it."""

    options: TransportOptions = field(default_factory=TransportOptions)

    def __post_init__(self) -> None:
        if not isinstance(self.nursery, trio.Nursery):
            raise ConfigurationError(
                f"TransportContext.nursery must be a trio.Nursery, not {self.nursery!r:.80}"
            )
        if not isinstance(self.options, TransportOptions):
            raise ConfigurationError(
                f"TransportContext.options must be TransportOptions, not {self.options!r:.80}"
            )


def _check_origins(origins: Collection[str]) -> frozenset[str]:
    if origins == ANY_ORIGIN:
        return frozenset({ANY_ORIGIN})
    if isinstance(origins, str) or not isinstance(origins, Collection):
        raise ConfigurationError(
            f'TransportOptions.allowed_origins must be a list of origins or "*", not {origins!r:.80}'
        )
    for origin in origins:
        if origin != ANY_ORIGIN:
            _check_origin(origin)
    return frozenset(origins)


def _check_origin(origin: str) -> None:
    if origin == "null":
        raise ConfigurationError(
            "TransportOptions.allowed_origins: any page can send the origin 'null' (a sandboxed frame does); "
            'if all may connect, say "*"'
        )
    if not isinstance(origin, str) or not _ORIGIN.fullmatch(origin):
        raise ConfigurationError(
            f"TransportOptions.allowed_origins: {origin!r:.80} is not an origin; write scheme://host[:port] "
            "in lower case and without a path, as https://app.example.org"
        )
    for scheme, port in _DEFAULT_PORTS:
        if origin.startswith(scheme) and origin.endswith(port):
            raise ConfigurationError(
                f"TransportOptions.allowed_origins: browsers leave out the default port of {origin!r}; "
                f"write {origin.removesuffix(port)!r}"
            )
