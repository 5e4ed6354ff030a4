"""Checkers of what is delivered: confirmed, in order, without a silent gap, never an older version.

A test tells a checker what it observes, in the order in which it happens, and the checker raises at once. The
names of receivers, streams and items can be anything hashable.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import final

from heartline.testing._violation import Violation

__all__ = ["DeliveryChecker", "OrderChecker", "VersionChecker"]


@final
class DeliveryChecker:
    """A receipt that names a receiver implies that this receiver was given the item."""

    def __init__(self) -> None:
        self._delivered: set[tuple[Hashable, Hashable]] = set()

    def delivered(self, receiver: Hashable, item: Hashable) -> None:
        """``receiver`` has handled ``item``."""
        self._delivered.add((receiver, item))

    def confirmed(self, receiver: Hashable, item: Hashable) -> None:
        """The sender was told that ``receiver`` has ``item``; raises :exc:`Violation` if it has not."""
        if (receiver, item) not in self._delivered:
            raise Violation(f"{item!r} was confirmed by {receiver!r}, which has not handled it")


@final
class OrderChecker:
    """The numbers of a stream come one after the other: none twice, none out of order, no silent gap.

    A stream begins with the first number that is observed, or where :meth:`begin` says.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, int] = {}
        self._told: set[Hashable] = set()

    def begin(self, stream: Hashable, after: int) -> None:
        """The next number is the one that follows ``after``: the first, or again after a restart."""
        self._last[stream] = after
        self._told.discard(stream)

    def told_gap(self, stream: Hashable) -> None:
        """The receiver was told, by a :class:`~heartline.Gap`, that some are missing before the next."""
        self._told.add(stream)

    def observe(self, stream: Hashable, number: int) -> None:
        """``number`` has come; raises :exc:`Violation` if it should not have."""
        last = self._last.get(stream, number - 1)
        if number == last:
            raise Violation(f"{stream!r}: {number} came twice")
        if number < last:
            raise Violation(f"{stream!r}: {number} came after {last}, out of order or again")
        if number > last + 1 and stream not in self._told:
            raise Violation(f"{stream!r}: {number} came after {last}, and nobody was told of the gap")
        self._last[stream] = number
        self._told.discard(stream)


@final
class VersionChecker:
    """The versions of a model that a learner is given never go backwards within a run of the trainer."""

    def __init__(self) -> None:
        self._newest: dict[tuple[Hashable, Hashable], int] = {}

    def observe(self, learner: Hashable, run: Hashable, version: int) -> None:
        """``learner`` has this version of ``run`` now; raises :exc:`Violation` if it had a newer one."""
        newest = self._newest.get((learner, run), version)
        if version < newest:
            raise Violation(f"{learner!r} went back from version {newest} to {version} of run {run!r}")
        self._newest[learner, run] = version
