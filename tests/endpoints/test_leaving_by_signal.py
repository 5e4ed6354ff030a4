"""Ctrl-C, and SIGTERM as the page on stopping a server handles it, leave every block with a goodbye."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import heartline
from tests.connection.helpers import QUIET
from tests.patience import PATIENCE
from tests.processes._process import Program, start

from .leaving import BUSY, NEVER_AGAIN, Slow, heard_of, stay_busy

DOING = BUSY[:-1]  # who has no link hears nothing
HOW = {"SIGINT": "KeyboardInterrupt", "SIGTERM": "cancelled"}


def urls(directory: Path) -> list[str]:
    return ["tcp://127.0.0.1:0", f"unix://{directory}/socket", "ws://127.0.0.1:0"]


async def end(program: Program, by: str) -> None:
    await program.read("ready")
    program.send(signal.Signals[by])
    assert await program.read("left") == HOW[by]
    assert await program.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize("by", HOW)
async def test_clients(by: str, tmp_path: Path) -> None:
    slow, heard = Slow(), dict[str, Any]()
    listening = heartline.open_server(*urls(tmp_path), services=[slow], heartbeat=QUIET)
    with trio.fail_after(PATIENCE):
        async with listening as server, trio.open_nursery() as nursery:
            events = server.events()

            async def watch(connection: heartline.Connection) -> None:
                heard[connection.id] = await heard_of(connection.events())

            @nursery.start_soon
            async def admit() -> None:
                async for event in events:
                    if isinstance(event, heartline.Opened):
                        nursery.start_soon(watch, event.connection)
                        doing, _, _ = event.connection.id.rpartition(" ")
                        nursery.start_soon(stay_busy, doing, event.connection, server)

            async with start("leaver", side="client", by=by, urls=server.urls, doing=DOING) as program:
                await end(program, by)
            while server.connections:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert len(heard) == len(DOING) * 3
    assert set(heard.values()) == {"a goodbye, NORMAL"}, heard


@pytest.mark.slow
@pytest.mark.parametrize("by", HOW)
async def test_a_server(by: str, tmp_path: Path) -> None:
    slow, heard = Slow(), dict[str, Any]()

    async def visit(url: str, doing: str) -> None:
        name = f"{doing} {url}"
        opening = heartline.open_connection(
            url, identity=name, services=[slow], heartbeat=QUIET, **NEVER_AGAIN
        )
        async with opening as client, trio.open_nursery() as inner:
            inner.start_soon(stay_busy, doing, client, None)
            heard[name] = await heard_of(client.events())
            inner.cancel_scope.cancel()

    settings = partial(start, "leaver", side="server", by=by, doing=DOING)
    with trio.fail_after(PATIENCE):
        async with settings(urls=urls(tmp_path)) as program, trio.open_nursery() as nursery:
            for url in await program.read("urls"):
                for doing in DOING:
                    nursery.start_soon(visit, url, doing)
            await end(program, by)
    assert len(heard) == len(DOING) * 3
    assert set(heard.values()) == {"a goodbye, GOING_AWAY"}, heard
