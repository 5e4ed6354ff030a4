"""Many runs with fresh seeds, the seeds that ever failed, and the story of one run."""

from __future__ import annotations

import itertools
import random
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.world.federation import Run, live, simulate
from heartline.testing import SeedFailed, World, explore

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

    0: all held. 1: one failed; its story is printed, and it is kept in the corpus. 130: interrupted.
    """
    total = Total()
    started = time.monotonic()
    report_at = started + PROGRESS_EVERY
    failed = False

    def count(_seed: int, run: Run) -> None:
        nonlocal report_at
        total.add(run)
        if time.monotonic() >= report_at:
            report_at += PROGRESS_EVERY
            print(f"… {total.line()}, {time.monotonic() - started:.0f} s", flush=True)

    try:
        explore(live, _seeds(started + seconds), on_result=count, replay="python -m fuzz replay {}".format)
    except SeedFailed as failure:
        failed = True
        traceback.print_exception(failure)
        _keep(failure)
    except KeyboardInterrupt:
        print(f"interrupted after {total.line()}")
        return 130
    for mark in MARKS:
        print(f"{mark.removeprefix('mark: '):<40}{total.seen[mark]:>10,}")
    print(f"{total.line()} in {time.monotonic() - started:.0f} s: {'FAILED' if failed else 'all held'}")
    return 1 if failed else 0


def _seeds(end: float) -> Iterator[int]:
    """Those that ever failed, then fresh ones, until the time is over."""
    chance = random.SystemRandom()
    fresh = (chance.getrandbits(32) for _ in itertools.count())
    yield from itertools.takewhile(lambda _: time.monotonic() < end, itertools.chain(known_seeds(), fresh))


def _keep(failure: SeedFailed) -> None:
    if failure.seed not in known_seeds():
        what = " ".join(failure.error.split())[:120]
        with CORPUS.open("a") as corpus:
            corpus.write(f"{failure.seed}  {what}\n")
    print(f"seed {failure.seed} is kept in {CORPUS}")


def replay(seed: int) -> int:
    """Run one seed and print what happened, for a person; 1 if it fails."""
    world = World(seed)
    error: Exception | None = None
    try:
        simulate(seed, world=world)
    except Exception as failure:
        error = failure
    print(world.story())
    if error is not None:
        traceback.print_exception(error)
    print(f"seed {seed}: {'FAILED' if error else 'all held'}, digest {world.digest()}")
    return 1 if error else 0
