"""Checks of a transport's tasks: they live in its context's nursery, and no longer than what they serve."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress

import trio
import trio.testing

from heartline.transports import TransportContext

__all__ = ["TASK_CHECKS", "Make", "open_context"]

Make = Callable[[TransportContext], Awaitable[Iterable[trio.abc.AsyncResource]]]
"""Opens streams or listeners with a context."""

ROUNDS = 5
"""Times of opening and closing: enough to tell a task that is left each time from one that all share."""

LAST_WORDS = 5.0
"""Seconds that a task may live on when what it served is closed: longer than any goodbye here."""


@asynccontextmanager
async def open_context() -> AsyncIterator[TransportContext]:
    """A context for this block; what the block raises comes out as it is, not in a group."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield TransportContext(nursery=nursery)
        except Exception as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _check_end_with_nursery(make: Make) -> None:
    """A transport's tasks end with the nursery of its context, and what they served can still be closed."""
    before = _tree({trio.lowlevel.current_root_task()})
    async with open_context() as context:
        made = await make(context)
    after = _tree({trio.lowlevel.current_root_task()})
    assert after <= before, f"not in the context's nursery: {_names(after - before)}"
    for resource in made:
        with suppress(trio.BrokenResourceError):
            await resource.aclose()


async def _check_end_with_resource(make: Make) -> None:
    """A transport's tasks end when the stream or listener they serve is closed."""
    async with open_context() as context:
        await _close(await make(context))
        await trio.testing.wait_all_tasks_blocked()
        shared = len(_tree(context.nursery.child_tasks))
        for _ in range(ROUNDS):
            await _close(await make(context))
        with trio.move_on_after(LAST_WORDS):
            while len(_tree(context.nursery.child_tasks)) > shared:  # noqa: ASYNC110 - nobody tells its end
                await trio.sleep(LAST_WORDS / 100)
        left = _tree(context.nursery.child_tasks)
        assert len(left) <= shared, f"they live on when all is closed: {_names(left)}"


async def _close(resources: Iterable[trio.abc.AsyncResource]) -> None:
    for resource in resources:
        await trio.aclose_forcefully(resource)


def _tree(roots: Iterable[trio.lowlevel.Task | None]) -> set[trio.lowlevel.Task]:
    """These tasks, and all below them."""
    found: set[trio.lowlevel.Task] = set()
    waiting = [task for task in roots if task is not None]
    while waiting:
        task = waiting.pop()
        found.add(task)
        for nursery in task.child_nurseries:
            waiting.extend(nursery.child_tasks)
    return found


def _names(tasks: Iterable[trio.lowlevel.Task]) -> str:
    return ", ".join(sorted(task.name for task in tasks))


TASK_CHECKS = (_check_end_with_nursery, _check_end_with_resource)
