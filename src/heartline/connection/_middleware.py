"""Middleware around the messages that are read."""

from __future__ import annotations

import logging
from typing import Any

from heartline.errors import Overloaded
from heartline.link import Core
from heartline.observe import Operation

__all__ = ["Dropped", "let_in"]

logger = logging.getLogger("heartline.connection")


class Dropped(Exception):
    """Middleware has refused a message: its reader goes on with the next one."""


async def let_in(core: Core, channel: str, message: Any) -> Any:
    """What middleware makes of a message; raises ``Dropped`` when it is refused."""

    async def proceed() -> Any:
        return message

    operation = Operation(kind="message", name=channel, peer=core.id, subject=message)
    try:
        return await core.setup.hooks.around(operation, proceed)
    except (PermissionError, Overloaded) as error:
        logger.debug("a message of %s was refused: %s", core.id, error)
        raise Dropped from None
