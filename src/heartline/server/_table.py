"""The engine of a server: its connections, those that are lost and may come back, and those that must go."""

from __future__ import annotations

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

    def register(self, core: Core) -> None:
        """Let a connection in; an older one with the same id is closed."""
        old = self.cores.pop(core.id, None)
        if old is not None:
            old.close(CloseCode.REPLACED, "a newer connection with the same identity took over")
        self.cores[core.id] = core
        self.accepted += 1

    def unregister(self, core: Core) -> None:
        """Remove a connection that has ended; a newer one with its id stays."""
        if self.cores.get(core.id) is core:
            del self.cores[core.id]
        self.lost.discard(core)
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
        """Keep a lost connection's session; when such sessions hold too many bytes, the first ones end."""
        self.lost.add(core)
        while self.lost.held > self.setup.limits.lost_buffer and self.end_first_lost():
            pass

    def end_first_lost(self) -> bool:
        """End the connection that was lost first, to free what it holds; tells whether there was one."""
        core = self.lost.take_first()
        if core is None:
            return False
        core.close(CloseCode.OVERLOADED, "what it held was needed for others")
        self.unregister(core)
        return True
