"""The lost connections of a server, whose sessions wait for another link.

Each takes a place and some memory. When either runs short, the connection that was lost first is ended:
clients that are there come first.
"""

from __future__ import annotations

from heartline.link import Core

__all__ = ["LostConnections"]


class LostConnections:
    """The connections without a link, in the order in which they lost it, and what their sessions hold."""

    __slots__ = ("_sizes", "held")

    def __init__(self) -> None:
        self._sizes: dict[Core, int] = {}
        self.held: int = 0
        """Bytes that their connections hold, as far as they were counted."""

    def count(self, core: Core) -> None:
        """Add a connection that has just lost its link, or count again what it holds."""
        before, size = self._sizes.get(core, 0), core.held
        self._sizes[core] = size
        self.held += size - before

    def __contains__(self, core: Core) -> bool:
        return core in self._sizes

    def first(self) -> Core | None:
        """The one that was lost first."""
        return next(iter(self._sizes), None)

    def discard(self, core: Core) -> None:
        """Remove a connection that has a link again, or has ended."""
        self.held -= self._sizes.pop(core, 0)
