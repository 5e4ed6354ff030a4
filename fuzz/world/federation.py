"""One run: everything starts, what the script says goes wrong, all of it is healed, and must come to rest."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from fuzz.logged import no_logged_errors
from fuzz.world.hub import LEARNERS, ROUNDS, initial_model, run_hub
from fuzz.world.member import run_member, run_pupil, trained
from fuzz.world.notes import LIMITS, MEMBERS, Notes
from fuzz.world.script import Fault, draw_script
from heartline.federated import FedAvg
from heartline.testing import LeakChecker, World

__all__ = ["Run", "live", "simulate"]

PEACE = 240.0
"""Seconds of the world after the last fault in which everybody must have come to rest: the window in which
sessions expire, the backoffs, and the rest of the training."""

GOODBYE = 60.0
"""Seconds of the world for the hub to end when it is told to, with nobody there any more."""

SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the trainer's files are; in memory if the system has such a place, for they are synced often."""


@dataclass
class Run:
    """What is known of a run that has ended well."""

    seen: Counter[str]
    faults: int

    @property
    def messages(self) -> int:
        """Calls, messages, updates and models that were handled."""
        return sum(self.seen[name] for name in ("calls", "messages", "updates handled", "states", "models"))


def simulate(seed: int, script: Sequence[Fault] | None = None, world: World | None = None) -> Run:
    """Run the federation of this seed; raises what went wrong, with a note how to see it again."""
    return (world or World(seed)).run(partial(live, script=script))


async def live(world: World, script: Sequence[Fault] | None = None) -> Run:
    """The life of a federation; what goes wrong in it the world's seed draws, unless it is given."""
    faults = draw_script(random.Random(f"{world.seed} script")) if script is None else script
    notes = Notes()
    with no_logged_errors(), tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        await _go_through(world, notes, faults, Path(folder))
    return Run(notes.seen, len(faults))


async def _go_through(world: World, notes: Notes, faults: Sequence[Fault], folder: Path) -> None:
    world.node("hub").start(run_hub, notes, folder)
    await trio.sleep(1)
    counters = {
        "connections on the wires": lambda: sum(link.connections for link in world.links),
        "registrations": notes.registered,
    }
    leaks = LeakChecker(counters)
    for name in MEMBERS:
        world.node(name).start(run_member, notes)
    for number, name in enumerate(LEARNERS):
        world.node(name).start(run_pupil, notes, number)
    for fault in faults:
        await trio.sleep(fault.pause)
        fault.strike(world)
    await trio.sleep(1)
    notes.quiet.set()
    await world.heal_and_settle(lambda: _at_rest(world, notes), within=PEACE)
    for name in MEMBERS:
        world.node(name).crash(silent=False)
    await trio.sleep(2 * LIMITS.resume_window)
    leaks.check()
    notes.leave.set()
    with trio.fail_after(GOODBYE):
        await notes.left.wait()


def _at_rest(world: World, notes: Notes) -> bool:
    assert notes.result == _expected(), "the training is not over, or its result is another one"
    assert not any(world.node(name).alive for name in LEARNERS), "the learners were not told of the end"
    assert not notes.calls.pending, f"pending calls: {notes.calls.pending}"
    for name in MEMBERS:
        assert notes.reached.get(name) == notes.last_order, (
            f"{name} is at {notes.reached.get(name)}, the topic at {notes.last_order}"
        )
    return True


def _expected() -> list[bytes]:
    """The model of a training in which nothing happens."""
    model = initial_model()
    for number in range(1, ROUNDS + 1):
        aggregation = FedAvg().start_round(model, number)
        for index, name in enumerate(LEARNERS):
            aggregation.add(name, trained(model, index))
        model = aggregation.finish()
    return [array.tobytes() for array in model]
