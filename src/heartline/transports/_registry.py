"""Which transport serves which URL scheme.

The table belongs to the whole process, like that of serializers and the codecs of the standard library: it
only ever grows, and is reached through functions alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

import trio

from heartline.errors import ConfigurationError
from heartline.transports._context import TransportContext
from heartline.transports._listener import Listener
from heartline.transports._url import SCHEME, split_scheme

__all__ = ["OpenListeners", "OpenStream", "find", "known_schemes", "register"]

ENTRY_POINT_GROUP = "heartline.transports"


class OpenStream(Protocol):
    """Connects to ``url``; tasks that the stream needs run in ``context.nursery``.

    Raises ``ConfigurationError`` before any I/O, ``OSError`` or ``trio.BrokenResourceError`` after.
    """

    async def __call__(self, url: str, context: TransportContext, /) -> trio.abc.Stream: ...


class OpenListeners(Protocol):
    """Listens on ``url``; tasks that the listeners or their streams need run in ``context.nursery``.

    Raises ``ConfigurationError`` before any I/O, ``OSError`` after.
    """

    async def __call__(self, url: str, context: TransportContext, /) -> list[Listener]: ...


@dataclass(frozen=True, slots=True)
class Transport:
    """The two functions behind a scheme."""

    open_stream: OpenStream
    open_listeners: OpenListeners


_transports: dict[str, Transport] = {}


def register(scheme: str, *, open_stream: OpenStream, open_listeners: OpenListeners) -> None:
    """Let these two functions serve URLs that start with ``scheme://``, for the whole process.

    Both take a URL and a :class:`TransportContext`. A package can do without this call: it declares an entry
    point in the group ``heartline.transports``, named like the scheme, that leads to a module (or any object)
    with these two functions. It is loaded when its scheme is first used.

    Raises :class:`~heartline.errors.ConfigurationError` for a bad scheme, or one that is taken.
    """
    if not SCHEME.fullmatch(scheme):
        raise ConfigurationError(f"scheme: {scheme!r} must be lower-case letters, digits, '+', '.' and '-'")
    if scheme in _transports:
        raise ConfigurationError(f"scheme: {scheme!r} is registered already; choose another name")
    _transports[scheme] = Transport(open_stream, open_listeners)


def find(url: str) -> Transport:
    """Return the transport of a URL's scheme, loaded from its entry point if necessary."""
    scheme, _ = split_scheme(url)
    if scheme not in _transports:
        _load(scheme)
    try:
        return _transports[scheme]
    except KeyError:
        raise ConfigurationError(
            f"url: {url!r} has the unknown scheme {scheme!r}; known are {', '.join(known_schemes())}"
        ) from None


def known_schemes() -> list[str]:
    """The schemes of URLs that can be opened here: heartline's own, registered ones, and entry points."""
    return sorted(_transports.keys() | entry_points(group=ENTRY_POINT_GROUP).names)


def _load(scheme: str) -> None:
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=scheme):
        module = entry.load()
        register(scheme, open_stream=module.open_stream, open_listeners=module.open_listeners)
