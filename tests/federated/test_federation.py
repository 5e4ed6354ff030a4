"""The same federation on every transport: what a trainer and its learners say does not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline.federated import LEARNERS_TOPIC, Evaluation, Model, Trainer, TrainResult, run_learner
from tests.engine import link_of
from tests.federated.helpers import URLS, Adder, model, open_federation, rounds
from tests.patience import PATIENCE

on_every_transport = pytest.mark.parametrize("kind", URLS)


@on_every_transport
async def test_a_training(kind: str, tmp_path: Path) -> None:
    learners = {"a": Adder(1.0, samples=1), "b": Adder(2.0, samples=3), "c": Adder(-1.0, samples=4)}
    async with open_federation(kind, tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0, 10.0), minimum=3)
        for name, learner in learners.items():
            join(learner, name)
        reports = await rounds(trainer, 4)
        with trio.fail_after(PATIENCE):
            receipt = await trainer.finish()
        step = (1 * 1.0 + 3 * 2.0 + 4 * -1.0) / 8
        np.testing.assert_allclose(trainer.model[0], [4 * step, 10 + 4 * step], rtol=1e-12)
        assert [report.round for report in reports] == [1, 2, 3, 4]
        assert all(set(report.samples) == set(learners) for report in reports)
        assert reports[0].learner_metrics["b"] == {"amount": 2.0}
        assert receipt.confirmed == set(learners)
        assert server.statistics().accepted == 3, "one connection per learner for the whole run"
    for learner in learners.values():
        assert learner.versions[0] == 0
        assert learner.versions[-1] == 4
        assert learner.versions == sorted(learner.versions)
        assert learner.asked == 0, "nobody polled for the model"
        assert learner.model is not None
        np.testing.assert_array_equal(learner.model[0], trainer.model[0])


@on_every_transport
async def test_a_lost_learner_is_left_out_and_catches_up(kind: str, tmp_path: Path) -> None:
    async with open_federation(kind, tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0), minimum=1)
        steady, lost = Adder(), Adder()
        join(steady, "steady")
        join(lost, "lost")
        await _registered(server, 2)
        await trainer.train_round()
        await link_of(server.connections["lost"]).stream.aclose()
        report = await trainer.train_round()
        assert "steady" in report.samples
        await _registered(server, 2)
        report = await trainer.train_round()
        assert set(report.samples) == {"steady", "lost"}
        assert server.connections["lost"].id == "lost"
        assert lost.versions == sorted(set(lost.versions))


@on_every_transport
async def test_a_late_learner_gets_the_current_model_at_once(kind: str, tmp_path: Path) -> None:
    async with open_federation(kind, tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0))
        join(Adder(), "first")
        await rounds(trainer, 3)
        late = Adder()
        join(late, "late")
        await _registered(server, 2)
        while not late.versions:
            await trio.sleep(0.005)
        assert late.versions == [3]


@on_every_transport
async def test_the_proxy_is_the_learner(kind: str, tmp_path: Path) -> None:
    class Evaluated(Adder):
        def evaluate(self, model: Model, config: dict[str, Any]) -> Evaluation:
            return Evaluation(samples=7, metrics={"mean": float(model[0].mean())})

    async with open_federation(kind, tmp_path) as (server, join):
        trainer = Trainer(server, model(3.0))
        await trainer.start()
        join(Evaluated(), "a")
        await _registered(server, 1)
        proxy = trainer.learners["a"]
        evaluation = await proxy.evaluate()
        assert (evaluation.samples, evaluation.metrics) == (7, {"mean": 3.0})
        result = await proxy.train({"epochs": 1})
        assert isinstance(result, TrainResult)
        assert result.model is not None
        assert result.model[0].tolist() == [4.0]
        latest = await proxy.get_model()
        assert latest is not None
        assert latest[0].tolist() == [3.0]
        pushed = []
        proxy.on_push(lambda model, version: pushed.append(version))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trainer.train_round)
            waited, version = await proxy.wait_model()
        assert (waited[0].tolist(), version, pushed) == ([4.0], 1, [1])


class AsyncCallback(Adder):
    async def on_model(self, model: Model, version: int) -> None:  # type: ignore[override]
        """Nobody would await it."""


class AsyncGetter(Adder):
    async def get_model(self) -> Model | None:  # type: ignore[override]
        """Nobody would await it."""


async def coroutine(model: Model, version: int) -> None:
    """Nobody would await it."""


@pytest.mark.parametrize(
    ("learner", "on_push", "message"),
    [
        (AsyncCallback(), None, "learner.on_model must be a sync function"),
        (AsyncGetter(), None, "learner.get_model must be a sync function"),
        (Adder(), coroutine, "on_push must be a sync function"),
        (Adder(), 3, "on_push must be callable, not 3"),
        (Adder(), lambda model: None, r"on_push must be a function of \(model, version\)"),
    ],
)
async def test_what_cannot_be_called_is_refused_before_it_connects(
    learner: Adder, on_push: Any, message: str, autojump_clock: MockClock
) -> None:
    async with heartline.open_server("memory://") as server:
        with pytest.raises(heartline.ConfigurationError, match=message), trio.fail_after(1):
            await run_learner(server.urls[0], learner, on_push=on_push)
        assert not server.statistics().accepted


async def _registered(server: heartline.Server, count: int) -> None:
    with trio.fail_after(PATIENCE):
        while len(server.subscribers(LEARNERS_TOPIC)) < count:
            await trio.sleep(0.005)
