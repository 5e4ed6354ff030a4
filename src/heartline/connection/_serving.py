"""A connection's link is served: read until its stream ends, for whatever reason, and no longer."""

from __future__ import annotations

import logging

import trio

from heartline.connection._connection import Connection
from heartline.connection._current import current
from heartline.connection._goodbye import say_why
from heartline.connection._link import Link
from heartline.errors import ConnectionLost, HeartlineError, RemoteProtocolError
from heartline.session import CloseCode, Role

__all__ = ["serve_link"]

logger = logging.getLogger("heartline")


@trio.lowlevel.enable_ki_protection
async def serve_link(connection: Connection, link: Link) -> HeartlineError:
    """Serve the link's stream until that ends; the reason is returned.

    Afterwards :attr:`Connection.link` is ``None`` if the session has ended with it; otherwise another stream
    may resume it.
    """
    current.set(connection)
    reason: HeartlineError | None = None
    try:
        with link.scope:
            connection.begin_link(link)
            await link.read(connection.handle)
    except RemoteProtocolError as error:
        reason = error
        say_why(link, CloseCode.PROTOCOL_ERROR, str(error))
    except ConnectionLost as error:
        link.lose(error)
    except Exception:
        # One peer's connection must not take the others with it: the server lives on.
        logger.exception("internal error on the connection %s", connection.id)
        reason = ConnectionLost("internal error, see the log")
        say_why(link, CloseCode.INTERNAL_ERROR, "internal error")
    except BaseException:  # Cancelled, or Ctrl-C in a method that was running here
        reason = ConnectionLost("the block that the connection lived in was left")
        if connection.role is Role.SERVER:
            say_why(link, CloseCode.GOING_AWAY, "the server has ended")
        raise
    finally:
        await connection.end_link(link, reason)
    assert connection.reason is not None, "the link has ended, and no other one came yet"
    return connection.reason
