"""Threads without threads: what :func:`trio.to_thread.run_sync` does in a world."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio

from heartline.testing._life import current_life

__all__ = ["inline_threads"]

THREAD_TIME = 0.01
"""Seconds of the world that a function in a thread takes at most; other tasks go on meanwhile."""

T = TypeVar("T")


@contextmanager
def inline_threads(rng: random.Random) -> Iterator[None]:
    """Within the block, ``trio.to_thread.run_sync`` calls the function in place, after a random delay.

    A thread would take real time, which no seed repeats and in which the virtual clock runs ahead. A function
    that calls back by :mod:`trio.from_thread` does not work here. On a node that has crashed meanwhile the
    function is not called, and :exc:`OSError` is raised instead.
    """
    module: Any = importlib.import_module("trio.to_thread")
    real = module.run_sync

    async def run_sync(
        sync_fn: Callable[..., T], *args: Any, abandon_on_cancel: bool = False, **_unused: Any
    ) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=not abandon_on_cancel):
            await trio.sleep(rng.uniform(0, THREAD_TIME))
        life = current_life()
        if life is not None:
            life.check()
        return sync_fn(*args)

    module.run_sync = run_sync
    try:
        yield
    finally:
        module.run_sync = real
