"""The wires between two nodes, and the connections on them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from heartline.testing._flow import Flow
from heartline.testing._life import Life
from heartline.testing._stream import WorldStream
from heartline.testing._trace import Trace
from heartline.testing._wire import Wire

__all__ = ["Connection", "Route"]

LATENCY = (0.0005, 0.1)
"""Seconds from one node to the other, drawn evenly in its logarithm: from a rack to another continent."""

JITTER = 0.5
"""The most that jitter adds, as a share of the latency."""

BANDWIDTH = (100_000.0, 100_000_000.0)
"""Bytes per second, drawn evenly in its logarithm: from a phone in a train to a network of 1 Gbit/s."""


class Route:
    """What a link consists of: a wire each way (a single one from a node to itself), and connections."""

    def __init__(
        self, ends: tuple[str, str], rng: random.Random, clock: Callable[[], float], trace: Trace
    ) -> None:
        self.ends = ends
        self.rng = rng
        self.connections: dict[Connection, None] = {}
        self._clock = clock
        self._trace = trace
        first, second = ends
        self.wires: dict[tuple[str, str], Wire] = {(first, second): self._draw_wire()}
        if first != second:
            self.wires[second, first] = self._draw_wire()

    def flow(self, source: str, destination: str) -> Flow:
        """A way for bytes from one end to the other."""
        there, back = self.wires[source, destination], self.wires[destination, source]
        return Flow(there, back, self.rng, self._trace.witness)

    def connect(self, caller: Life, callee: Life) -> Connection:
        """Join two lives."""
        connection = Connection(self, caller, callee)
        self.connections[connection] = None
        return connection

    def log(self, what: str, direction: tuple[str, str] | None = None) -> None:
        """Note an event of this route in the trace."""
        way = " - ".join(self.ends) if direction is None else " -> ".join(direction)
        self._trace.add(self._clock(), "network", f"{way}: {what}", fault=True)

    def _draw_wire(self) -> Wire:
        latency, bandwidth = 0.0, math.inf
        if self.ends[0] != self.ends[1]:
            latency, bandwidth = self._draw(*LATENCY), self._draw(*BANDWIDTH)
        jitter = latency * self.rng.uniform(0, JITTER)
        return Wire(self._clock, random.Random(self.rng.getrandbits(64)), latency, jitter, bandwidth)

    def _draw(self, least: float, most: float) -> float:
        return math.exp(self.rng.uniform(math.log(least), math.log(most)))


class Connection:
    """Two streams, joined by a flow each way, and the lives that hold them."""

    def __init__(self, route: Route, caller: Life, callee: Life) -> None:
        self._route = route
        self._lives = caller, callee
        self._flows = route.flow(caller.node, callee.node), route.flow(callee.node, caller.node)
        there, back = self._flows
        self.streams: tuple[WorldStream, WorldStream] = (
            WorldStream(back, there, callee.node, self._closed),
            WorldStream(there, back, caller.node, self._closed),
        )
        for life in self._lives:
            life.held[self] = None

    def reset(self) -> None:
        """Tell both ends that the connection is gone."""
        for stream in self.streams:
            stream.break_off()

    def half_open(self, believer: str) -> None:
        """End the connection for all but the believer."""
        self.streams[self._lives[0].node == believer].vanish()

    def cut(self, owner: Life, *, silent: bool) -> None:
        """End the connection: one of the two lives is over."""
        stream = self.streams[owner is not self._lives[0]]
        stream.vanish()
        if not silent:
            stream.abort()
        self._closed()

    def _closed(self) -> None:
        done = [
            stream.closed or not life.alive for life, stream in zip(self._lives, self.streams, strict=True)
        ]
        for life, is_done in zip(self._lives, done, strict=True):
            if is_done:
                life.held.pop(self, None)
        if all(done):
            self._route.connections.pop(self, None)
            for flow in self._flows:
                flow.detach()
