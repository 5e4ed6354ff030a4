"""A server that is played by hand, visit by visit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from heartline import Backoff

from .helpers import RawPeer, listen

__all__ = ["SECOND", "scripted", "welcome_and_leave", "welcome_for_a_second"]

Serve = Callable[[int, trio.abc.Stream], Awaitable[None]]
SECOND = Backoff(initial=1.0, maximum=1.0)


class Scripted:
    """A server that is played by hand: what it does with the n-th visitor is a function's business."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.visits: list[float] = []


@asynccontextmanager
async def scripted(serve: Serve) -> AsyncIterator[Scripted]:
    async with await listen() as listener, trio.open_nursery() as nursery:
        script = Scripted(listener.url)

        async def accept() -> None:
            while True:
                stream = await listener.accept()
                script.visits.append(trio.current_time())
                nursery.start_soon(serve, len(script.visits), stream)

        nursery.start_soon(accept)
        yield script
        nursery.cancel_scope.cancel()


async def welcome_and_leave(_visit: int, stream: trio.abc.Stream) -> None:
    async with stream:
        await RawPeer.admit(stream)


async def welcome_for_a_second(_visit: int, stream: trio.abc.Stream) -> None:
    async with stream:
        await RawPeer.admit(stream)
        await trio.sleep(1)
