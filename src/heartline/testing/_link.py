"""The link between two nodes, and what can happen to it."""

from __future__ import annotations

import math
from typing import final

from heartline.errors import ConfigurationError
from heartline.testing._route import Route
from heartline.testing._wire import Wire

__all__ = ["Link"]


@final
class Link:
    """What lies between two nodes, in both directions; get one from :meth:`World.link`.

    Latency, jitter and bandwidth are drawn from the seed, for each direction, and :meth:`configure` sets
    them. Bytes of one stream keep their order; all streams share the bandwidth. A node's link to itself has
    no latency, and no limit to its bandwidth.

    A ``direction`` is a pair of names, ``(source, destination)``; without one both are meant.
    """

    def __init__(self, route: Route) -> None:
        self.ends: tuple[str, str] = route.ends
        """The names of the two nodes."""
        self._route = route

    def configure(
        self,
        *,
        latency: float | None = None,
        jitter: float | None = None,
        bandwidth: float | None = None,
        direction: tuple[str, str] | None = None,
    ) -> None:
        """Set seconds of latency, the most seconds that jitter adds, and bytes per second (or ``inf``).

        A value of ``None`` changes nothing. The new values hold for bytes that are sent from now on.
        """
        for name, value, least in (("latency", latency, 0.0), ("jitter", jitter, 0.0)):
            if value is not None and not least <= value < math.inf:
                raise ConfigurationError(f"{name} must be seconds of at least 0, not {value!r}")
        if bandwidth is not None and not bandwidth > 0:
            raise ConfigurationError(f"bandwidth must be bytes per second above 0, not {bandwidth!r}")
        for wire in self._chosen(direction):
            wire.latency = wire.latency if latency is None else latency
            wire.jitter = wire.jitter if jitter is None else jitter
            wire.bandwidth = wire.bandwidth if bandwidth is None else bandwidth

    def partition(self, direction: tuple[str, str] | None = None) -> None:
        """Let nothing pass until :meth:`heal`; nobody is told.

        As with TCP, what is under way, or sent meanwhile, arrives afterwards. A connection opened meanwhile
        fails after a while, which the seed draws.
        """
        wires = self._chosen(direction)
        self._route.log("partition", direction)
        for wire in wires:
            wire.stall()

    def clog(self, seconds: float, direction: tuple[str, str] | None = None) -> None:
        """Let nothing pass for this many seconds; then all of it goes on."""
        wires = self._chosen(direction)
        self._route.log(f"clog for {seconds:g} s", direction)
        for wire in wires:
            wire.stall(seconds)

    def heal(self) -> None:
        """End partitions and clogs; connections that were reset or are half open stay so."""
        if any(wire.stalled for wire in self._route.wires.values()):
            self._route.log("heal")
            for wire in self._route.wires.values():
                wire.heal()

    def reset(self) -> None:
        """Break every connection: both ends get :exc:`trio.BrokenResourceError`.

        Of what was under way or unread each end still gets a prefix, which the seed draws.
        """
        self._route.log("reset")
        for connection in list(self._route.connections):
            connection.reset()

    def half_open(self, believer: str | None = None) -> None:
        """End every connection for one end, while the other, the ``believer``, does not notice.

        The believer gets no error and no bytes any more; what it sends vanishes, until its buffer is full and
        it waits. The other end gets :exc:`trio.BrokenResourceError`. By default the seed chooses.
        """
        believer = believer or self._route.rng.choice(self.ends)
        if believer not in self.ends:
            raise ConfigurationError(f"believer must be one of {self.ends}, not {believer!r}")
        self._route.log(f"half open, {believer} believes")
        for connection in list(self._route.connections):
            connection.half_open(believer)

    @property
    def connections(self) -> int:
        """Connections of which at least one end is open."""
        return len(self._route.connections)

    @property
    def healthy(self) -> bool:
        """Whether bytes pass in both directions."""
        return not any(wire.stalled for wire in self._route.wires.values())

    def _chosen(self, direction: tuple[str, str] | None) -> list[Wire]:
        if direction is None:
            return list(self._route.wires.values())
        if direction not in self._route.wires:
            known = " or ".join(map(repr, self._route.wires))
            raise ConfigurationError(f"direction must be {known}, not {direction!r}")
        return [self._route.wires[direction]]

    def __repr__(self) -> str:
        return f"<Link {' - '.join(self.ends)}>"
