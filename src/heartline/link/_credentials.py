"""A client's credentials: a value, or a function that is called for one at every handshake."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from heartline._summaries import Summary
from heartline.errors import ConnectionFailed
from heartline.observe import own_error

__all__ = ["Credentials"]

logger = logging.getLogger("heartline.link")


class Credentials:
    """The source of a client's credentials.

    A function is called before the server is dialled, so that the server need not wait for it. It has the
    whole time of a handshake.
    """

    def __init__(self, source: Any, timeout: float) -> None:
        self._source = source
        self._timeout = timeout
        self._asked_before = False

    @property
    def renewable(self) -> bool:
        """Whether the next credentials may be different."""
        return callable(self._source)

    async def ask(self, troubles: Summary) -> Any:
        """Return the value for the next handshake; ``troubles`` bounds what is logged.

        The first time, what the function raises is raised unchanged. Later it becomes
        :class:`ConnectionFailed`, a failed attempt; so does, each time, an answer that comes too late.
        """
        if not callable(self._source):
            return self._source
        asked_before, self._asked_before = self._asked_before, True
        try:
            with trio.move_on_after(self._timeout):
                return await _call(self._source)
        except BaseException as error:
            own = own_error(error)
            if not asked_before:
                raise
            if troubles.admit("credentials raised"):
                logger.warning("the function for the credentials raised", exc_info=own)
            raise ConnectionFailed(f"the function for the credentials raised {error!r}") from own
        raise ConnectionFailed(
            f"no credentials within {self._timeout:g} s (Limits.handshake_timeout) from the function for them"
        )


@trio.lowlevel.disable_ki_protection  # the user's own code
async def _call(function: Callable[[], Any | Awaitable[Any]]) -> Any:
    value = function()
    return await value if inspect.isawaitable(value) else value
