"""The way to what is below the faces that users hold, for tests that have to look there."""

from __future__ import annotations

from heartline import Channel, Connection
from heartline.link import Core, Link

__all__ = ["core_of", "link_of", "number_of"]


def core_of(connection: Connection) -> Core:
    """The engine of a connection."""
    return connection._core


def link_of(connection: Connection) -> Link:
    """The link of its session, up or down; there has to be a session."""
    link = connection._core.link
    assert link is not None
    return link


def number_of(channel: Channel) -> int:
    """The number of a channel's frames."""
    return channel._number
