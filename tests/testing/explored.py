"""Programs that other processes can import: each explores worlds, whose seeds decide what happens."""

from __future__ import annotations

import os
import signal
import time

import trio

from heartline.testing import World, explore

FIRST_BAD = 6


async def fails_late(world: World) -> int:
    """From a seed on all fail; those before take longer, so that a later one fails first."""
    world.log("begins")
    await trio.sleep(1)
    if world.seed < FIRST_BAD:
        time.sleep(0.02)  # noqa: ASYNC251 - real time is the point
    assert world.seed < FIRST_BAD, "too large"
    return world.seed * 10


async def ends_its_process(world: World) -> None:
    if world.seed == 1:
        os._exit(3)


async def never_ends(world: World) -> None:
    while world.seed == 1:
        pass


async def returns_a_closure(world: World) -> object:
    return lambda: world


async def never_ends_at_all(_world: World) -> None:
    os.write(1, b"runs\n")
    while True:
        await trio.sleep(1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    explore(never_ends_at_all, range(2), limit=1e12, patience=1e6)
