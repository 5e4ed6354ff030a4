"""A server whose clients are to lose nothing: it notes what they ask for, and tells what became of them."""

from __future__ import annotations

from collections import deque
from typing import Any

import trio

import heartline
from heartline import Channel, Closed, Connection, History, Lost, Server

from ._common import heartbeat, limits, say, settings, wait_end

KEPT = 1000
"""Events that are remembered: a server that lives for long must not grow by them."""


@heartline.service
class Ledger:
    """Notes entries, and publishes each on the topic ``entries``."""

    def __init__(self) -> None:
        self.server: Server
        self._notes: dict[int, str] = {}
        self.held: set[str] = set()
        self.cancelled: deque[str] = deque(maxlen=KEPT)

    async def note(self, entry: str) -> int:
        """Note an entry; its number."""
        receipt = await self.server.publish("entries", entry)
        self._notes[receipt.offset] = entry
        return receipt.offset

    async def later(self, entry: str, seconds: float) -> str:
        """Note an entry after a while, and give it back."""
        await trio.sleep(seconds)
        await self.note(entry)
        return entry

    def notes(self) -> list[str]:
        """Everything noted so far, in order."""
        return [self._notes[offset] for offset in sorted(self._notes)]

    async def hold(self, entry: str) -> None:
        """Never answer."""
        self.held.add(entry)
        try:
            await trio.sleep_forever()
        finally:
            self.held.discard(entry)
            self.cancelled.append(entry)


@heartline.service
class Watch:
    """What the server is like from within."""

    def __init__(self, ledger: Ledger) -> None:
        self.server: Server
        self.ledger = ledger
        self.told: deque[list[Any]] = deque(maxlen=KEPT)

    def look(self) -> dict[str, Any]:
        """Who is there, and what of Trio's is in use."""
        statistics = self.server.statistics()
        return {
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "handshaking": statistics.handshaking,
            "accepted": statistics.accepted,
            "connections": {c.id: c.state.value for c in self.server.connections.values()},
            "subscribers": sorted(self.server.subscribers("entries")),
            "held": sorted(self.ledger.held),
            "cancelled": list(self.ledger.cancelled),
        }

    def events(self) -> list[list[Any]]:
        """What has happened: ``[kind, id, time, reason]``."""
        return list(self.told)

    async def follow(self) -> None:
        """Note the server's events for ever."""
        async for event in self.server.events():
            reason = str(event.reason) if isinstance(event, (Lost, Closed)) else ""
            self.told.append([type(event).__name__, event.connection.id, trio.current_time(), reason])


async def serve_channels(ledger: Ledger, server: Server) -> None:
    """Send back what comes on the channels of every connection, in the order in which it came."""
    served: set[Connection] = set()
    async with trio.open_nursery() as nursery:
        while True:
            for connection in set(server.connections.values()) - served:
                nursery.start_soon(_accept, connection)
            served = set(server.connections.values())
            await trio.sleep(0.02)


async def _accept(connection: Connection) -> None:
    try:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(_echo, await connection.accept_channel())
    except* heartline.HeartlineError:
        pass  # the session has ended


async def _echo(channel: Channel) -> None:
    try:
        async with channel:
            async for message in channel:
                await channel.send(message)
    except trio.BrokenResourceError:
        pass  # the session has ended


async def main() -> None:
    """Serve until stdin ends."""
    given = settings()
    ledger = Ledger()
    watch = Watch(ledger)
    async with (
        heartline.open_server(
            given["url"],
            services=[ledger, watch],
            heartbeat=heartbeat(given),
            limits=limits(**given.get("limits", {})),
            history=History(count=given.get("history", 1024)),
        ) as server,
        trio.open_nursery() as nursery,
    ):
        ledger.server = watch.server = server
        nursery.start_soon(watch.follow)
        nursery.start_soon(serve_channels, ledger, server)
        say(url=server.urls[0])
        await wait_end()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
