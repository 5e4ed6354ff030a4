"""What goes wrong in a run: faults of links, and of nodes, with the time between them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from fuzz.world.hub import LEARNERS
from fuzz.world.notes import MEMBERS
from heartline.testing import World

__all__ = ["Fault", "draw_script"]

LINK_FAULTS = ("reset", "reset", "reset", "half_open", "partition", "one_way", "clog", "heal", "heal", "slow")
NODE_FAULTS = ("crash", "restart")
NODES = ("hub", *MEMBERS, *LEARNERS)
PAUSES = (0.0, 0.01, 0.3, 1.0, 3.0, 8.0)
"""Seconds before a fault: at once, within a round trip, a reconnect, a heartbeat, more than a timeout."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong (or right again), so many seconds after the one before."""

    pause: float
    kind: str
    node: str
    """That fails itself, or whose link to the hub does."""

    def strike(self, world: World) -> None:
        """Let it happen."""
        if self.kind == "crash":
            world.node(self.node).crash()
        elif self.kind == "restart":
            world.node(self.node).restart()
        else:
            self._strike_link(world)

    def _strike_link(self, world: World) -> None:
        other = self.node if self.node != "hub" else MEMBERS[0]
        link = world.link("hub", other)
        match self.kind:
            case "one_way":
                link.partition(direction=("hub", other))
            case "clog":
                link.clog(2.5)
            case "slow":
                link.configure(latency=0.4, jitter=0.3, bandwidth=20_000)
            case kind:
                getattr(link, kind)()


def draw_script(rng: random.Random) -> list[Fault]:
    """A script of up to thirty faults; with Hypothesis's own ``Random`` it shrinks."""
    script = []
    for _ in range(rng.randint(0, 30)):
        kind = rng.choice(LINK_FAULTS + NODE_FAULTS)
        script.append(Fault(rng.choice(PAUSES), kind, rng.choice(NODES)))
    return script
