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
        """Bytes that were unconfirmed, or waited to be sent, when the links were lost."""

    def add(self, core: Core) -> None:
        """Add a connection that has just lost its link."""
        statistics = core.statistics()
        size = self._sizes[core] = statistics.unconfirmed + statistics.backlog
        self.held += size

    def discard(self, core: Core) -> None:
        """Remove a connection that has a link again, or has ended."""
        self.held -= self._sizes.pop(core, 0)

    def take_first(self) -> Core | None:
        """Remove and return the connection that was lost first."""
        core = next(iter(self._sizes), None)
        if core is not None:
            self.discard(core)
        return core
