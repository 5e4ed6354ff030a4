"""Parses transport URLs strictly: what is not understood is refused, nothing is guessed or repaired."""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass

from heartline.errors import ConfigurationError

SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_MAX_HOST_NAME = 253
"""Characters, the limit of DNS."""
_PORT = re.compile(r"[0-9]{1,5}")
_MAX_PORT = 65535
_TARGET = re.compile(r"/[!-~]*")
"""The printable ASCII of an HTTP request line."""


@dataclass(frozen=True, slots=True)
class NetworkURL:
    """``scheme://host:port/path``: an IPv6 ``host`` stands here without brackets, ``path`` may be empty."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def authority(self) -> str:
        """``host:port``, as written in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def split_scheme(url: str) -> tuple[str, str]:
    """The scheme in lower case, and all that follows ``://``."""
    if not isinstance(url, str):
        raise ConfigurationError(f"url: {url!r} is not a str; write scheme://address")
    scheme, separator, rest = url.partition("://")
    if not separator or not SCHEME.fullmatch(scheme.lower()):
        raise ConfigurationError(
            f"url: {url!r} has no scheme; write scheme://address, as tcp://127.0.0.1:4000"
        )
    return scheme.lower(), rest


def parse_network(
    url: str, *, listening: bool, default_port: int | None = None, has_path: bool = False
) -> NetworkURL:
    """Parse ``scheme://host:port``, with a path where the scheme has one.

    Port 0 means "any free port", which makes sense only for ``listening``.
    """
    scheme, rest = split_scheme(url)
    authority, slash, tail = rest.partition("/")
    path = slash + tail
    if "@" in authority:
        raise ConfigurationError(f"url: {url!r} has user information; pass credentials= instead")
    if path and not has_path:
        raise ConfigurationError(f"url: {url!r} has a path, {path!r}; {scheme} URLs end after the port")
    if has_path:
        path = _parse_path(url, path or "/", listening=listening)
    if "?" in authority:
        raise ConfigurationError(
            f"url: {url!r} has a query without a path; only clients of ws:// and wss:// send one, "
            "as /?name=value"
        )
    host, port = _split_port(url, authority)
    return NetworkURL(scheme, _parse_host(url, host), _parse_port(url, port, default_port, listening), path)


def parse_memory(url: str, *, listening: bool) -> str:
    """The name in ``memory://name``; empty, where ``listening``, for a fresh name."""
    _, name = split_scheme(url)
    if not name and listening:
        return ""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise ConfigurationError(
            f"url: {url!r} needs a name of letters, digits, '.', '_' and '-' after memory://, got {name!r}"
        )
    return name


def refuse_tls(url: str, tls: ssl.SSLContext | None) -> None:
    """Refuse ``tls=`` for a scheme that does not encrypt: ignoring it would look like safety."""
    if tls is not None:
        raise ConfigurationError(f"tls: given for {url!r}, which is not encrypted; use tls:// or wss://")


def _split_port(url: str, authority: str) -> tuple[str, str | None]:
    if authority.startswith("["):
        host, bracket, port = authority.partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ConfigurationError(f"url: {url!r} has a bad IPv6 address; write it as [::1]:4000")
        return host + bracket, port[1:] if port else None
    host, colon, port = authority.partition(":")
    if ":" in port:
        raise ConfigurationError(f"url: {url!r} has too many colons; IPv6 addresses stand in brackets: [::1]")
    return host, port if colon else None


def _parse_host(url: str, host: str) -> str:
    if not host:
        raise ConfigurationError(
            f"url: {url!r} has no host; 127.0.0.1 is this machine, 0.0.0.0 and [::] listen on all addresses"
        )
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError as error:
            raise ConfigurationError(f"url: {url!r} has a bad IPv6 address: {error}") from None
    if not _HOST_NAME.fullmatch(host) or len(host) > _MAX_HOST_NAME:
        raise ConfigurationError(
            f"url: {url!r} has a bad host name, {host!r}; write ASCII labels of at most 63 characters "
            "(an international name in its xn-- form)"
        )
    return host


def _parse_port(url: str, port: str | None, default: int | None, listening: bool) -> int:
    if port is None and default is not None:
        return default
    if not port:
        hint = " (0 for any free one)" if listening else ""
        raise ConfigurationError(f"url: {url!r} has no port; add one, as in 127.0.0.1:4000{hint}")
    lowest = 0 if listening else 1
    if not _PORT.fullmatch(port) or not lowest <= int(port) <= _MAX_PORT:
        raise ConfigurationError(f"url: {url!r} has a bad port, {port!r}; it is {lowest} to {_MAX_PORT}")
    return int(port)


def _parse_path(url: str, path: str, *, listening: bool) -> str:
    if not _TARGET.fullmatch(path) or "#" in path:
        raise ConfigurationError(
            f"url: {url!r} has a bad path, {path!r}; use printable ASCII without '#', percent-encode the rest"
        )
    if listening and "?" in path:
        raise ConfigurationError(f"url: {url!r} has a query; only clients send one, a listener has a path")
    return path
