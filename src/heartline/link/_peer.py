"""Who is at the other end of a connection."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from heartline.transports import StreamInfo

__all__ = ["Peer"]

_TOLD = tuple(known.name for known in fields(StreamInfo))
"""What a stream can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer(StreamInfo):
    """Who is at the other end of a link: what it says of itself, and what its stream knows.

    ``authenticate`` judges a client by it, and :attr:`heartline.Connection.peer` tells it later, on both ends
    and without credentials. Only the certificate is proof of anything.
    """

    url: str
    """On a server the URL of the listener that accepted; on a client the URL that it dialled, empty where it
    was given an open stream."""

    identity: str | None = None
    """The name that a client claims, ``None`` if it claims none; that under which it was let in is
    :attr:`heartline.Connection.id`. On a client ``None``: servers claim no name."""

    credentials: Any = field(default=None, repr=False)
    """What a client gave as ``credentials=``: any value that can be sent, not checked yet in any way. It is
    there for ``authenticate`` only, and not kept."""

    @classmethod
    def of(cls, info: StreamInfo, *, url: str, identity: str | None = None, credentials: Any = None) -> Peer:
        """The peer at the other end of a stream that knows this of it."""
        told = {name: getattr(info, name) for name in _TOLD}
        return cls(**told, url=url, identity=identity, credentials=credentials)
