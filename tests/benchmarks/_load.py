"""Closed-loop load for RPC peers: `in_flight` workers, each making one call after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import trio

Add = Callable[[int, int], Awaitable[int]]

WARM_UP = 0.1
"""Seconds of load before the clock starts: buffers, windows and caches find their size."""


async def _call_until(add: Add, deadline: float) -> int:
    calls = 0
    while time.perf_counter() < deadline:
        result = await add(calls, 1)
        calls += 1
        if result != calls:
            raise AssertionError(f"add({calls - 1}, 1) returned {result!r}")
    return calls


async def trio_load(add: Add, in_flight: int, seconds: float) -> float:
    """Calls per second of a Trio client."""

    async def run(duration: float) -> float:
        counts: list[int] = []

        async def worker() -> None:
            counts.append(await _call_until(add, deadline))

        start = time.perf_counter()
        deadline = start + duration
        async with trio.open_nursery() as nursery:
            for _ in range(in_flight):
                nursery.start_soon(worker)
        return sum(counts) / (time.perf_counter() - start)

    await run(WARM_UP)
    return await run(seconds)


async def asyncio_load(add: Add, in_flight: int, seconds: float) -> float:
    """Calls per second of an asyncio client."""

    async def run(duration: float) -> float:
        start = time.perf_counter()
        workers = (_call_until(add, start + duration) for _ in range(in_flight))
        total = sum(await asyncio.gather(*workers))
        return total / (time.perf_counter() - start)

    await run(WARM_UP)
    return await run(seconds)
