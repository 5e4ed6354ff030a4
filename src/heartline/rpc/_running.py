"""Running the code of a method: where Ctrl-C may interrupt it, unlike the code that calls it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from types import CoroutineType
from typing import Any

import trio

from heartline.rpc._log import STALL
from heartline.rpc._methods import Mode
from heartline.rpc._table import Bound

__all__ = ["as_async", "run_async", "run_inline"]


@trio.lowlevel.disable_ki_protection
def run_inline(
    bound: Bound,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    now: Callable[[], float] = trio.current_time,
) -> Any:
    """Run a sync method in the event loop, and log it if that took long.

    The result is a coroutine where a decorator hides that the method is async: then it has to be awaited.
    ``now`` may be given by a caller that has looked up Trio's clock before.
    """
    began = now()
    try:
        return bound.function(*args, **kwargs)
    finally:
        seconds = now() - began
        if seconds > STALL:
            bound.log.stalled(seconds)


@trio.lowlevel.disable_ki_protection
async def run_async(bound: Bound, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a method in this task, whatever it is."""
    mode = bound.mode
    if mode is Mode.TASK:
        return await bound.function(*args, **kwargs)
    if mode is Mode.THREAD:
        return await trio.to_thread.run_sync(partial(bound.function, *args, **kwargs))
    await trio.lowlevel.checkpoint_if_cancelled()
    result = run_inline(bound, args, kwargs)
    return await result if type(result) is CoroutineType else result


def as_async(bound: Bound) -> Callable[..., Coroutine[Any, Any, Any]]:
    """The method as an async function, whatever it is."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await run_async(bound, args, kwargs)

    return call
