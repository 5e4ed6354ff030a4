"""Receipts: which subscribers have an update, and the wait for them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import TypeAlias

import trio

__all__ = ["Level", "Receipt", "Wait", "Who"]

Who: TypeAlias = tuple[str, int]
"""A subscription over all its links: the id of its connection, and its key there."""


class Level(enum.Enum):
    """Where an update is when ``publish`` returns."""

    RECEIVED = "received"
    """In the server's memory; it ends with the server."""
    STORED = "stored"
    """Committed by the topic's store; it outlives the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What is known about a published update when ``publish`` returns.

    ``confirmed`` and ``missing`` hold the ids of the connections that were subscribed when it was published;
    one with several subscriptions to the topic is missing while any of them is. Without ``wait`` both are
    empty; with ``"sent"`` ``confirmed`` are those to which the update was handed over; with ``"confirmed"``
    those that have handled it, or a newer one instead (with the policy ``"keep newest"``, or after a
    :class:`Gap`). A subscriber for which the update is too long is missing. The receipt of a publish that was
    repeated with its key is that of the first update.
    """

    topic: str
    epoch: str
    offset: int
    confirmed: frozenset[str]
    missing: frozenset[str]
    level: Level


class Wait:
    """A publisher that waits for confirmations of one update.

    It is told of every confirmation and departure, so that the cost of waiting does not grow with the square
    of the subscribers. A ``patient`` one also waits for subscriptions whose session ended: they may return.
    """

    __slots__ = ("_done", "_expected", "_refused", "missing", "offset", "patient")

    def __init__(self, offset: int, whom: Iterable[Who], *, refused: Set[Who], patient: bool) -> None:
        self.offset: int = offset
        self.missing: set[Who] = set(whom)
        """The subscriptions that have not confirmed it."""
        self._refused = set(refused)
        """Those that will never have it, whatever they confirm."""
        self._expected = self.missing - refused
        self.patient: bool = patient
        self._done = trio.Event()

    def confirmed(self, who: Who) -> None:
        """This subscription has the update."""
        if who not in self._refused:
            self.missing.discard(who)
            self._give_up(who)

    def refused(self, who: Who) -> None:
        """This subscription cannot have the update."""
        self._refused.add(who)
        self._give_up(who)

    def gone(self, who: Who, *, lost: bool) -> None:
        """This subscription has left, or was ``lost`` with its session."""
        if not (lost and self.patient):
            self._give_up(who)

    def _give_up(self, who: Who) -> None:
        self._expected.discard(who)
        if not self._expected:
            self._done.set()

    async def done(self) -> None:
        """Wait until nobody is expected to confirm any more."""
        if self._expected:
            await self._done.wait()
