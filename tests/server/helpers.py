"""What the tests of the server share with those of the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

import heartline
from heartline import Connection, Peer, Server

from ..connection.helpers import QUIET

__all__ = ["open_clients", "vouch"]


def vouch(peer: Peer) -> str | None:
    """An ``authenticate`` for servers that trust each claim: the newest client of a name takes its place."""
    return peer.identity


@asynccontextmanager
async def open_clients(
    *names: str, server: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[Server, list[Connection]]]:
    """A server, and clients of these identities, in the order of the names."""
    settings = {"heartbeat": QUIET, "reconnect": None} | settings
    options = {"heartbeat": QUIET} | (server or {})
    async with heartline.open_server("memory://", **options) as open_server, trio.open_nursery() as nursery:
        clients: dict[str, Connection] = {}
        done = trio.Event()

        async def visit(name: str, task_status: trio.TaskStatus[None]) -> None:
            async with heartline.open_connection(
                open_server.urls[0], identity=name, **settings
            ) as connection:
                clients[name] = connection
                task_status.started()
                await done.wait()

        for name in names:
            await nursery.start(visit, name)
        yield open_server, [clients[name] for name in names]
        done.set()
