"""Many runs with fresh seeds, the seeds that ever failed, and the log of one run."""

from __future__ import annotations

import os
import random
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.world.federation import Run, simulate
from heartline.testing import World

__all__ = ["CORPUS", "MARKS", "Total", "known_seeds", "replay", "run_seeds"]

CORPUS = Path(__file__).parents[1] / "corpus" / "worlds.txt"
"""Every seed that ever failed, one a line, with what it found: they run with the tests."""

MARKS = (
    "mark: resumed",
    "mark: began a new session",
    "mark: a session expired",
    "mark: a gap was told",
    "mark: waited for credit",
    "mark: passed a message in fragments",
)
"""What many seeds together must have reached."""

PROGRESS_EVERY = 10.0
"""Seconds between two lines of progress."""


@dataclass
class Total:
    """What some runs have seen together."""

    seeds: int = 0
    faults: int = 0
    messages: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def add(self, run: Run) -> None:
        """Count a run."""
        self.seeds += 1
        self.faults += run.faults
        self.messages += run.messages
        self.seen += run.seen

    def line(self) -> str:
        """In words."""
        return f"{self.seeds:,} seeds, {self.faults:,} faults, {self.messages:,} messages"


def known_seeds() -> list[int]:
    """The seeds of the corpus."""
    lines = CORPUS.read_text().splitlines() if CORPUS.exists() else []
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


def run_seeds(*, seconds: float) -> int:
    """Run fresh seeds on all cores for so long; prints as it goes and gives the status for the shell.

    0: all held. 1: one failed; it is printed, and kept in the corpus. 130: interrupted.
    """
    total = Total()
    started = time.monotonic()
    pool = ProcessPoolExecutor(os.cpu_count())
    try:
        failed = _run(pool, _seeds(), total, started, started + seconds)
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        print(f"interrupted after {total.line()}")
        return 130
    pool.shutdown()
    for mark in MARKS:
        print(f"{mark.removeprefix('mark: '):<40}{total.seen[mark]:>10,}")
    print(f"{total.line()} in {time.monotonic() - started:.0f} s: {'FAILED' if failed else 'all held'}")
    return 1 if failed else 0


def _seeds() -> Iterator[int]:
    """Those that ever failed, then fresh ones."""
    yield from known_seeds()
    chance = random.SystemRandom()
    while True:
        yield chance.getrandbits(32)


def _run(pool: ProcessPoolExecutor, seeds: Iterator[int], total: Total, started: float, end: float) -> bool:
    """Run seeds until the time is over, or one fails."""
    running: dict[Future[Run], int] = {}
    report_at = started + PROGRESS_EVERY
    while time.monotonic() < end:
        while len(running) < 2 * (os.cpu_count() or 1):
            seed = next(seeds)
            running[pool.submit(simulate, seed)] = seed
        done, _ = wait(running, timeout=end - time.monotonic(), return_when=FIRST_COMPLETED)
        if _collect(done, running, total):
            return True
        if time.monotonic() >= report_at:
            report_at += PROGRESS_EVERY
            print(f"… {total.line()}, {time.monotonic() - started:.0f} s", flush=True)
    done, _ = wait(running)
    return _collect(done, running, total)


def _collect(done: set[Future[Run]], running: dict[Future[Run], int], total: Total) -> bool:
    """Count what has ended; tells whether a run failed."""
    failed = False
    for future in done:
        seed = running.pop(future)
        error = future.exception()
        if error is None:
            total.add(future.result())
        else:
            failed = True
            traceback.print_exception(error)
            _keep(seed, error)
    return failed


def _keep(seed: int, error: BaseException) -> None:
    if seed not in known_seeds():
        what = " ".join(str(error).split())[:120]
        with CORPUS.open("a") as corpus:
            corpus.write(f"{seed}  {type(error).__name__}: {what}\n")
    print(f"seed {seed} failed, and is kept in {CORPUS}; python -m fuzz replay {seed} shows its log")


def replay(seed: int) -> int:
    """Run one seed and print what happened, for a person; 1 if it fails."""
    world = World(seed)
    error: Exception | None = None
    try:
        simulate(seed, world=world)
    except Exception as failure:
        error = failure
    for entry in world.trace:
        print(f"{entry.time:10.3f}  {entry.node:<8}{entry.text}")
    if error is not None:
        traceback.print_exception(error)
    print(f"seed {seed}: {'FAILED' if error else 'all held'}, digest {world.digest()}")
    return 1 if error else 0
