"""Federated learning on real data, with an accident on the way.

Several learners, each a process of its own, hold images of handwritten digits that they do not share, and
unevenly: one has seen many threes and hardly any seven. Together they train a model that knows all digits.
In each round this program, the trainer, has them train the current model on their images, averages what they
send back (FedAvg), pushes the new model to all of them and measures it on images that nobody trained on.

Half of the learners connect by TCP, the others by WebSocket. In the middle one of them is killed: the round
goes on without it. Some rounds later it is started again, and takes part again as if nothing had been.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import _demo  # noqa: F401 - first: says what is missing
import _digits
import numpy as np
import trio
from _progress import Progress, make_progress

import heartline
from heartline.federated import RoundReport, Trainer

EXAMPLES = """\
examples:
  python examples/federated_digits.py
  python examples/federated_digits.py --learners 10 --rounds 40 --seed 7 --output curve.png
"""

LEARNER = str(Path(__file__).with_name("digits_learner.py"))
GOOD = 0.93  # held-out accuracy that the last model must have
TRAINING = {"epochs": 5, "learning_rate": 0.3}  # what a learner does in a round
PATIENCE = 1.0  # seconds that a round waits for a learner whose connection is gone; it may be coming back
ARRIVAL_TIMEOUT = 30.0  # seconds for a process to start and connect, on a slow and busy machine too
GOODBYE = 5.0  # seconds for the learners' processes to end after the last round


class DemoFailed(Exception):
    """Something that this program promises did not come true."""


class Point(NamedTuple):
    """A round that is over, and what its model was worth."""

    report: RoundReport
    accuracy: float


# The learners


class Team:
    """The learners' processes. They live in a nursery, so none of them outlives its block."""

    def __init__(self, nursery: trio.Nursery, commands: dict[str, list[str]]) -> None:
        self._nursery = nursery
        self._commands = commands
        self._processes: dict[str, trio.Process] = {}
        self._killed: set[str] = set()

    async def start(self, name: str) -> None:
        """Start a learner's process, for the first time or again."""
        self._processes[name] = await self._nursery.start(self._run, name)

    def kill(self, name: str) -> int:
        """Kill a learner with SIGKILL, so without a chance to say goodbye; returns its process id."""
        self._killed.add(name)
        self._processes[name].kill()
        return self._processes[name].pid

    async def _run(self, name: str, *, task_status: trio.TaskStatus[trio.Process]) -> None:
        """The life of a process. Cancelled, it ends the process and waits for that."""
        process = await trio.run_process(
            self._commands[name],
            task_status=task_status,
            check=False,
            capture_stderr=True,
            # Many processes share the processors: numpy's own threads would only be in their way.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            # Ctrl-C in a terminal goes to the whole process group; the learners' end is our business.
            process_group=0,
        )
        if name in self._killed:
            self._killed.remove(name)
        elif process.returncode:
            last_words = process.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise DemoFailed(f"{name} ended by itself with code {process.returncode}: {''.join(last_words)}")


def hand_out(shards: Iterable[_digits.Data], folder: Path) -> dict[str, Path]:
    """Give each learner a name and a file with its images: the only thing it gets, and it alone."""
    files = {}
    for number, shard in enumerate(shards, start=1):
        file = folder / f"learner-{number}.npz"
        np.savez(file, x=shard.x, y=shard.y)
        files[file.stem] = file
    return files


def describe(shard: _digits.Data) -> str:
    """What a learner has."""
    counts = np.bincount(shard.y, minlength=_digits.CLASSES)
    first, second = np.argsort(counts)[:-3:-1]
    return f"{len(shard.y):3} images, {counts[first]} are a {first} and {counts[second]} a {second}"


async def wait_for(trainer: Trainer, names: Collection[str]) -> None:
    """Wait until these learners are connected and registered."""
    with trio.move_on_after(ARRIVAL_TIMEOUT):
        while not trainer.learners.keys() >= set(names):  # noqa: ASYNC110 - moments, twice in a demo
            await trio.sleep(0.02)
        return
    missing = ", ".join(sorted(set(names) - trainer.learners.keys()))
    raise DemoFailed(f"not there after {ARRIVAL_TIMEOUT:g} s: {missing}")


async def tell_events(server: heartline.Server, progress: Progress) -> None:
    """Show who gets lost, and who comes back."""
    lost = set()
    async for event in server.events():
        match event:
            # At once: Closed follows only when the session has waited long enough for another link.
            case heartline.Lost(connection, reason):
                lost.add(connection.id)
                progress.tell(f"{connection.id} is lost: {reason}")
            case heartline.Opened(connection) | heartline.Reconnected(connection) if connection.id in lost:
                lost.remove(connection.id)
                progress.tell(f"{connection.id} has returned")


# The training


class Accident:
    """What happens to one of the learners, and after which rounds."""

    def __init__(self, victim: str, rounds: int, team: Team, trainer: Trainer, progress: Progress) -> None:
        self._victim = victim
        self._kill, self._restart, self._wait = (rounds * share // 20 for share in (8, 12, 16))
        self._team = team
        self._trainer = trainer
        self._progress = progress

    async def after_round(self, number: int) -> None:
        """Do what is due."""
        if number == self._restart:
            await self._team.start(self._victim)
            self._progress.tell(f"{self._victim} is started again")
        elif number == self._wait:
            # The rounds take less time than a process needs to start: do not run out of them.
            await wait_for(self._trainer, [self._victim])
        elif number == self._kill:
            # Nothing is awaited from here to the next round, so the trainer will count on the victim.
            process = self._team.kill(self._victim)
            self._progress.tell(f"{self._victim} is killed: SIGKILL to process {process}")


async def federate(
    shards: dict[str, Path], test: _digits.Data, *, rounds: int, seed: int, victim: str, progress: Progress
) -> list[Point]:
    """Train over learners that have these shards; returns what the rounds brought."""
    async with heartline.open_server("tcp://127.0.0.1:0", "ws://127.0.0.1:0") as server:
        trainer = Trainer(
            server,
            _digits.initial_model(seed),
            config=lambda round: TRAINING | {"seed": seed + round},
            patience=PATIENCE,
        )
        commands = {
            name: [sys.executable, LEARNER, url, str(shard)]
            for (name, shard), url in zip(shards.items(), cycle(server.urls), strict=False)
        }
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell_events, server, progress)
            async with trio.open_nursery() as processes:
                team = Team(processes, commands)
                for name in commands:
                    await team.start(name)
                await wait_for(trainer, commands)
                accident = Accident(victim, rounds, team, trainer, progress)
                points = await run_rounds(trainer, rounds, test, accident, progress)
                # The learners have heard that it is over, and end by themselves.
                processes.cancel_scope.deadline = trio.current_time() + GOODBYE
            nursery.cancel_scope.cancel()
    return points


async def run_rounds(
    trainer: Trainer, rounds: int, test: _digits.Data, accident: Accident, progress: Progress
) -> list[Point]:
    """The training itself."""
    points = []
    async for report in trainer.run(rounds):
        points.append(Point(report, _digits.accuracy(trainer.model, *test)))
        progress.add_round(*points[-1])
        await trio.sleep(progress.pace)
        await accident.after_round(report.round)
    await trainer.finish()
    return points


# The result


def find_accident(points: Iterable[Point], victim: str) -> tuple[int, int]:
    """The first round without the victim, and the first with it again."""
    lost = returned = 0
    for report, _ in points:
        if victim in report.dropped and not lost:
            lost = report.round
        elif victim in report.samples and lost and not returned:
            returned = report.round
    if not returned:
        what = f"did not train again after round {lost}" if lost else "was missing in no round"
        raise DemoFailed(f"{victim} was killed and started again, but {what}")
    return lost, returned


def draw(points: Iterable[Point], untrained: float, notes: dict[int, str], path: Path) -> None:
    """Write the learning curve, from the accuracy of the untrained model on."""
    history = [_digits.Round(0, untrained, 0)]
    history += [
        _digits.Round(report.round, accuracy, len(report.samples), notes.get(report.round))
        for report, accuracy in points
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _digits.plot(history, path)
    except OSError as error:
        raise DemoFailed(f"the learning curve cannot be written to {path}: {error}") from error


def run(rounds: int, learners: int, seed: int, output: Path) -> None:
    """The whole demo; raises :class:`DemoFailed` if it does not show what it should."""
    started = time.perf_counter()
    train, test = _digits.load(seed)
    shards = _digits.shards(train, learners, seed=seed)
    print(f"{learners} learners with {len(train.y)} images, {len(test.y)} images held out")
    for number, shard in enumerate(shards, start=1):
        print(f"learner-{number}: {describe(shard)}")
    victim = f"learner-{1 + max(range(learners), key=lambda index: len(shards[index].y))}"
    with tempfile.TemporaryDirectory() as folder, make_progress(rounds) as progress:
        points = trio.run(
            partial(
                federate,
                hand_out(shards, Path(folder)),
                test,
                rounds=rounds,
                seed=seed,
                victim=victim,
                progress=progress,
            )
        )
    lost, returned = find_accident(points, victim)
    print(f"{victim} was killed, round {lost} went on without it; since round {returned} it trains again")
    untrained = _digits.accuracy(_digits.initial_model(seed), *test)
    draw(points, untrained, {lost: f"{victim} killed", returned: f"{victim} is back"}, output)
    print(f"learning curve: {output}")
    final = points[-1].accuracy
    print(f"held-out accuracy after {rounds} rounds: {final:.1%}, in {time.perf_counter() - started:.1f} s")
    if final < GOOD:
        raise DemoFailed(f"the accuracy should be at least {GOOD:.0%}")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learners", type=int, default=6, metavar="N", help="2 to 20 processes (default: 6)")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="5 or more (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is random (default: 0)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("out/federated_digits.png"),
        metavar="PNG",
        help="where to draw the learning curve (default: %(default)s)",
    )
    options = parser.parse_args()
    if not 2 <= options.learners <= 20:
        parser.error(f"--learners must be from 2 to 20, not {options.learners}")
    if options.rounds < 5:
        parser.error(f"--rounds must be at least 5 to have an accident and recover, not {options.rounds}")
    if options.seed < 0:
        parser.error(f"--seed must be 0 or more, not {options.seed}")
    return options


def flatten(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The errors in a group, and in the groups in it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from flatten(error)
        else:
            yield error


def main() -> int:
    """Run the demo; returns the exit code: 0 if it showed what it should."""
    options = parse_arguments()
    code = 0
    try:
        run(options.rounds, options.learners, options.seed, options.output)
    except* KeyboardInterrupt:
        code = 130
        print("interrupted", file=sys.stderr)
    except* DemoFailed as failures:
        code = 1
        for failure in flatten(failures):
            print("the demo failed:", failure, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
