"""What each attack costs a server with the default limits: ``python -m tests.processes`` prints the table."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import asdict

import trio

import heartline
from heartline import Limits

from ._process import start
from .attacks import ATTACKS, MIB, Attack, Stage


async def measure(attack: Attack) -> str:
    """A row: what it did, what it was bounded by, and what it cost."""
    limits = Limits()
    async with (
        start("victim", url="tcp://127.0.0.1:0", limits=asdict(limits)) as server,
        AsyncExitStack() as stack,
        heartline.open_connection(await server.read("url")) as bystander,
        trio.open_nursery() as nursery,
    ):
        watch, shop = bystander.service("Watch"), bystander.service("Shop")
        slowest = 0.0

        async def go_on() -> None:
            nonlocal slowest
            while True:
                begun = time.monotonic()
                await shop.echo("x")
                slowest = max(slowest, time.monotonic() - begun)
                await trio.sleep(0.001)

        await shop.echo("warm")
        await watch.turn()
        before = server.memory
        nursery.start_soon(go_on)
        await attack.do(Stage(bystander.peer.url, limits, stack))
        _, seconds = await watch.turn()
        nursery.cancel_scope.cancel()
        grown = (server.memory - before) / MIB
        return (
            f"| {attack.name} | {attack.limits} | {grown:.0f} | {seconds * 1000:.0f} | {slowest * 1000:.0f} |"
        )


async def main() -> None:
    """Print the table."""
    print("| attack | bounded by | MiB held | longest turn, ms | slowest call of another client, ms |")
    print("|---|---|---|---|---|")
    for attack in ATTACKS:
        print(await measure(attack), flush=True)


if __name__ == "__main__":
    trio.run(main)
