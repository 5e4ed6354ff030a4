"""What learners measure, in the report: means by samples, and evaluations of the new model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline.federated import Evaluation, LearnerStub, Model, Order, Trainer, TrainResult
from heartline.federated._report import merge
from tests.federated.helpers import AsyncAdder, model, open_federation, registered, rounds

VALUES = st.floats(-1e300, 1e300)
RESULTS = st.dictionaries(
    st.text("abc", min_size=1),
    st.builds(
        Evaluation,
        samples=st.integers(1, 2**53),
        metrics=st.dictionaries(
            st.sampled_from(["loss", "accuracy"]), VALUES | st.sampled_from([math.nan, math.inf])
        ),
    ),
)


@given(RESULTS, st.randoms(use_true_random=False))
def test_means_are_weighted_by_samples(results: dict[str, Evaluation], rng: Any) -> None:
    samples, means = merge(results)
    assert samples == min(2**53, sum(result.samples for result in results.values()))
    for name in ("loss", "accuracy"):
        given_by = [
            (result.metrics[name], result.samples)
            for result in results.values()
            if math.isfinite(result.metrics.get(name, math.nan))
        ]
        if not given_by:
            assert name not in means
            continue
        values, weights = zip(*given_by, strict=True)
        scale = max(abs(value) for value in values)
        expected = np.average([value / (scale or 1) for value in values], weights=weights)
        assert means[name] == pytest.approx(expected * scale, rel=1e-9, abs=1e-9 * scale)
    shuffled = list(results.items())
    rng.shuffle(shuffled)
    assert merge(dict(shuffled)) == (samples, means), "to the bit"


class Measuring(AsyncAdder):
    def __init__(self, value: float, samples: int) -> None:
        super().__init__(value, samples)
        self.evaluated: list[tuple[float, Any]] = []

    async def train(self, model: Model, config: Any) -> TrainResult:
        await trio.lowlevel.checkpoint()
        trained: Any = {"loss": np.float32(self.amount), "steps": 3, f"own {self.samples}": True}
        return TrainResult(model=model, samples=self.samples, metrics=trained)

    async def evaluate(self, model: Model, config: Any) -> Evaluation:
        await trio.lowlevel.checkpoint()
        self.evaluated.append((float(model[0][0]), config))
        return Evaluation(samples=10 * self.samples, metrics={"accuracy": self.amount / 10})


async def test_the_report_has_the_means_and_what_each_learner_measured(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0), minimum=2)
        join(Measuring(1.0, 1), "a")
        join(Measuring(4.0, 3), "b")
        (report,) = await rounds(trainer, 1)
    assert report.metrics == {"loss": 3.25, "steps": 3.0, "own 1": 1.0, "own 3": 1.0}
    assert report.learner_metrics == {
        "a": {"loss": 1.0, "steps": 3.0, "own 1": 1.0},
        "b": {"loss": 4.0, "steps": 3.0, "own 3": 1.0},
    }
    assert (report.evaluation, report.evaluations) == (None, {}), "nobody asked for it"


async def test_the_new_model_is_evaluated_by_those_who_can(autojump_clock: MockClock, tmp_path: Path) -> None:
    """All that are there, not the cohort alone; one that fails or cannot is not in it, and costs nothing."""

    class Failing(AsyncAdder):
        async def evaluate(self, model: Model, config: Any) -> Evaluation:
            raise RuntimeError("no test data")

    class Bragging(AsyncAdder):
        async def evaluate(self, model: Model, config: Any) -> Evaluation:
            return Evaluation(samples=2**53, metrics={"accuracy": 1.0})

    class Silent(AsyncAdder):
        async def evaluate(self, model: Model, config: Any) -> Evaluation:
            await trio.sleep_forever()
            raise AssertionError

    learners = {
        "a": Measuring(1.0, 1),
        "b": Measuring(4.0, 3),
        "bragging": Bragging(),
        "failing": Failing(),
        "plain": AsyncAdder(),
        "silent": Silent(),
    }
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(
            server,
            model(0.0),
            cohort=1,
            minimum=1,
            evaluate_every=2,
            round_timeout=30,
            config=lambda number, name: {"round": number, "of": name},
        )
        for name, learner in learners.items():
            join(learner, name)
        await registered(trainer, len(learners))
        reports = await rounds(trainer, 4)
        assert [report.evaluation is not None for report in reports] == [False, True, False, True]
        for report in reports[1::2]:
            assert len(report.cohort) == 1
            assert report.evaluations == {
                "a": Evaluation(samples=10, metrics={"accuracy": 0.1}),
                "b": Evaluation(samples=30, metrics={"accuracy": 0.4}),
            }
            assert report.evaluation is not None
            assert report.evaluation.samples == 40
            assert report.evaluation.metrics == {"accuracy": pytest.approx(0.325)}
            assert report.dropped == {}
        for name in "ab":
            seen = learners[name].evaluated  # type: ignore[attr-defined]
            assert [config for _, config in seen] == [{"round": n, "of": name} for n in (2, 4)]
            assert seen[1][0] == trainer.model[0][0], "the model after the round"


async def test_nobody_can(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_federation("memory://", tmp_path) as (server, join):
        join(AsyncAdder(), "a")
        report = await Trainer(server, model(0.0), evaluate_every=1).train_round()
        assert (report.evaluation, report.evaluations) == (None, {})


async def test_a_learner_of_another_make_may_not_know_the_question(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    @heartline.service(name="Learner")
    class Other:
        async def train(self, order: Order) -> TrainResult:
            return TrainResult(model=[np.ones(1)], samples=1)

    async with open_federation("memory://", tmp_path) as (server, _):
        trainer = Trainer(server, model(0.0), evaluate_every=1)
        async with (
            heartline.open_connection(server.urls[0], identity="other", services=[Other()]) as connection,
            connection.subscribe("model_learners"),
        ):
            report = await trainer.train_round()
            assert (report.samples, report.evaluations) == ({"other": 1}, {})


@pytest.mark.parametrize("setting", ["evaluate_every", "max_samples", "max_failures"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, float("nan")])
async def test_counts_are_checked_where_they_are_given(setting: str, value: Any) -> None:
    settings: dict[str, Any] = {setting: value}
    async with heartline.open_server("memory://") as server:
        with pytest.raises(heartline.ConfigurationError, match=f"{setting} must be an int"):
            Trainer(server, model(0.0), **settings)


async def test_an_async_method_behind_a_decorator(nursery: trio.Nursery) -> None:
    """It looks like a sync one, and is awaited all the same."""

    def plain(function: Any) -> Any:
        return lambda *args: function(*args)

    class Decorated(AsyncAdder):
        train = plain(AsyncAdder.train)

    from tests.federated.test_stub import order, push

    stub = LearnerStub(Decorated(), None, nursery)
    stub.receive(push(0, 0.0))
    assert (await stub.train(order("a"))).model[0].tolist() == [1.0]
