"""Where an endpoint's own tasks run: until its block is left, not until the block is cancelled.

The goodbye needs the tasks that read and write. So a cancellation from outside, which reaches the block and
everything in it at once, must not reach these. They run in a nursery that is shielded, in a task of its own:
the block is cancelled, its end says goodbye, and that ends the engine. Every end of the block goes this way,
and so the goodbye has one place and one bound.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn, final

import trio

from heartline.link._nursery import open_plain_nursery

__all__ = ["Engine", "open_engine"]


@final
class Engine:
    """The tasks of an endpoint."""

    __slots__ = ("_block", "nursery")

    def __init__(self, nursery: trio.Nursery, block: trio.Nursery) -> None:
        self.nursery: trio.Nursery = nursery
        self._block = block

    def let_pass(self, error: BaseException) -> None:
        """Raise a cancellation, and have the endpoint's block raise what is meant for the whole program.

        A Ctrl-C may strike in a user's function that one of the engine's tasks has called. Raised there it
        would end the engine before the goodbye.
        """
        if isinstance(error, BaseExceptionGroup):
            cancelled, meant = error.split(trio.Cancelled)
            if meant is not None:
                self._block.start_soon(_throw, _bare(meant))
            if cancelled is not None:
                raise cancelled
        elif isinstance(error, trio.Cancelled):
            raise error
        else:
            self._block.start_soon(_throw, error)


# Ctrl-C waits for a checkpoint here: between the start of the engine and ``try`` it would leave behind a task
# that nothing ends.
@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_engine() -> AsyncIterator[Engine]:
    """Run an engine as long as the block; leaving the block cancels its tasks."""
    async with open_plain_nursery() as block:
        scope = trio.CancelScope(shield=True)
        ready = trio.Event()
        nurseries: list[trio.Nursery] = []

        @trio.lowlevel.enable_ki_protection
        async def run() -> None:
            with scope:
                async with open_plain_nursery() as nursery:
                    nurseries.append(nursery)
                    ready.set()
                    await trio.sleep_forever()

        try:
            # Not with ``block.start``: cancelled while it starts, a task that is shielded would never end.
            block.start_soon(run)
            with trio.CancelScope(shield=True):
                await ready.wait()
            yield Engine(nurseries[0], block)
        finally:
            scope.cancel()


def _bare(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _throw(error: BaseException) -> NoReturn:
    raise error
