"""A learner's work on one order, apart from the call that brought it.

A call ends with its connection; the training that it ordered need not. So the work runs in a nursery of the
learner's own, and whoever brings the same order again, which is the trainer after a loss or a restart, gets
the result of that work: it waits if the work is still going on. One order is remembered, the last one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from heartline.link import ConnectionState, current

__all__ = ["Desk"]


class _Work:
    """What is done for one order, and what came of it."""

    __slots__ = ("callers", "done", "error", "key", "result", "scope")

    def __init__(self, key: str) -> None:
        self.key = key
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.callers = 0
        self.result: Any = None
        self.error: Exception | None = None


class Desk:
    """Does each order once; holds the last one and its result, which is a model at most."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._last: _Work | None = None

    async def once(self, key: str, run: Callable[[], Awaitable[Any]]) -> Any:
        """The result of the order ``key``: of the work on it, if there is any, and otherwise of ``run``.

        A caller that is cancelled calls the work off, unless its link went: then the work goes on. An order
        for which nobody waits any more makes room for the next one.
        """
        work = self._last
        if work is None or work.key != key or work.scope.cancel_called:
            if work is not None and not work.callers:
                work.scope.cancel()
            work = self._last = _Work(key)
            self._nursery.start_soon(self._carry_out, work, run)
        link_went = _watch_link()
        work.callers += 1
        try:
            await work.done.wait()
        except trio.Cancelled:
            if work.callers == 1 and not link_went():
                work.scope.cancel()
            raise
        finally:
            work.callers -= 1
        if work.error is not None:
            raise work.error
        return work.result

    async def _carry_out(self, work: _Work, run: Callable[[], Awaitable[Any]]) -> None:
        try:
            with work.scope:
                work.result = await run()
        except Exception as error:
            work.error = error
        finally:
            work.done.set()


def _watch_link() -> Callable[[], bool]:
    """Whether the link on which the present call came has gone since."""
    core = current.get(None)
    if core is None:  # called directly, without a connection
        return lambda: False
    link = core.link
    return lambda: core.link is not link or core.state is not ConnectionState.OPEN
