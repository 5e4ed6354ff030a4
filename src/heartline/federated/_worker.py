"""Threads for work that takes long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

import trio

__all__ = ["Worker"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Worker:
    """Does one piece of work at a time in a thread, and needs none of the places of the program's threads.

    So neither a checkpoint nor a training waits until other code of the program gives its places back.
    """

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, work: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """Do it and return what it returns; once begun it is finished, cancelled or not."""
        return await trio.to_thread.run_sync(work, *args, limiter=self._limiter)
