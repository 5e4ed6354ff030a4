"""A small application in fifty simulated worlds, each of which goes wrong in its own way.

The application counts visitors. A server gives out the count and keeps the visitors on its disk; clients
report theirs, and try again until they have an answer. Its promise: who was answered is counted, once, and
for ever. Meanwhile links break, clog and heal, and the server crashes, as the world's seed draws it.

The same seed does the same again, so what was found can be looked at for as long as it takes.
"""

import argparse
import os
import sys
from functools import partial

import trio

import heartline
from heartline.testing import Disk, Node, Violation, World

EXAMPLES = """\
examples:
  python examples/simulated_world.py           # fifty worlds: the promise holds
  python examples/simulated_world.py --bug     # count without looking: some worlds find it
  python examples/simulated_world.py --bug 5   # one world, with all that happened in it
"""

SEEDS = range(1, 51)
CLIENTS = 3
VISITORS = 10  # reported by each client
FAULTS = 8
HEARTBEAT = heartline.Heartbeat(interval=1, timeout=3)
BACKOFF = heartline.Backoff(initial=0.1, maximum=2)


@heartline.service
class Counter:
    """Counts each visitor once, however often it is reported; unless it is ``careless``."""

    def __init__(self, disk: Disk, *, careless: bool) -> None:
        self.disk = disk
        self.careless = careless
        self.visitors = read_visitors(disk)
        disk.append("visitors", b"\n")  # a crash can leave half a line, to which nothing may be added

    @heartline.method(idempotent=True)
    async def visit(self, visitor: str) -> int:
        """Count a visitor; returns how many there are."""
        if self.careless or visitor not in self.visitors:
            self.visitors.append(visitor)
            self.disk.append("visitors", f"{visitor}.\n".encode())
        # Also for one that was known: it may be on its way to the disk still, and would be lost in a crash.
        await self.disk.sync("visitors")
        return len(self.visitors)


def read_visitors(disk: Disk) -> list[str]:
    """Whom the disk knows, in order. A line without its dot was being written when the power went."""
    lines = disk.read("visitors").decode().splitlines()
    return [line.removesuffix(".") for line in lines if line.endswith(".")]


async def serve(node: Node, careless: bool) -> None:
    """The server's program: as in production, but for the URL and the disk."""
    counter = Counter(node.disk, careless=careless)
    async with heartline.open_server("memory://counter", services=[counter], heartbeat=HEARTBEAT):
        await trio.sleep_forever()


async def report(node: Node, world: World, answered: list[str]) -> None:
    """A client's program: report every visitor until there is an answer."""
    for number in range(VISITORS):
        visitor = f"{node.name}-{number}"
        while visitor not in answered:
            try:
                async with heartline.open_connection(
                    "memory://counter", heartbeat=HEARTBEAT, reconnect=BACKOFF
                ) as connection:
                    count = await connection.service(Counter).visit(visitor)
                    world.log("reported", visitor, "and is told", count)
                    answered.append(visitor)
            except (heartline.ConnectionFailed, heartline.CallError) as error:
                world.log("tries again, since", error)
            await node.sleep(0.2)


async def go_wrong(world: World) -> None:
    """Let something happen now and then; the seed draws what, where and when."""
    server = world.nodes["server"]
    for _ in range(FAULTS):
        await trio.sleep(world.rng.uniform(0, 1.5))
        client = world.nodes[f"client{world.rng.randrange(CLIENTS)}"]
        link = world.link(client, server)
        faults = (link.partition, link.reset, link.half_open, link.heal, server.crash, server.restart)
        world.rng.choice(faults)()


async def live(world: World, *, careless: bool) -> int:
    """The life of one world; returns how many visitors were counted."""
    server = world.node("server")
    server.start(serve, careless)
    answered: list[str] = []
    clients = [world.node(f"client{number}") for number in range(CLIENTS)]
    for client in clients:
        client.start(report, world, answered)
    await go_wrong(world)
    # However bad it was: once it is over, everything has to come to its end.
    await world.heal_and_settle(lambda: len(answered) == CLIENTS * VISITORS, within=120)
    server.crash()
    counted = read_visitors(server.disk)
    for visitor in answered:
        if counted.count(visitor) != 1:
            raise Violation(f"{visitor} was answered, and counted {counted.count(visitor)} times")
    return len(counted)


def explore(seed: int, *, careless: bool) -> bool:
    """Run one world and print a row about it; returns whether the promise was kept."""
    world = World(seed)
    try:
        counted = world.run(partial(live, careless=careless))
    except AssertionError as error:
        print(f"{seed:4}  FAILED: {error}", flush=True)
        return False
    texts = [entry.text for entry in world.trace]
    crashes = sum(text.startswith("crashes") for text in texts)
    troubles = sum(entry.node == "network" for entry in world.trace)
    retries = sum(text.startswith("tries again") for text in texts)
    print(f"{seed:4}  {world.time():7.1f} s  {crashes:7}  {troubles:8}  {retries:7}  {counted:7}", flush=True)
    return True


def explore_all(*, careless: bool) -> int:
    """Run every world and print a table; returns the exit code."""
    print("seed    it took  crashes  troubles  retries  counted")
    kept = sum([explore(seed, careless=careless) for seed in SEEDS])
    print(f"{len(SEEDS)} worlds, the promise was kept in {kept}")
    return 0 if kept == len(SEEDS) else 1


def look_at(seed: int, *, careless: bool) -> int:
    """Run one world, and print all that happened if it fails; returns the exit code."""
    world = World(seed)
    try:
        print(world.run(partial(live, careless=careless)), "visitors were counted, each of them once")
    except AssertionError as error:
        print(*world.trace, sep="\n")
        print(f"\n{error}", *error.__notes__, sep="\n")
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bug", action="store_true", help="count a visitor without looking")
    parser.add_argument("seed", type=int, nargs="?", help="run this world only, and print what happened")
    return parser.parse_args()


def main() -> int:
    """Explore the worlds that were asked for; returns the exit code: 0 if the promise was kept."""
    options = parse_arguments()
    code = 0
    try:
        if options.seed is None:
            code = explore_all(careless=options.bug)
        else:
            code = look_at(options.seed, careless=options.bug)
        sys.stdout.flush()
    except* KeyboardInterrupt:
        code = 130
        print("interrupted", file=sys.stderr)
    except* BrokenPipeError:
        code = 141  # as a shell has it for SIGPIPE: whoever read the output has seen enough
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    sys.exit(main())
