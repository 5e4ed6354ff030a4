"""A job service in simulated worlds, which find its bug, tell how it came about, and show it again.

A server keeps jobs on its disk. A client submits them, a worker asks for them, does them, and reports each as
finished. Links break and heal meanwhile, and the server crashes, as the seed of the world draws it. The
promise: a finished job stays finished.

When a session ends before an answer has come, heartline repeats the call, for the methods are declared
idempotent. ``submit`` is not, at first: a job that is submitted again is queued again, and may have been
finished meanwhile.
"""

import argparse
import logging
import os
import sys
from functools import partial

import trio

import heartline
from heartline.testing import Disk, Node, SeedFailed, Violation, World, explore

EXAMPLES = """\
examples:
  python examples/simulated_world.py                    # find the bug; then the mended service in all worlds
  python examples/simulated_world.py --seed 5           # one world, with all that happened in it
  python examples/simulated_world.py --seed 5 --mended  # the mended service in the same world
"""

SEEDS = range(40)
JOBS = 10
FAULTS = 8
HEARTBEAT = heartline.Heartbeat(interval=1, timeout=3)
BACKOFF = heartline.Backoff(initial=0.1, maximum=2)
RETRY = heartline.Retry(attempts=FAULTS + 2)

logger = logging.getLogger("jobs")


@heartline.service
class Jobs:
    """The jobs by name, each ``queued`` or ``finished``."""

    def __init__(self, disk: Disk, *, mended: bool) -> None:
        self.disk = disk
        self.mended = mended
        self.states = read_states(disk)
        disk.append("jobs", b"\n")  # a crash can leave half a line, to which nothing may be added

    @heartline.method(idempotent=True)
    async def submit(self, job: str) -> str:
        """Queue a job; returns its state."""
        if not self.mended or job not in self.states:
            self._write(job, "queued")
        # Also for one that was known: it may be on its way to the disk still, and would be lost in a crash.
        await self.disk.sync("jobs")
        return self.states[job]

    @heartline.method(idempotent=True)
    async def take(self) -> str | None:
        """A job that is queued, if there is one."""
        return next((job for job, state in self.states.items() if state == "queued"), None)

    @heartline.method(idempotent=True)
    async def finish(self, job: str) -> None:
        """The job is done."""
        self._write(job, "finished")
        await self.disk.sync("jobs")

    def _write(self, job: str, state: str) -> None:
        logger.info("%s is %s, and was %s", job, state, self.states.get(job, "unknown"))
        self.states[job] = state
        self.disk.append("jobs", f"{job} {state};\n".encode())


def read_states(disk: Disk) -> dict[str, str]:
    """What the disk knows. A line without its semicolon was being written when the power went."""
    states = {}
    for line in disk.read("jobs").decode().splitlines():
        if line.endswith(";"):
            job, state = line.removesuffix(";").split()
            states[job] = state
    return states


async def serve(node: Node, mended: bool) -> None:
    """The server's program: as in production, but for the URL and the disk."""
    jobs = Jobs(node.disk, mended=mended)
    async with heartline.open_server("memory://server", services=[jobs], heartbeat=HEARTBEAT):
        await trio.sleep_forever()


async def order(node: Node) -> None:
    """The client's program: submit one job after the other."""
    async with heartline.open_connection(
        "memory://server", identity=node.name, heartbeat=HEARTBEAT, reconnect=BACKOFF
    ) as connection:
        jobs = connection.service(Jobs, retry=RETRY)
        for number in range(JOBS):
            logger.info("submitted job-%d, and it is %s", number, await jobs.submit(f"job-{number}"))
            await node.sleep(0.1)


async def work(node: Node, finished: set[str]) -> None:
    """The worker's program: do jobs for ever. What it has reported stands in ``finished``."""
    async with heartline.open_connection(
        "memory://server", identity=node.name, heartbeat=HEARTBEAT, reconnect=BACKOFF
    ) as connection:
        jobs = connection.service(Jobs, retry=RETRY)
        while True:
            job = await jobs.take()
            if job in finished:
                raise Violation(f"{job} was finished, and is to be done again")
            if job is None:
                await node.sleep(0.5)
                continue
            await node.sleep(0.1)  # the work
            await jobs.finish(job)
            finished.add(job)


async def live(world: World, *, mended: bool) -> None:
    """The life of one world: the programs start, things go wrong and are healed, and all jobs get done."""
    server, client, worker = (world.node(name) for name in ("server", "client", "worker"))
    finished: set[str] = set()
    world.link(server, client).configure(latency=0.2)  # the client is far away; the seed draws the rest
    server.start(serve, mended)
    client.start(order)
    worker.start(work, finished)
    await trio.sleep(1)
    for _ in range(FAULTS):
        link = world.link(server, world.rng.choice([client, worker]))
        world.rng.choice([link.partition, link.reset, link.half_open, link.heal, server.restart])()
        await trio.sleep(world.rng.uniform(0, 1))
    # However bad it was: once it is over, everything has to come to its end.
    await world.heal_and_settle(lambda: len(finished) == JOBS and not client.alive, within=120)


def find_and_mend() -> int:
    """Explore the service with its bug until a world finds it, then the mended one in all worlds."""
    try:
        explore(partial(live, mended=False), SEEDS, replay=replay_line)
    except SeedFailed as failure:
        print(failure, end="\n\n", flush=True)
    else:
        print("the bug was not found")
        return 1
    return look_at(SEEDS, mended=True)


def look_at(seeds: range, *, mended: bool) -> int:
    """Run these worlds; prints the story of the first that fails, and returns the exit code."""
    try:
        count = explore(partial(live, mended=mended), seeds, replay=replay_line)
    except SeedFailed as failure:
        print(failure)
        return 1
    which = "mended" if mended else "first"
    print(f"with the {which} version every finished job stayed finished; worlds: {count}")
    return 0


def replay_line(seed: int) -> str:
    """The command that shows a seed again."""
    return f"python examples/simulated_world.py --seed {seed}"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="one world; if it fails, all that happened is told")
    parser.add_argument("--mended", action="store_true", help="the service without its bug")
    return parser.parse_args()


def main() -> int:
    """Explore the worlds that were asked for.

    Returns the exit code: 0 if the bug was found and the mended service has none, or if what was asked for
    holds.
    """
    options = parse_arguments()
    code = 0
    try:
        if options.seed is not None:
            code = look_at(range(options.seed, options.seed + 1), mended=options.mended)
        else:
            code = look_at(SEEDS, mended=True) if options.mended else find_and_mend()
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
