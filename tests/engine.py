"""The engine below what users hold, for tests that play with links."""

from __future__ import annotations

from heartline import Connection
from heartline.link import Core, Link


def core_of(connection: Connection) -> Core:
    """The engine of a connection."""
    return connection._core


def link_of(connection: Connection) -> Link:
    """The link of a connection's session, up or down; there has to be one."""
    link = connection._core.link
    assert link is not None
    return link
