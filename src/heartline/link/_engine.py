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

    def abort(self, error: BaseException) -> None:
        """Have the endpoint's block raise this: what it is in is cancelled, and the goodbye can be said.

        For what is meant for the whole program, such as Ctrl-C, and met one of the engine's tasks.
        """
        self._block.start_soon(_throw, error)


@asynccontextmanager
async def open_engine() -> AsyncIterator[Engine]:
    """Run an engine as long as the block; leaving the block cancels its tasks."""
    async with open_plain_nursery() as block:
        ready = trio.Event()
        nurseries: list[trio.Nursery] = []

        async def run() -> None:
            async with open_plain_nursery() as nursery:
                nursery.cancel_scope.shield = True
                nurseries.append(nursery)
                ready.set()
                await trio.sleep_forever()

        # Not with ``block.start``: a task that is cancelled while it starts, and is shielded, never would end.
        block.start_soon(run)
        with trio.CancelScope(shield=True):
            await ready.wait()
        (nursery,) = nurseries
        try:
            yield Engine(nursery, block)
        finally:
            nursery.cancel_scope.cancel()


async def _throw(error: BaseException) -> NoReturn:
    raise error
