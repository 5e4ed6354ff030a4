"""The engine of a server: its connections, those that are lost and may come back, and those that must go."""

from __future__ import annotations

from functools import partial

import trio

from heartline.link import Core, Link, Setup
from heartline.server._handover import Handover
from heartline.server._handshakes import Handshakes
from heartline.server._lost import LostConnections
from heartline.server._refusals import Refusals
from heartline.session import CloseCode

__all__ = ["Table"]


class Table:
    """The connections of a server by id, and its counts."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.cores: dict[str, Core] = {}
        self.lost: LostConnections = LostConnections()
        self.left: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        """Where tasks wait for connections to end."""
        self.draining: bool = False
        self.accepted: int = 0
        self.handshakes: Handshakes = Handshakes(setup.limits)
        self.refusals: Refusals = Refusals(setup.nursery, setup.hooks)
        self._handovers: dict[Core, Handover] = {}
        self._ending = False

    def register(self, core: Core) -> None:
        """Let a connection in; an older one with the same id is closed."""
        old = self.cores.pop(core.id, None)
        if old is not None:
            old.close(CloseCode.REPLACED, "a newer connection with the same identity took over")
        self.cores[core.id] = core
        self.accepted += 1

    def unregister(self, core: Core) -> None:
        """Remove a connection that has ended; a newer one with the same id stays."""
        if self.cores.get(core.id) is core:
            del self.cores[core.id]
        handover = self._handovers.pop(core, None)
        if handover is not None:
            handover.end()
        self.left.unpark_all()

    def handover(self, core: Core, link: Link) -> Handover:
        """The handover of this connection's session; made when a second stream may want that."""
        handover = self._handovers.get(core)
        if handover is None:
            handover = self._handovers[core] = Handover(link)
        return handover

    # Places

    @property
    def full(self) -> bool:
        """Whether every place is taken."""
        return len(self.cores) >= self.setup.limits.connections

    def keep_lost(self, core: Core) -> None:
        """A connection is lost, and its session waits; too many bytes of such sessions end the first ones."""
        link = core.require_link()
        link.on_growth = partial(self._note_growth, core)
        self.lost.count(core)
        self._end_excess()

    def come_back(self, core: Core) -> None:
        """A lost connection has a link again, or has ended."""
        self.lost.discard(core)
        if core.link is not None:
            core.link.on_growth = None

    def _note_growth(self, core: Core) -> None:
        if core not in self.lost:
            return  # it has ended, and something was queued on its link all the same
        self.lost.count(core)
        if self._excess and not self._ending:
            # Not here: code that queues something for one of many must not find another one gone.
            self._ending = True
            self.setup.nursery.start_soon(self._end_later)

    async def _end_later(self) -> None:
        self._ending = False
        self._end_excess()

    @property
    def _excess(self) -> bool:
        return self.lost.held > self.setup.limits.lost_buffer

    def _end_excess(self) -> None:
        while self._excess:
            core = self.lost.first()
            assert core is not None, "somebody holds what is too much"
            self.lost.count(core)  # it may have let go of something meanwhile
            if self._excess:
                self.end_first_lost()

    def end_first_lost(self) -> bool:
        """End the connection that was lost first, for what it holds; tells whether there was one."""
        core = self.lost.first()
        if core is None:
            return False
        self.come_back(core)
        core.close(CloseCode.OVERLOADED, "what it held was needed for others")
        self.unregister(core)
        return True
