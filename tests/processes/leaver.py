"""A client or a server in the middle of everything, until a signal ends it."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import trio

import heartline
from heartline import Connection, Server
from tests.connection.helpers import QUIET
from tests.endpoints.leaving import NEVER_AGAIN, Slow, be_busy

from ._common import say, settings


async def work(
    doing: str, connection: Connection, server: Server | None, task_status: trio.TaskStatus[None]
) -> None:
    """Be busy until the connection ends."""
    with suppress(heartline.CallInterrupted, heartline.ConnectionClosed, heartline.ConnectionLost):
        await be_busy(doing, connection, server, task_status)


async def wait_begun(slow: Slow, count: int) -> None:
    while slow.begun < count:
        await trio.sleep(0.01)


async def be_clients(given: dict[str, Any], nursery: trio.Nursery) -> None:
    """A connection to each URL for everything that a client can be doing."""
    slow, more = Slow(), {"heartbeat": QUIET, **NEVER_AGAIN}
    async with AsyncExitStack() as stack:
        for url in given["urls"]:
            for doing in given["doing"]:
                opening = heartline.open_connection(url, identity=f"{doing} {url}", services=[slow], **more)
                connection = await stack.enter_async_context(opening)
                await nursery.start(work, doing, connection, None)
        await wait_begun(slow, len(given["urls"]))
        say(ready=True)
        await trio.sleep_forever()


async def be_a_server(given: dict[str, Any], nursery: trio.Nursery) -> None:
    """A server that does everything with clients that come for that."""
    slow = Slow()
    async with heartline.open_server(*given["urls"], services=[slow], heartbeat=QUIET) as server:
        events = server.events()
        say(urls=server.urls)
        for _ in range(len(given["urls"]) * len(given["doing"])):
            await begin(server, (await anext(events)).connection, nursery)
        await wait_begun(slow, len(given["urls"]))
        say(ready=True)
        await trio.sleep_forever()


async def begin(server: Server, connection: Connection, nursery: trio.Nursery) -> None:
    doing, _, _ = connection.id.rpartition(" ")
    await nursery.start(work, doing, connection, server)


async def until_terminated(program: Any) -> None:
    """What the page on stopping a server tells to do on SIGTERM."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(program)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                nursery.cancel_scope.cancel()
                return


async def main() -> None:
    given = settings()
    async with trio.open_nursery() as nursery:
        program = partial(be_clients if given["side"] == "client" else be_a_server, given, nursery)
        await (until_terminated(program) if given["by"] == "SIGTERM" else program())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    before, how = len(os.listdir("/proc/self/fd")), "cancelled"
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        how = "KeyboardInterrupt"
    say(left=how, more=len(os.listdir("/proc/self/fd")) - before)
