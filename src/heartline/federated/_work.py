"""A learner's work on one order, apart from the call that brought it.

A call ends with its connection; the training that it ordered need not. So the work runs in a nursery of the
learner's own. After a loss or a restart the trainer sends the same order again, and gets the result of that
work; if the work is still going on, it waits. Only the last order is remembered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from heartline.link import ConnectionState, current
from heartline.observe import own_error

__all__ = ["OrderRunner"]


class _Work:
    """The work on one order, and its outcome."""

    __slots__ = ("callers", "done", "error", "key", "result", "scope")

    def __init__(self, key: str) -> None:
        self.key = key
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.callers = 0
        self.result: Any = None
        self.error: BaseException | None = None


class OrderRunner:
    """Carries each order out once; keeps the last order and its result, so one model at most."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._last: _Work | None = None

    async def run_once(self, key: str, run: Callable[[], Awaitable[Any]]) -> Any:
        """Return the result of the order ``key``; ``run`` is called if no work on that order has begun.

        Raises what the work raised. Cancelling the last caller also cancels the work, unless the caller was
        cancelled because its link was lost: then the work goes on. A new order cancels an older one that
        nobody waits for.
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
            # The end of a session cancels its calls too, but the trainer will ask for this order again.
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
        except BaseException as error:
            work.error = own_error(error)
        # Not when the learner itself is cancelled: then there is no outcome, and the callers end with the
        # connection.
        work.done.set()


def _watch_link() -> Callable[[], bool]:
    """Return a function that tells whether the link of the present call has been lost since."""
    core = current.get(None)
    if core is None:  # called directly, without a connection
        return lambda: False
    link = core.link
    return lambda: core.link is not link or core.state is not ConnectionState.OPEN
