"""The lost connections of a server, whose sessions wait for another link.

Each has a place and some memory. When either runs short, the one that was lost first has to go: places and
memory are for those who are there.
"""

from __future__ import annotations

from heartline.link import Core

__all__ = ["LostConnections"]


class LostConnections:
    """Those whose links are lost, in the order of their losses, and what their sessions hold."""

    __slots__ = ("_sizes", "held")

    def __init__(self) -> None:
        self._sizes: dict[Core, int] = {}
        self.held: int = 0
        """Bytes that were unconfirmed, or waited to be sent, when the links were lost."""

    def add(self, core: Core) -> None:
        """This one's link was lost just now."""
        statistics = core.statistics()
        size = self._sizes[core] = statistics.unconfirmed + statistics.backlog
        self.held += size

    def discard(self, core: Core) -> None:
        """This one has a link again, or has ended."""
        self.held -= self._sizes.pop(core, 0)

    def take_first(self) -> Core | None:
        """The one that was lost first, which is struck out."""
        core = next(iter(self._sizes), None)
        if core is not None:
            self.discard(core)
        return core
