"""A server in a process of its own, to which strangers do their worst; it measures its own loop meanwhile."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import trio

import heartline
from heartline import Heartbeat, History, Limits

from ._common import say, settings, wait_end

TICK = 0.005
"""Seconds between two looks of the meter."""

UNIT = 100_000
"""Turns of an empty loop, which take the time that the meter counts in: machines differ."""


@heartline.service
class Shop:
    """Methods that a stranger may call."""

    def __init__(self) -> None:
        self.begun = 0

    def echo(self, value: Any) -> Any:
        """Give it back."""
        return value

    def length(self, value: list[Any]) -> int:
        """Of a list."""
        return len(value)

    def known(self, ids: set[UUID]) -> int:
        """How many of these there are."""
        return len(ids)

    def give(self, size: int) -> bytes:
        """So many bytes."""
        self.begun += 1
        return bytes(size)

    async def keep(self, value: bytes) -> None:
        """Hold the argument for ever."""
        self.begun += 1
        await trio.sleep_forever()

    def fail(self) -> None:
        """Raise."""
        raise ValueError("no")


class Meter:
    """The longest time in which the loop let nobody else run; CPU time, for the machine may be busy."""

    def __init__(self) -> None:
        begun = time.thread_time()
        for _ in range(UNIT):
            pass
        self._unit = time.thread_time() - begun
        self.worst = 0.0
        self._last = 0.0

    async def run(self) -> None:
        """Look every few milliseconds."""
        self._last = time.thread_time()
        while True:
            await trio.sleep(TICK)
            self._look()

    def _look(self) -> None:
        now = time.thread_time()
        self.worst, self._last = max(self.worst, now - self._last), now

    def read(self) -> tuple[float, float]:
        """The worst since the last time, in units and in seconds; the turn in which somebody asks counts."""
        self._look()
        worst, self.worst = self.worst, 0.0
        return worst / self._unit, worst


@heartline.service
class Watch:
    """What the server is like from within."""

    def __init__(self, meter: Meter) -> None:
        self.server: heartline.Server
        self._meter = meter

    def turn(self) -> tuple[float, float]:
        """The longest turn of the loop since the last question: in units, and in seconds."""
        return self._meter.read()

    def statistics(self) -> dict[str, int]:
        """What the server counts."""
        numbers = self.server.statistics()
        return {"held": numbers.held, "connections": len(self.server.connections)}

    async def publish(self, topic: str, size: int, count: int) -> None:
        """Publish updates."""
        for _ in range(count):
            await self.server.publish(topic, bytes(size))


async def main() -> None:
    """Serve until stdin ends."""
    given = settings()
    meter = Meter()
    watch = Watch(meter)
    async with (
        heartline.open_server(
            given["url"],
            services=[Shop(), watch],
            heartbeat=Heartbeat(interval=1e6, timeout=4e6),
            limits=Limits(**given["limits"]),
            history=History(count=16),
        ) as server,
        trio.open_nursery() as nursery,
    ):
        watch.server = server
        nursery.start_soon(meter.run)
        say(url=server.urls[0])
        await wait_end()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
