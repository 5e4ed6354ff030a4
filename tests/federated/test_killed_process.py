"""The real thing: the trainer's process is killed with SIGKILL, again and again, at random moments."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

import heartline
from heartline.federated import Learner, Model, TrainResult, run_learner
from tests.federated.test_recovery import NAMES
from tests.patience import PATIENCE
from tests.ports import free_port

ROUNDS = 10
KILLS = 3
PROGRAM = [sys.executable, "-m", "tests.federated.trainer_process"]

pytestmark = pytest.mark.slow


class Slow(Learner):
    """Takes some hundredths of a second, so that a kill hits it at work."""

    def __init__(self, name: str) -> None:
        self.seed = NAMES.index(name)
        self.rounds: list[int] = []

    async def train(self, model: Model, config: Any) -> TrainResult:
        self.rounds.append(config["round"])
        rng = np.random.default_rng([self.seed, config["round"]])
        await trio.sleep(float(rng.uniform(0, 0.1)))
        moved = [(0.9 * array + rng.normal(size=array.shape)).astype(array.dtype) for array in model]
        return TrainResult(model=moved, samples=int(rng.integers(1, 1000)))


async def federate(url: str, checkpoint: Path, kills: list[float]) -> tuple[str, dict[str, list[int]]]:
    """A training whose process is killed so many seconds after its first round; what came out."""
    learners = {name: Slow(name) for name in NAMES}
    command = [*PROGRAM, url, str(checkpoint), str(ROUNDS)]

    async def take_part(name: str) -> None:
        backoff = heartline.Backoff(initial=0.05, maximum=0.2)
        await run_learner(url, learners[name], identity=name, reconnect=backoff)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for name in NAMES:
                nursery.start_soon(take_part, name)
            for delay in kills:
                async with trio.open_nursery() as life:
                    process = await life.start(_start, command)
                    assert await process.stdout.receive_some(), "it ended by itself"
                    await trio.sleep(delay)
                    process.kill()
                    await process.wait()
            done = await trio.run_process(command, capture_stdout=True)
            nursery.cancel_scope.cancel()
    return done.stdout.split()[-1].decode(), {name: learner.rounds for name, learner in learners.items()}


async def _start(command: list[str], *, task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(command, stdout=subprocess.PIPE, check=False, task_status=task_status)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, list[int]]]:
    """What comes out of a training in which nobody is killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return trio.run(federate, f"unix://{folder}/socket", folder / "checkpoint", [])


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_the_same_model_after_every_kill(
    kind: str, tmp_path: Path, undisturbed: tuple[str, dict[str, list[int]]]
) -> None:
    url = f"unix://{tmp_path}/socket" if kind == "unix" else f"tcp://127.0.0.1:{free_port()}"
    rng = random.Random(kind)
    kills = [rng.uniform(0, 0.2) for _ in range(KILLS)]
    recovered, trained = await federate(url, tmp_path / "checkpoint", kills)
    final, rounds = undisturbed
    assert len(recovered) == 64
    assert recovered == final
    assert trained == rounds, "the learners stayed alive, so each trained once in a round"
