"""On whose behalf code runs: what handles a connection's frames knows it, and so do the tasks begun there."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from heartline.errors import LocalProtocolError

if TYPE_CHECKING:
    from heartline.connection._connection import Connection

__all__ = ["current", "current_connection"]

current: ContextVar[Connection] = ContextVar("heartline_connection")


def current_connection() -> Connection:
    """The connection on whose behalf this code runs: inside a service's method."""
    try:
        return current.get()
    except LookupError:
        raise LocalProtocolError("there is no current connection outside of a service's method") from None
