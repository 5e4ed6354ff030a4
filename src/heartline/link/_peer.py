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
    """The peer at the other end of a link: what it says about itself, and what its stream knows about it.

    ``authenticate`` judges a client by this. Later :attr:`heartline.Connection.peer` has it, on both ends and
    without credentials. Only the certificate is proof of anything.
    """

    url: str = field(repr=False)
    """On a server the URL of the listener that accepted; on a client the URL that it dialled, empty where it
    was given an open stream. Not printed, since its query may hold a token."""

    identity: str | None = None
    """The name that a client claims, ``None`` if it claims none; the name under which it was let in is
    :attr:`heartline.Connection.id`. On a client ``None``: servers claim no name."""

    credentials: Any = field(default=None, repr=False)
    """What a client gave as ``credentials=``: any value that can be sent, not checked in any way. Only
    ``authenticate`` gets it; it is not kept."""

    @classmethod
    def of(cls, info: StreamInfo, *, url: str, identity: str | None = None, credentials: Any = None) -> Peer:
        """Make the peer of a stream from what the stream knows about it."""
        told = {name: getattr(info, name) for name in _TOLD}
        return cls(**told, url=url, identity=identity, credentials=credentials)
