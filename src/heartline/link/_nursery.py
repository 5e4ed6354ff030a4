"""A nursery inside a context manager whose own tasks never fail: the body's error comes out as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

__all__ = ["open_plain_nursery"]


@asynccontextmanager
async def open_plain_nursery() -> AsyncIterator[trio.Nursery]:
    """Like :func:`trio.open_nursery`, but a single error is raised bare, not in a group of one.

    The caller need not know that there is a nursery inside ``open_connection``: ``except ValueError`` around
    the block must catch a ``ValueError`` of the body. Several errors stay a group.
    """
    single: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        single = _single(group)
        if single is None:
            raise
    if single is not None:
        # Not in the handler above: the error's own context must not be replaced by the group.
        try:
            raise single
        finally:
            del single  # or its traceback would hold it in a cycle


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The only error of the nursery's tasks, as it is, be it a group of its own.

    Cancellations do not count beside an error, and of several any one stands for all.
    """
    errors = [error for error in group.exceptions if not _is_cancellation(error)]
    if len(errors) > 1:
        return None
    return errors[0] if errors else _any_leaf(group)


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_cancellation, error.exceptions))
    return isinstance(error, trio.Cancelled)


def _any_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
