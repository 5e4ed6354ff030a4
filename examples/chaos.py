"""A federation under faults, live: everything breaks, and in the end nothing is lost.

A hub takes orders by calls, publishes them on a durable topic, collects numbered messages and leads a
training. Three clients call, follow the topic and send messages; three learners train. For a minute of a
simulated world links are reset, cut, clogged and half dead, and nodes crash, the hub among them. Then all of
it is healed, and everything has to come to its end: each order placed once, and handled once by every client;
each message there; and the model, bit for bit, the one that a training without faults gives.

What the nodes do is in `_chaos_nodes.py`, and would be the same in production. Chance comes from the seed
alone, so the same seed shows the same again.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import tempfile
from functools import partial
from pathlib import Path

import _demo  # noqa: F401 - first: says what is missing
import trio
from _chaos_nodes import expected_model, run_client, run_hub, run_pupil
from _chaos_records import CLIENTS, LEARNERS, Records
from _chaos_screen import FRAME, Screen, draw_counters, draw_sessions, make_screen
from rich.console import Console

from heartline.testing import NotConverged, World

EXAMPLES = """\
examples:
  python examples/chaos.py                       # another run each time
  python examples/chaos.py --seed 7              # the same run each time
  python examples/chaos.py --seed 7 --faults 100
  python examples/chaos.py --fast | less         # all that happened, line by line
"""

TROUBLE = 60.0  # seconds of the world in which faults strike
CALM = 3.0  # seconds before the first one
PEACE = 240.0  # seconds in which everything must have come to its end, once all is healed
KINDS = {
    "reset": 5,
    "half open": 4,
    "partition": 4,
    "one-way partition": 2,
    "clog": 3,
    "crash": 5,
    "crash of the hub": 2,
}  # what goes wrong, and how often beside the others
REMEMBER = 2.0  # seconds for which a fault is shown that lasts no time


class Trouble:
    """Lets things go wrong; what, where and when is drawn from the world's seed."""

    def __init__(self, world: World, records: Records) -> None:
        self._world = world
        self._records = records
        self._shown: dict[str, tuple[str, float]] = {}

    async def run(self, faults: int) -> None:
        """Let so many faults strike, and end when each of them is over."""
        times = sorted(self._world.rng.uniform(CALM, TROUBLE) for _ in range(faults))
        async with trio.open_nursery() as nursery:
            for time in times:
                await trio.sleep(time - self._world.time())
                nursery.start_soon(self._strike)

    async def _strike(self) -> None:
        rng = self._world.rng
        [kind] = rng.choices(list(KINDS), list(KINDS.values()))
        name, seconds = rng.choice(CLIENTS + LEARNERS), rng.uniform(1, 8)
        self._records.faults[kind] += 1
        if kind == "crash of the hub":
            await self._crash("hub", seconds / 2)
        elif kind == "crash":
            await self._crash(name, seconds / 2)
        else:
            await self._break_link(kind, name, seconds)

    async def _crash(self, name: str, seconds: float) -> None:
        node = self._world.nodes[name]
        node.crash()
        await trio.sleep(seconds)
        if node.crashed:
            node.restart()

    async def _break_link(self, kind: str, name: str, seconds: float) -> None:
        link = self._world.link("hub", name)
        self._shown[name] = kind, self._world.time() + REMEMBER
        match kind:
            case "reset":
                link.reset()
            case "half open":
                link.half_open()
            case "clog":
                link.clog(seconds / 2)
            case _:
                ends = self._world.rng.choice([("hub", name), (name, "hub")])
                link.partition(direction=None if kind == "partition" else ends)
                await trio.sleep(seconds)
                link.heal()

    def visible(self) -> dict[str, str]:
        """What is wrong with links at the moment, by the node at the other end."""
        now = self._world.time()
        return {
            name: kind
            for name, (kind, until) in self._shown.items()
            if now < until or not self._world.link("hub", name).healthy
        }


async def live(world: World, *, records: Records, screen: Screen, faults: int, folder: Path) -> None:
    """The life of the world: everything starts, breaks, is healed and comes to its end."""
    trouble = Trouble(world, records)
    world.node("hub").start(run_hub, world, records, folder)
    for name in CLIENTS:
        world.node(name).start(run_client, world, records)
    for name in LEARNERS:
        world.node(name).start(run_pupil, world, records)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, world, records, screen, trouble)
        async with trio.open_nursery() as minute:
            minute.start_soon(trouble.run, faults)
            await trio.sleep(TROUBLE)
        records.closing = True
        await world.heal_and_settle(lambda: not records.losses(), within=PEACE)
        nursery.cancel_scope.cancel()


async def watch(world: World, records: Records, screen: Screen, trouble: Trouble) -> None:
    """Show the world, picture by picture."""
    while True:
        screen.show(world, records, trouble.visible())
        await trio.sleep(FRAME)


def run(seed: int, faults: int, *, fast: bool) -> int:
    """Run the world of this seed and print what became of it; returns the exit code."""
    world, records = World(seed), Records(expected_model())
    with tempfile.TemporaryDirectory() as folder, make_screen(fast=fast) as screen:
        main = partial(live, records=records, screen=screen, faults=faults, folder=Path(folder))
        try:
            world.run(main)
        except NotConverged:
            pass  # the verdict says what is missing
    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=100, highlight=False)
    report(records, console)
    losses = records.losses()
    for loss in losses:
        console.print("LOST:", loss, style="bold red")
    verdict, style = ("something was lost", "bold red") if losses else ("nothing was lost", "bold green")
    console.print(f"{verdict} in {world.time():.0f} s of the world", style=style)
    # Not wrapped: it is there to be copied.
    print(f"the same again: python examples/chaos.py --seed {seed} --faults {faults}", flush=True)
    return 1 if losses else 0


def report(records: Records, console: Console) -> None:
    """Print the faults, the sessions and the counters."""
    kinds = [f"{count} × {kind}" for kind, count in sorted(records.faults.items())]
    console.print(fold(f"{records.faults.total()} faults:", kinds or ["none"], console.width))
    console.print(draw_sessions(records))
    with console.capture() as capture:
        console.print(draw_counters(records, "missing"))
    print(*map(str.rstrip, capture.get().splitlines()), sep="\n")


def fold(head: str, items: list[str], width: int) -> str:
    """The items behind the head, with commas between them, on lines that break between items only."""
    lines = [head]
    for number, item in enumerate(items, 1):
        item += "," if number < len(items) else ""
        if len(lines[-1]) + 1 + len(item) > width:
            lines.append(" ")
        lines[-1] += f" {item}"
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of all that is random (default: a new one)")
    parser.add_argument("--faults", type=int, default=30, metavar="N", help="0 to 1000 (default: 30)")
    parser.add_argument("--fast", action="store_true", help="do not slow down for the eye")
    options = parser.parse_args()
    if not 0 <= options.faults <= 1000:
        parser.error(f"--faults must be from 0 to 1000, not {options.faults}")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(10_000)
    return options


def main() -> int:
    """Run the demo; returns the exit code: 0 if nothing was lost."""
    options = parse_arguments()
    # Handlers that fail because their server goes are part of the show, and not worth a traceback each.
    logging.getLogger("heartline").setLevel(logging.ERROR)
    code = 0
    try:
        code = run(options.seed, options.faults, fast=options.fast)
    except* KeyboardInterrupt:
        code = 130
        again = f"--seed {options.seed} --faults {options.faults}"
        print(f"interrupted; {again} shows it again", file=sys.stderr)
    except* BrokenPipeError:
        code = 141  # as a shell has it for SIGPIPE: whoever read the output has seen enough
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    sys.exit(main())
