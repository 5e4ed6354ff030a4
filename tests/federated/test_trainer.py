"""Rounds under a mock clock: deadlines, minimum, sampling, bad learners, checkpoints."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline.federated import Learner, Trainer, TrainResult, run_learner
from tests.federated.helpers import Adder, AsyncAdder, Sleeper, model, open_federation, registered, rounds


async def test_a_round_goes_on_without_the_late(autojump_clock: MockClock, tmp_path: Path) -> None:
    slow = Sleeper(100)
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0), minimum=1, round_timeout=5.0)
        join(AsyncAdder(), "quick")
        join(slow, "slow")
        await registered(trainer, 2)
        start = trio.current_time()
        report = await trainer.train_round()
        assert trio.current_time() - start == pytest.approx(5.0, abs=0.1)
        assert set(report.samples) == {"quick"}
        assert report.dropped == {"slow": "no result within 5 s (round_timeout)"}
        assert slow.cancelled == 1, "the learner was told to stop"
        assert trainer.model[0].tolist() == [1.0]


async def test_a_round_with_too_few_results_is_tried_again(autojump_clock: MockClock, tmp_path: Path) -> None:
    class Moody(AsyncAdder):
        async def train(self, model: Any, config: Any) -> Any:
            self.asked += 1
            if self.asked == 1:
                raise RuntimeError("not in the mood")
            return await super().train(model, config)

    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0), minimum=2)
        join(AsyncAdder(), "a")
        join(Moody(), "b")
        reports = await rounds(trainer, 1)
        assert [report.round for report in reports] == [1, 1]
        assert reports[0].receipt is None
        assert "not in the mood" in reports[0].dropped["b"]
        assert trainer.version == 1


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (TrainResult(model=[np.array([np.nan])], samples=1), "finite"),
        (TrainResult(model=[np.zeros(2)], samples=1), "shape"),
        (TrainResult(model=[], samples=1), "1"),
        ("nonsense", "must return a TrainResult, not a str"),
    ],
)
async def test_a_bad_result_hurts_nobody(
    returned: Any, reason: str, autojump_clock: MockClock, tmp_path: Path
) -> None:
    class Bad(Learner):
        async def train(self, model: Any, config: Any) -> Any:
            return returned

    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0), minimum=1)
        join(AsyncAdder(), "good")
        join(Bad(), "bad")
        await registered(trainer, 2)
        report = await trainer.train_round()
        assert set(report.samples) == {"good"}
        assert reason in report.dropped["bad"]
        assert trainer.model[0].tolist() == [1.0]
        assert set(trainer.learners) == {"good", "bad"}, "its connection lives on"


async def test_cohorts_are_sampled_by_the_seed(autojump_clock: MockClock, tmp_path: Path) -> None:
    async def cohorts(seed: int) -> list[tuple[str, ...]]:
        async with open_federation("memory://", tmp_path) as (server, join):
            trainer = Trainer(server, model(0.0), cohort=0.5, minimum=1, seed=seed)
            for index in range(6):
                join(AsyncAdder(), f"learner {index}")
            await registered(trainer, 6)
            return [report.cohort for report in await rounds(trainer, 8)]

    first = await cohorts(1)
    assert all(len(set(cohort)) == 3 for cohort in first)
    assert len(set(first)) > 1
    assert await cohorts(1) == first
    assert await cohorts(2) != first


async def test_the_config_reaches_the_learners(autojump_clock: MockClock, tmp_path: Path) -> None:
    class Curious(AsyncAdder):
        seen: Any = ()

        async def train(self, model: Any, config: Any) -> Any:
            self.seen = (*self.seen, config["rate"])
            return await super().train(model, config)

    curious = Curious()
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0), config=lambda number: {"rate": 1 / number})
        join(curious, "a")
        await rounds(trainer, 2)
    assert curious.seen == (1.0, 0.5)


async def test_training_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    async def train(count: int, checkpoint: Path | None) -> tuple[list[float], list[tuple[str, ...]], Adder]:
        learners = [AsyncAdder(float(index)) for index in range(5)]
        async with open_federation("memory://", tmp_path) as (server, join):
            trainer = Trainer(server, model(0.0, 1.0), cohort=2, minimum=2, checkpoint=checkpoint, seed=7)
            for index, learner in enumerate(learners):
                join(learner, f"{index}")
            await registered(trainer, 5)
            reports = await rounds(trainer, count)
            assert trainer.version == count
            return trainer.model[0].tolist(), [report.cohort for report in reports], learners[0]

    undisturbed, cohorts, _ = await train(6, None)
    file = tmp_path / "checkpoint"
    _, before, _ = await train(2, file)
    resumed, after, learner = await train(6, file)
    assert resumed == undisturbed
    assert before + after == cohorts
    assert learner.versions[0] == 2, "the loaded model is pushed before the first round"


async def test_a_learner_waits_for_its_server(autojump_clock: MockClock) -> None:
    learner = AsyncAdder()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run_learner("memory://later", learner, patience=30, rng=random.Random(1)))
        await trio.sleep(12)
        async with heartline.open_server("memory://later") as server:
            trainer = Trainer(server, model(0.0))
            await rounds(trainer, 2)
            await trainer.finish()
    assert learner.versions[0] == 0
    assert learner.versions[-1] == 2, "the last push may have overtaken the one before: same model"


async def test_a_learner_gives_up_after_its_patience(autojump_clock: MockClock) -> None:
    with pytest.raises(heartline.ConnectionFailed):
        await run_learner("memory://nowhere", AsyncAdder(), patience=30, rng=random.Random(1))
    assert 30 <= trio.current_time() < 32


async def test_a_learner_that_is_not_let_in_ends_at_once(autojump_clock: MockClock) -> None:
    def authenticate(peer: heartline.Peer) -> None:
        raise PermissionError("members only")

    async with heartline.open_server("memory://", authenticate=authenticate) as server:
        with pytest.raises(heartline.ConnectionRefusedByPeer, match="members only"):
            await run_learner(server.urls[0], AsyncAdder(), patience=30)


@pytest.mark.slow
async def test_heartbeats_go_on_while_a_learner_computes(tmp_path: Path) -> None:
    """Real time, because a worker thread computes in real time."""
    import time

    class Busy(Adder):
        def train(self, model: Any, config: Any) -> Any:
            time.sleep(0.6)
            return super().train(model, config)

    heartbeat = heartline.Heartbeat(interval=0.1, timeout=0.3)
    async with open_federation("tcp://127.0.0.1:0", tmp_path, heartbeat=heartbeat) as (server, join):
        trainer = Trainer(server, model(0.0))
        join(Busy(), "busy", heartbeat=heartbeat)
        report = (await rounds(trainer, 1))[0]
        assert set(report.samples) == {"busy"}
        assert server.statistics().accepted == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cohort", 0),
        ("cohort", 0.0),
        ("cohort", 1.5),
        ("minimum", 0),
        ("patience", 0),
        ("patience", float("inf")),
        ("round_timeout", 0),
    ],
)
async def test_settings_are_checked_when_they_are_made(
    setting: str, value: float, autojump_clock: MockClock
) -> None:
    async with heartline.open_server("memory://") as server:
        with pytest.raises(heartline.ConfigurationError, match=setting):
            Trainer(server, model(0.0), **{setting: value})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="list of numpy arrays"):
            Trainer(server, "weights")  # type: ignore[arg-type]
