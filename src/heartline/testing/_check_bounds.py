"""Checkers of bounds: how much a receiver holds, and what is left when everything has ended."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import final

import trio

from heartline.testing._violation import Violation

__all__ = ["CreditChecker", "LeakChecker"]


@final
class CreditChecker:
    """What a channel's receiver holds unread is never more than its window and one message.

    A message may start when any credit is left, and is charged whole: hence the one message. ``window`` is
    :attr:`Limits.window <heartline.Limits.window>`, ``largest_message`` the size of the largest that is sent,
    both in bytes.
    """

    def __init__(self, *, window: int, largest_message: int) -> None:
        self._bound = window + largest_message
        self._unread: dict[Hashable, int] = {}

    def arrived(self, channel: Hashable, size: int) -> None:
        """A message of ``size`` bytes is at the receiver; raises :exc:`Violation` if it had no credit."""
        unread = self._unread.get(channel, 0) + size
        if unread > self._bound:
            raise Violation(
                f"channel {channel!r}: {unread} bytes are unread, more than the window and one message "
                f"({self._bound} bytes)"
            )
        self._unread[channel] = unread

    def read(self, channel: Hashable, size: int) -> None:
        """The receiver has taken a message; raises :exc:`Violation` if it gave back more than it got."""
        unread = self._unread.get(channel, 0) - size
        if unread < 0:
            raise Violation(f"channel {channel!r}: {-unread} bytes more were read than had arrived")
        self._unread[channel] = unread


@final
class LeakChecker:
    """There are no more tasks, or other counted things, at the end than there were at the beginning.

    ``counters`` are functions that count something, by the name to show in a violation. Trio's living
    tasks (``tasks``) are always among them. The beginning is when the checker is made; it must be within a
    run of Trio.
    """

    def __init__(self, counters: Mapping[str, Callable[[], int]] | None = None) -> None:
        self._counters = {"tasks": _tasks, **(counters or {})}
        self._before = self._count()

    def grown(self) -> dict[str, tuple[int, int]]:
        """The counts that have grown since the beginning: their values then and now."""
        now = self._count()
        return {name: (before, now[name]) for name, before in self._before.items() if now[name] > before}

    def check(self) -> None:
        """Raise :exc:`Violation` if anything is left."""
        grown = self.grown()
        if grown:
            told = ", ".join(f"{name} ({before} before, {now} now)" for name, (before, now) in grown.items())
            raise Violation(f"something was left behind: {told}")

    def _count(self) -> dict[str, int]:
        return {name: counter() for name, counter in self._counters.items()}


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living
