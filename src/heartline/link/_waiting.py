"""Waiting at a link: for room, for the writer, for a stream that takes over.

Tasks that wait for the same thing form a queue. Whenever something may have changed, the condition of the
first task in each queue is checked, and only if that holds is the task woken; when it has gone on it wakes
the next. So tasks go on in order, as many as there is room for, and a change costs one check per queue,
however many tasks wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import trio

__all__ = ["Queues"]


class _Waiter:
    """One task in a queue."""

    __slots__ = ("can_go_on", "task", "woken")

    def __init__(self, task: trio.lowlevel.Task, can_go_on: Callable[[], bool]) -> None:
        self.task = task
        self.can_go_on = can_go_on
        self.woken = False


# Ordered by arrival; unlike a plain dictionary it gives its first in constant time whatever was deleted.
_Queue = OrderedDict[_Waiter, None]


class Queues:
    """The tasks that wait at one link, by what they wait for."""

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: dict[Hashable, _Queue] = {}

    # Ctrl-C must not be raised between entering the queue and sleeping there.
    @trio.lowlevel.enable_ki_protection
    async def wait(self, what: Hashable, can_go_on: Callable[[], bool]) -> None:
        """Wait in the queue for ``what`` until ``can_go_on()`` is true; cancelling leaves the queue.

        Not a checkpoint when nobody waits and it can go on at once.
        """
        queue = self._queues.get(what)
        if queue is None:
            if can_go_on():
                return
            queue = self._queues[what] = OrderedDict()
        waiter = _Waiter(trio.lowlevel.current_task(), can_go_on)
        queue[waiter] = None

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            waiter.woken = True  # Trio wakes it, and it leaves the queue when it runs
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            while True:
                waiter.woken = False
                await trio.lowlevel.wait_task_rescheduled(abort)
                if can_go_on():
                    break
        finally:
            del queue[waiter]
            if queue:
                _wake_first(queue)
            else:
                del self._queues[what]

    def wake(self) -> None:
        """Let the first task of each queue go on if it can; to be called when something may have changed."""
        for queue in self._queues.values():
            _wake_first(queue)


def _wake_first(queue: _Queue) -> None:
    first = next(iter(queue))
    # A task that was woken but has not run yet stays in front, so that no newcomer passes it.
    if not first.woken and first.can_go_on():
        first.woken = True
        trio.lowlevel.reschedule(first.task)
