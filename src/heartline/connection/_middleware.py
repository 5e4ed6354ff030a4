"""Runs the middleware around messages that are read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import trio

from heartline.errors import Overloaded
from heartline.link import Core
from heartline.observe import Operation, sort_out

__all__ = ["Dropped", "let_in"]

logger = logging.getLogger("heartline.connection")


class Dropped(Exception):
    """Middleware has refused a message, and its reader should go on with the next one."""


async def let_in(core: Core, channel: str, message: Any, put_back: Callable[[], None]) -> Any:
    """Return what middleware makes of a message; raises ``Dropped`` when middleware refuses it.

    If the reader is cancelled meanwhile, the message is put back for the next reader.
    """

    async def proceed() -> Any:
        return message

    operation = Operation(kind="message", name=channel, peer=core.id, subject=message)
    try:
        return await core.setup.hooks.around(operation, proceed)
    except (PermissionError, Overloaded) as error:
        logger.debug("%s: a message was refused: %s", core, error)
    except BaseException as error:
        if sort_out(error)[1] is not None:
            put_back()
        raise
    await trio.lowlevel.checkpoint()  # other tasks get their turn, however many messages are refused in a row
    raise Dropped
