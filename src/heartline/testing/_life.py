"""One life of a node: from its start to its end or crash."""

from __future__ import annotations

import errno
from contextvars import ContextVar
from typing import Protocol

import trio

__all__ = ["Life", "current_life", "live"]


class Held(Protocol):
    """Something that a life holds in the world outside, and loses when it ends."""

    def cut(self, owner: Life, *, silent: bool) -> None:
        """Take this from its dead owner; with ``silent`` nobody is told."""
        ...


class Life:
    """A program that runs on a node, with what it holds: a task belongs to the life it was started in.

    The tasks of a life that has ended may go on for a while, cleaning up. They can reach nothing any more.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self.alive: bool = True
        self.scope: trio.CancelScope = trio.CancelScope()
        self.held: dict[Held, None] = {}
        self.left: list[Held] = []
        """What it held at its end, if nobody was told."""

    def check(self) -> None:
        """Raise :class:`OSError` if this life is over."""
        if not self.alive:
            raise OSError(errno.EIO, f"the node {self.node!r} has crashed")

    def end(self, *, silent: bool) -> None:
        """Let nothing leave from here any more; then cancel everything that runs."""
        self.alive = False
        held = list(self.held)
        for thing in held:
            thing.cut(self, silent=silent)
        self.left = held if silent else []
        self.scope.cancel()

    def tell(self) -> None:
        """Tell peers that do not know of the end yet: the system is back, and does not know them."""
        for thing in self.left:
            thing.cut(self, silent=False)
        self.left.clear()


_life: ContextVar[Life | None] = ContextVar("heartline.testing.life", default=None)


def current_life() -> Life | None:
    """The life that this task belongs to; ``None`` outside of all nodes."""
    return _life.get()


def live(life: Life) -> None:
    """Let this task, and those it will start, belong to ``life``."""
    _life.set(life)
