"""Learners and urls that the federated tests share."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import trio
import trustme

import heartline
from heartline.federated import Aggregation, FedAvg, Learner, Model, Trainer, TrainResult, run_learner
from tests.patience import PATIENCE

URLS = (
    "memory://",
    "tcp://127.0.0.1:0",
    "unix",
    "tls://127.0.0.1:0",
    "ws://127.0.0.1:0",
    "wss://127.0.0.1:0",
)


def model(*values: float) -> Model:
    return [np.array(values, dtype=np.float64)]


class Adder(Learner):
    """Adds a number to every parameter; remembers the versions it was given."""

    def __init__(self, amount: float = 1.0, samples: int = 1) -> None:
        self.amount = amount
        self.samples = samples
        self.versions: list[int] = []
        self.trained: list[float] = []
        """The first parameter of each model that it trained from."""
        self.asked = 0

    def on_model(self, model: Model, version: int) -> None:
        super().on_model(model, version)
        self.versions.append(version)

    def get_model(self) -> Model | None:
        self.asked += 1
        return super().get_model()

    def train(self, model: Model, config: dict[str, Any]) -> Any:
        self.trained.append(float(model[0].flat[0]))
        return TrainResult(
            model=[array + self.amount for array in model],
            samples=self.samples,
            metrics={"amount": self.amount},
        )


class AsyncAdder(Adder):
    """The same without a worker thread, for a mock clock."""

    async def train(self, model: Model, config: dict[str, Any]) -> Any:
        await trio.lowlevel.checkpoint()
        return super().train(model, config)


class Sleeper(AsyncAdder):
    """Takes its time, and knows how it ended."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.cancelled = 0

    async def train(self, model: Any, config: Any) -> Any:
        try:
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return await super().train(model, config)


class Momentum(FedAvg):
    """Averages, and keeps a part of the speed of before; changes its state in place, in every way it can."""

    def __init__(self) -> None:
        self.memory: dict[str, Any] = {"speed": [], "rounds": 0}
        self.restored = 0

    def start_round(self, model: Model, round: int) -> Aggregation:
        mean = super().start_round(model, round)
        memory = self.memory
        if not memory["speed"]:
            memory["speed"] = [np.zeros(array.shape) for array in model]

        class Moving:
            def add(self, learner_id: str, result: TrainResult) -> None:
                mean.add(learner_id, result)

            def finish(self) -> Model:
                memory["rounds"] += 1
                new = []
                for speed, array, average in zip(memory["speed"], model, mean.finish(), strict=True):
                    speed *= 0.9
                    speed += average - array
                    new.append((array + speed).astype(array.dtype))
                return new

        return Moving()

    def state(self) -> Any:
        return self.memory

    def restore(self, state: Any) -> None:
        self.memory = state
        self.restored += 1


@asynccontextmanager
async def open_federation(
    kind: str, tmp_path: Path, **settings: Any
) -> AsyncIterator[tuple[heartline.Server, Any]]:
    """A server on this kind of URL, and ``join(learner, identity)`` that starts a learner on it."""
    url, server_tls, client_tls = kind, None, None
    if kind == "unix":
        url = f"unix://{tmp_path}/socket"
    if kind.startswith(("tls", "wss")):
        authority = trustme.CA()
        server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(server_tls)
        client_tls = ssl.create_default_context()
        authority.configure_trust(client_tls)
    async with (
        heartline.open_server(url, tls=server_tls, **settings) as server,
        trio.open_nursery() as nursery,
    ):

        def join(learner: Learner, identity: str, **more: Any) -> trio.CancelScope:
            scope = trio.CancelScope()

            async def take_part() -> None:
                with scope:
                    await run_learner(server.urls[0], learner, identity=identity, tls=client_tls, **more)

            nursery.start_soon(take_part)
            return scope

        yield server, join
        nursery.cancel_scope.cancel()


async def rounds(trainer: Trainer, count: int) -> list[Any]:
    """The reports of a training."""
    return [report async for report in trainer.run(count)]


async def registered(trainer: Trainer, count: int) -> None:
    """Wait until so many learners are connected and registered."""
    await trainer.start()
    with trio.fail_after(PATIENCE):
        while len(trainer.learners) < count:
            await trio.sleep(0.01)
