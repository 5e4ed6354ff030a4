"""What a stranger can cost: memory, time of the loop, and what others notice of it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path

import pytest
import trio

import heartline
from heartline import Limits

from ._process import start
from .attacks import ATTACKS, KIB, MIB, Attack, Stage, calls_that_raise

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc"),
]

LIMITS = Limits(
    frame_size=64 * KIB,
    message_size=MIB,
    items=64 * KIB,
    memory=8 * MIB,
    window=64 * KIB,
    channels=8,
    calls=32,
    replay_buffer=256 * KIB,
    write_buffer=256 * KIB,
    lost_buffer=4 * MIB,
    handshakes=64,
    handshakes_per_host=48,
    subscriptions=256,
)
"""A server of little memory: an attack that it does not bound shows soon."""

SLACK = 8 * MIB
"""Bytes beyond what the limits say: buffers of reads, and what the allocator keeps."""

LONGEST_TURN = 150.0
"""Units of :class:`victim.Meter`: a fifth of a second on a quiet machine. Without a bound it is seconds."""


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_the_cost_is_bounded(attack: Attack) -> None:
    async with (
        start("victim", url="tcp://127.0.0.1:0", limits=asdict(LIMITS)) as server,
        AsyncExitStack() as stack,
    ):
        url = await server.read("url")
        async with heartline.open_connection(url, identity="bystander") as bystander:
            watch, shop = bystander.service("Watch"), bystander.service("Shop")
            for _ in range(20):
                await shop.echo("warm")
            await watch.turn()
            before = server.memory
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_go_on, shop)
                await attack.do(Stage(url, LIMITS, stack))
                nursery.cancel_scope.cancel()
            assert await shop.echo("after") == "after"
            units, seconds = await watch.turn()
            grown = server.memory - before
            print(f"{attack.name}: {grown / MIB:.1f} MiB, {seconds * 1000:.0f} ms = {units:.0f} units")
            assert grown <= attack.memory(LIMITS) + SLACK
            assert units < LONGEST_TURN
            assert bystander.statistics().links == 1
            async with heartline.open_connection(url) as newcomer, newcomer.subscribe("a new topic"):
                pass
        if attack.do is not calls_that_raise:  # the method is to blame for these
            assert "Traceback" not in server.last_words()


async def _go_on(shop: heartline.Connection) -> None:
    while True:
        await shop.echo("x")  # type: ignore[attr-defined]
        await trio.sleep(0.01)
