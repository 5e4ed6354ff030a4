"""A client that calls, talks on a channel and follows a topic, all at the same time, until stdin ends.

Then it tells what it did and what it got, for the parent to compare.
"""

from __future__ import annotations

import random
from typing import Any

import trio

import heartline
from heartline import Channel, Connection, Lost, Reconnected

from ._common import SOON, heartbeat, limits, say, settings, wait_end

CALLERS = 4
"""Tasks that call at the same time."""


class Work:
    """What one client does, and the record of it."""

    def __init__(self, name: str, connection: Connection, rng: random.Random) -> None:
        self.called: list[str] = []
        self.sent: list[str] = []
        self.came_back: list[str] = []
        self.updates: list[str] = []
        self._name = name
        self._connection = connection
        self._rng = rng
        self._over = False
        self._filling = name * 200

    async def run(self) -> None:
        """Work until stdin ends, then bring everything to its end."""
        ledger = self._connection.service("Ledger")
        channel = await self._connection.open_channel("echo")
        async with (
            self._connection.subscribe("entries", since="oldest") as topic,
            trio.open_nursery() as following,
        ):
            following.start_soon(self._follow, topic)
            following.start_soon(ledger.hold, self._name)
            async with trio.open_nursery() as work:
                for number in range(CALLERS):
                    work.start_soon(self._call, ledger, number)
                work.start_soon(self._talk, channel)
                work.start_soon(self._listen, channel)
                await wait_end()
                self._over = True
            last = f"{self._name} has ended"
            self.called.append(last)
            await ledger.note(last)
            while last not in self.updates:
                await trio.sleep(0.01)
            following.cancel_scope.cancel()

    async def _call(self, ledger: object, number: int) -> None:
        count = 0
        while not self._over:
            entry = f"{self._name} {number} {count}"
            self.called.append(entry)
            if self._rng.random() < 0.2:
                await ledger.later(entry, 0.02)  # type: ignore[attr-defined]
            else:
                await ledger.note(entry)  # type: ignore[attr-defined]
            count += 1
            await trio.sleep(0.002)

    async def _talk(self, channel: Channel) -> None:
        while not self._over:
            message = f"{len(self.sent)} {self._filling[: self._rng.randrange(len(self._filling))]}"
            self.sent.append(message)
            await channel.send(message)
            await trio.sleep(0.002)
        await channel.send("")

    async def _listen(self, channel: Channel) -> None:
        while message := await channel.receive():
            self.came_back.append(message)

    async def _follow(self, topic: heartline.Subscription[Any]) -> None:
        async for update in topic:
            self.updates.append(update.value)


async def tell(connection: Connection) -> None:
    """Tell the parent of losses and returns as they come."""
    async for event in connection.events():
        if isinstance(event, Lost):
            say(lost=str(event.reason))
        elif isinstance(event, Reconnected):
            say(reconnected=event.resumed)


async def main() -> None:
    """Work through one connection."""
    given = settings()
    rng = random.Random(given.get("seed", 0))
    async with (
        heartline.open_connection(
            given["url"],
            identity=given["name"],
            reconnect=SOON,
            heartbeat=heartbeat(given),
            limits=limits(**given.get("limits", {})),
            rng=rng,
        ) as connection,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(tell, connection)
        say(opened=connection.id)
        work = Work(given["name"], connection, rng)
        await work.run()
        statistics = connection.statistics()
        say(
            result={
                "called": work.called,
                "sent": work.sent,
                "came_back": work.came_back,
                "updates": work.updates,
                "links": statistics.links,
                "resumed": statistics.resumed,
            }
        )
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
