"""Serves a connection's link: reads it until its stream ends, for whatever reason."""

from __future__ import annotations

import logging
from functools import partial

import trio

from heartline.errors import ConnectionLost, HeartlineError, RemoteProtocolError
from heartline.link._core import Core
from heartline.link._current import current
from heartline.link._goodbye import say_why
from heartline.link._link import Link
from heartline.link._reading import read
from heartline.observe import report, sort_out
from heartline.session import CloseCode, Role

__all__ = ["serve_link"]

logger = logging.getLogger("heartline.link")


@trio.lowlevel.enable_ki_protection
async def serve_link(core: Core, link: Link) -> HeartlineError:
    """Serve the link's stream until it ends, and return the reason.

    Afterwards :attr:`Core.link` is ``None`` if the session has ended with it; otherwise another stream
    may resume it.
    """
    current.set(core)
    reason: HeartlineError | None = None
    try:
        with link.scope:
            core.begin_link(link)
            await read(link, core.handle)
    except RemoteProtocolError as error:
        reason = error
        say_why(link, CloseCode.PROTOCOL_ERROR, str(error))
    except ConnectionLost as error:
        link.lose(error)
    except BaseException as error:
        if sort_out(error)[1] is not None:  # Cancelled, or Ctrl-C in a method that was running here
            reason = ConnectionLost("the block that the connection lived in was left")
            ended = CloseCode.NORMAL if core.role is Role.CLIENT else CloseCode.GOING_AWAY
            say_why(link, ended, f"the {core.role.value} has ended")
            raise
        # An error on one peer's connection must not end the server, and the other connections with it.
        admit = partial(core.setup.troubles.admit, "internal errors")
        report(logger, error, "%s: internal error", core, admit=admit)
        reason = ConnectionLost("internal error, see the log")
        say_why(link, CloseCode.INTERNAL_ERROR, "internal error")
    finally:
        await core.end_link(link, reason)
    assert core.reason is not None, "the link has ended, and no other one came yet"
    return core.reason
