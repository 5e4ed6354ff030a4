"""One endpoint leaves its block, whatever it is doing, and the other one tells what it heard."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

import trio

import heartline
from heartline import Backoff, CloseCode, Connection, ConnectionClosed, ConnectionLost, Opened, Server
from tests.connection.helpers import QUIET, Highest
from tests.engine import link_of

__all__ = ["BUSY", "NEVER_AGAIN", "TOPIC", "Slow", "be_busy", "heard_of", "leave", "stay_busy"]

BUSY = ["idle", "a call out", "a call in", "a subscription", "an upload", "the link is down"]
"""What the leaving endpoint is doing."""

NEVER_AGAIN: dict[str, Any] = {"reconnect": Backoff(initial=1e6, maximum=1e6), "rng": Highest()}
"""Settings of a client that stays lost when it is."""

TOPIC = "topic"


class Problem(Exception):
    """What a body raises."""


@heartline.service
class Slow:
    """A call that does not end by itself."""

    def __init__(self) -> None:
        self.begun: int = 0

    async def wait(self) -> None:
        self.begun += 1
        await trio.sleep_forever()


async def be_busy(
    doing: str, connection: Connection, server: Server | None, task_status: trio.TaskStatus[None]
) -> None:
    """The leaving endpoint's half; ``server`` if that is one."""
    if doing == "a call out":
        task_status.started()
        await connection.service(Slow).wait()
    elif doing == "a subscription" and server is not None:
        task_status.started()
        while True:
            await server.publish(TOPIC, "news")
            await trio.lowlevel.checkpoint()
    elif doing == "a subscription":
        async with connection.subscribe(TOPIC) as updates:
            task_status.started()
            async for _ in updates:
                pass
    elif doing == "an upload":
        task_status.started()
        while True:
            await connection.send(bytes(200_000))
    else:
        if doing == "the link is down":
            link_of(connection).lose(ConnectionLost("the cable was pulled"))
        task_status.started()


async def stay_busy(doing: str, connection: Connection, server: Server | None) -> None:
    """The other endpoint's half; ``server`` if that is one. It ends with the connection."""
    with suppress(heartline.CallError, ConnectionClosed, ConnectionLost):
        if doing == "a call in":
            await connection.service(Slow).wait()
        elif doing == "a subscription" and server is not None:
            while connection.state is heartline.ConnectionState.OPEN:
                await server.publish(TOPIC, "news")
                await trio.lowlevel.checkpoint()
        elif doing == "a subscription":
            async with connection.subscribe(TOPIC) as updates:
                async for _ in updates:
                    pass
        elif doing == "an upload":
            async for _ in connection.messages():
                pass


async def heard_of(events: heartline.Events[Any]) -> str:
    """What an endpoint hears first of the other's end: a goodbye with its code, or a loss."""
    async for event in events:
        if not isinstance(event, Opened):
            reason = event.reason
            if isinstance(reason, ConnectionClosed) and reason.by_peer:
                return f"a goodbye, {CloseCode(reason.code).name}"
            return f"{type(event).__name__}: {reason!r}"
    return "nothing"


async def leave(
    side: str, way: str, doing: str, url: str, contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None
) -> str:
    """Have one side leave its block; what the other one hears."""
    run = _Run(way, doing, url, contexts)
    with trio.CancelScope() as run.scope:
        try:
            await (run.client_leaves() if side == "client" else run.server_leaves())
        except* Problem:
            assert way == "an error"
    return run.heard


class _Run:
    """A server and a client, of which one leaves."""

    def __init__(
        self, way: str, doing: str, url: str, contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None
    ) -> None:
        self.heard = ""
        self.scope = trio.CancelScope()
        self._way = way
        self._doing = doing
        self._slow = Slow()
        here, there = contexts if contexts and url.startswith(("tls:", "wss:")) else (None, None)
        common: dict[str, Any] = {"services": [self._slow], "heartbeat": QUIET}
        self._server = heartline.open_server(url, tls=here, **common)
        self._client = {"tls": there, **common, **NEVER_AGAIN}

    async def client_leaves(self) -> None:
        async with self._server as server, trio.open_nursery() as nursery:
            events = server.events()
            with trio.CancelScope() as scope:
                try:
                    async with heartline.open_connection(server.urls[0], **self._client) as client:
                        there = server.connections[client.id]
                        nursery.start_soon(stay_busy, self._doing, there, server)
                        await self._body(client, None, scope)
                except Problem:
                    assert self._way == "an error"
            assert scope.cancelled_caught == (self._way in ("cancelled", "a deadline"))
            self.heard = await heard_of(events)
            nursery.cancel_scope.cancel()

    async def server_leaves(self) -> None:
        async with trio.open_nursery() as nursery:
            opened = trio.Event()
            urls: list[str] = []
            joined = trio.Event()

            @nursery.start_soon
            async def stay() -> None:
                await opened.wait()
                async with (
                    heartline.open_connection(urls[0], **self._client) as client,
                    trio.open_nursery() as inner,
                ):
                    joined.set()
                    inner.start_soon(stay_busy, self._doing, client, None)
                    self.heard = await heard_of(client.events())
                    inner.cancel_scope.cancel()

            with trio.CancelScope() as scope:
                try:
                    async with self._server as server:
                        events = server.events()
                        urls.extend(server.urls)
                        opened.set()
                        connection = (await anext(events)).connection
                        await joined.wait()
                        await self._body(connection, server, scope)
                except Problem:
                    assert self._way == "an error"
            assert scope.cancelled_caught == (self._way in ("cancelled", "a deadline"))

    async def _body(self, connection: Connection, server: Server | None, scope: trio.CancelScope) -> None:
        problem: Problem | None = None
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(be_busy, self._doing, connection, server)
                await self._wait_busy(connection)
                if self._way == "cancelled":
                    scope.cancel()
                    await trio.sleep_forever()
                elif self._way == "a deadline":
                    scope.deadline = trio.current_time()
                    await trio.sleep_forever()
                elif self._way == "an error":
                    raise Problem
                nursery.cancel_scope.cancel()
        except* Problem as group:
            problem = group.exceptions[0]  # type: ignore[assignment]
        if problem is not None:
            raise problem

    async def _wait_busy(self, connection: Connection) -> None:
        """Until what it does is in the middle."""
        while "call" in self._doing and not self._slow.begun:
            await trio.lowlevel.checkpoint()
        sent = connection.statistics().frames_sent
        while self._doing == "an upload" and connection.statistics().frames_sent < sent + 5:
            await trio.lowlevel.checkpoint()
        for _ in range(20):
            await trio.lowlevel.checkpoint()
