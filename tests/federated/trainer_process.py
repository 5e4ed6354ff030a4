"""A trainer as a process of its own, to be killed: ``trainer_process.py URL CHECKPOINT ROUNDS``.

Prints a line for each round, and at the end the SHA-256 of the model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import trio

import heartline
from heartline.federated import Trainer
from tests.federated.helpers import Momentum
from tests.federated.test_recovery import NAMES, digest


async def main(url: str, checkpoint: str, rounds: int) -> None:
    async with heartline.open_server(url) as server:
        trainer = Trainer(
            server,
            [np.linspace(0, 1, 1000, dtype=np.float32)],
            strategy=Momentum(),
            cohort=3,
            minimum=3,
            config=lambda number: {"round": number},
            checkpoint=Path(checkpoint),
            seed=5,
        )
        await trainer.start()
        while trainer.version == 0 and len(trainer.learners) < len(NAMES):
            await trio.sleep(0.01)
        async for report in trainer.run(rounds):
            print("round", report.round, flush=True)
        await trainer.finish()
        print("model", digest(trainer.model), flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
