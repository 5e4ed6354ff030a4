"""A trainer that is killed anywhere and started again ends with the bytes of one that was left alone."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline.federated import Model, Trainer, TrainResult, run_learner
from heartline.federated._files import Files
from heartline.federated._journal import Received
from tests.federated.crashes import Disk, Steps, cut_off, run_inline
from tests.federated.helpers import AsyncAdder, Momentum
from tests.few_examples import few_examples

NAMES = ("ada", "ben", "cleo", "dora")
ROUNDS = 3


class Noisy(AsyncAdder):
    """Moves the model by what its name and the round say; some take long."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.rounds: list[int] = []

    async def train(self, model: Model, config: Any) -> TrainResult:
        self.rounds.append(config["round"])
        await trio.sleep(2 * NAMES.index(self.name))
        rng = np.random.default_rng([NAMES.index(self.name), config["round"]])
        moved = [(0.9 * array + rng.normal(size=array.shape)).astype(array.dtype) for array in model]
        return TrainResult(model=moved, samples=int(rng.integers(1, 1000)))


def digest(model: Model) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in model)).hexdigest()


async def _train(server: heartline.Server, directory: Path) -> str:
    trainer = Trainer(
        server,
        [np.linspace(0, 1, 7, dtype=np.float32), np.zeros((2, 2))],
        strategy=Momentum(),
        cohort=3,
        minimum=3,
        config=lambda number: {"round": number},
        checkpoint=directory / "training",
        seed=5,
    )
    await trainer.start()
    while trainer.version == 0 and len(trainer.learners) < len(NAMES):
        await trio.sleep(0.05)  # the first draw depends on who is there
    async for report in trainer.run(ROUNDS):
        assert not report.dropped
    await trainer.finish()
    return digest(trainer.model)


def federate(crashes: list[int], rng: random.Random) -> tuple[str, dict[str, list[int]], int]:
    """A training whose process dies at these steps of its lives, learners that stay alive, and what came out.

    Gives the final model's digest, the rounds that each learner trained, and the steps of the last life.
    """
    learners = {name: Noisy(name) for name in NAMES}

    async def live(directory: Path, at: int) -> tuple[str | None, dict[str, bytes], int]:
        image: dict[str, bytes] = {}
        result: str | None = None
        server: heartline.Server | None = None

        def crash() -> None:
            image.update(disk.image(rng))
            if server is not None:
                cut_off(server)
            life.cancel()

        steps = Steps(at, crash)
        disk = Disk(directory, steps.step)
        with trio.CancelScope() as life, disk.watched():
            trio.lowlevel.add_instrument(steps)
            try:
                async with heartline.open_server("memory://crashes", rng=rng) as server:
                    result = await _train(server, directory)
            finally:
                trio.lowlevel.remove_instrument(steps)
        return (None if life.cancel_called else result), image, steps.count

    async def main() -> tuple[str, int]:
        with trio.fail_after(1000):
            return await live_on()

    async def live_on() -> tuple[str, int]:
        scopes: dict[str, trio.CancelScope] = {}
        async with trio.open_nursery() as nursery:

            def start(names: Iterable[str]) -> None:
                for name in names:
                    scopes[name] = trio.CancelScope()
                    nursery.start_soon(_take_part, learners[name], scopes[name])

            start(learners)
            files: dict[str, bytes] = {}
            for at in (*crashes, 0):
                with tempfile.TemporaryDirectory() as directory:
                    for file, content in files.items():
                        Path(directory, file).write_bytes(content)
                    if files:
                        # Whose result is safe may as well be another process, that knows nothing of it.
                        answered = _answered(Path(directory))
                        for name in answered:
                            scopes[name].cancel()
                        start(answered)
                    result, files, steps = await live(Path(directory), at)
                if result is not None:
                    break
            # One that had not heard of the end when the process died may still try to come back.
            nursery.cancel_scope.cancel()
        assert result is not None
        return result, steps

    with mock.patch.object(trio.to_thread, "run_sync", run_inline):
        final, steps = trio.run(main, clock=MockClock(autojump_threshold=0))
    return final, {name: learner.rounds for name, learner in learners.items()}, steps


async def _take_part(learner: Noisy, scope: trio.CancelScope) -> None:
    with scope:
        await run_learner("memory://crashes", learner, identity=learner.name, rng=random.Random(learner.name))


def _answered(directory: Path) -> list[str]:
    """Whose results are in the journal that a trainer will find."""
    files = Files(directory / "training")
    if files.load() is None or (journal := files.open_journal()) is None:
        return []
    return [entry.learner for entry in journal.replay() if isinstance(entry, Received)]


@pytest.fixture(scope="module")
def undisturbed() -> tuple[str, dict[str, list[int]], int]:
    return federate([], random.Random(0))


def test_an_undisturbed_run_is_always_the_same(undisturbed: tuple[str, dict[str, list[int]], int]) -> None:
    final, rounds, _ = federate([], random.Random(1))
    assert (final, rounds) == undisturbed[:2]
    assert Counter(number for numbers in rounds.values() for number in numbers) == dict.fromkeys(
        range(1, ROUNDS + 1), 3
    )


@pytest.mark.slow
@given(st.data())
@few_examples
def test_killed_anywhere(undisturbed: tuple[str, dict[str, list[int]], int], data: st.DataObject) -> None:
    final, rounds, steps = undisturbed
    crashes = data.draw(st.lists(st.integers(1, steps), min_size=1, max_size=4))
    seed = data.draw(st.integers(0, 2**32))
    recovered, trained, _ = federate(crashes, random.Random(seed))
    assert recovered == final
    assert trained == rounds, "once in a round: who stays alive, and whose result had arrived"
