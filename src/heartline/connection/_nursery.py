"""A nursery inside a context manager whose own tasks never fail: the body's error comes out as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

__all__ = ["open_plain_nursery"]


@asynccontextmanager
async def open_plain_nursery() -> AsyncIterator[trio.Nursery]:
    """Like :func:`trio.open_nursery`, but a single error is raised bare, not in a group of one.

    That there is a nursery inside ``open_connection`` is not the caller's business: ``except ValueError``
    around the block must see the ``ValueError`` of the body. Several errors stay a group.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        _, others = group.split(trio.Cancelled)
        single = _single(group if others is None else others)
        if single is None:
            raise
        raise single from single.__cause__


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The only error in the group; of several cancellations any one stands for all."""
    leaf: BaseException = group
    while isinstance(leaf, BaseExceptionGroup):
        if len(leaf.exceptions) > 1 and not all(isinstance(e, trio.Cancelled) for e in leaf.exceptions):
            return None
        leaf = leaf.exceptions[0]
    return leaf
