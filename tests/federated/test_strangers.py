"""Peers that are no learners, or bad ones: what they can do to a training is bounded."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline.federated import LEARNERS_TOPIC, MODEL_TOPIC, Learner, Trainer, TrainResult, run_learner
from heartline.observe import Operation
from tests.federated.crashes import cut_off
from tests.federated.helpers import AsyncAdder, Sleeper, model, open_federation, registered, rounds


async def test_who_follows_the_model_is_no_learner(autojump_clock: MockClock, tmp_path: Path) -> None:
    seen = []
    async with open_federation("memory://", tmp_path) as (server, join), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def follow() -> None:
            async with (
                heartline.open_connection(server.urls[0], identity="dashboard") as connection,
                connection.subscribe(MODEL_TOPIC, since="newest", policy="keep newest") as updates,
            ):
                async for update in updates:
                    assert isinstance(update, heartline.Update)
                    seen.append(update.value["version"])

        trainer = Trainer(server, model(0.0))
        join(AsyncAdder(), "a")
        await registered(trainer, 1)
        await trio.sleep(1)
        for report in await rounds(trainer, 3):
            assert (report.cohort, report.dropped) == (("a",), {})
        await trio.sleep(1)
        assert seen[-1] == 3
        nursery.cancel_scope.cancel()


async def test_who_may_be_a_learner_is_for_the_server_to_say(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def only_members(operation: Operation, proceed: Any) -> Any:
        if operation.kind == "subscribe" and operation.name == LEARNERS_TOPIC:
            raise PermissionError("members only")
        return await proceed()

    async with heartline.open_server("memory://", middleware=[only_members]) as server:
        with pytest.raises(heartline.Forbidden, match="members only"):
            await run_learner(server.urls[0], AsyncAdder(), identity="stranger")


async def test_who_is_registered_and_offers_nothing_is_left_out(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0))
        join(AsyncAdder(), "good")
        async with (
            heartline.open_connection(server.urls[0], identity="bad") as connection,
            connection.subscribe(LEARNERS_TOPIC),
        ):
            await registered(trainer, 2)
            report = await trainer.train_round()
            assert report.samples == {"good": 1}
            assert "Learner.train" in report.dropped["bad"]


@pytest.mark.slow
async def test_a_learner_that_never_answers_does_not_stall_the_training(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    class Never(Learner):
        async def train(self, model: Any, config: Any) -> Any:
            await trio.sleep_forever()

    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0))
        join(AsyncAdder(), "good")
        join(Never(), "never")
        await registered(trainer, 2)
        with trio.fail_after(4000):
            report = await trainer.train_round()
        assert report.samples == {"good": 1}
        assert report.dropped == {"never": "no result within 3600 s (round_timeout)"}


@pytest.mark.parametrize(("settings", "most"), [({}, 10**9), ({"max_samples": 50}, 50)])
async def test_a_made_up_number_of_samples_does_not_decide(
    settings: dict[str, int], most: int, autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0), minimum=2, **settings)  # type: ignore[arg-type]
        join(AsyncAdder(1.0, samples=most), "most")
        join(AsyncAdder(2.0, samples=10), "good")
        join(AsyncAdder(1000.0, samples=most + 1), "above")
        join(AsyncAdder(1000.0, samples=2**53), "far above")
        await registered(trainer, 4)
        report = await trainer.train_round()
        assert set(report.samples) == {"most", "good"}
        for name, samples in {"above": most + 1, "far above": 2**53}.items():
            assert report.dropped[name] == (
                f"result of learner {name!r} rejected: samples must be at most {most} (max_samples), "
                f"got {samples}"
            )
        assert trainer.model[0][0] < 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
async def test_a_model_that_is_not_finite_is_not_begun_with(value: float) -> None:
    async with heartline.open_server("memory://") as server:
        with pytest.raises(ValueError, match=r"model\[0\] must be finite, got values from"):
            Trainer(server, model(0.0, value))


async def test_the_texts_of_a_learner_stay_in_their_line(autojump_clock: MockClock, tmp_path: Path) -> None:
    class Loud(AsyncAdder):
        async def train(self, model: Any, config: Any) -> Any:
            raise RuntimeError("\x1b[2J\nround 1: all is well\n" + "x" * 100_000)

    @heartline.service(name="Learner")
    class Forging:
        async def train(self, order: Any) -> Any:
            return {"model": [np.ones(1)], "samples": 1, "metrics": {"a\nb\x1b[31m": 1.0}}

    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0))
        join(AsyncAdder(), "good")
        join(Loud(), "loud")
        async with (
            heartline.open_connection(server.urls[0], identity="forging", services=[Forging()]) as connection,
            connection.subscribe(LEARNERS_TOPIC),
        ):
            await registered(trainer, 3)
            report = await trainer.train_round()
    assert set(report.samples) == {"good"}
    assert all(reason.isprintable() and len(reason) <= 1024 for reason in report.dropped.values())
    assert "\\x1b[2J\\nround 1" in report.dropped["loud"]
    assert "name in metrics" in report.dropped["forging"]


async def test_a_learner_counts_once_however_often_it_is_there(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Registered twice on one connection; as two connections of one identity; over churn."""
    learner = AsyncAdder()
    async with open_federation("memory://", tmp_path) as (server, join), trio.open_nursery() as nursery:
        trainer = Trainer(server, model(0.0))

        @nursery.start_soon
        async def twice() -> None:
            @heartline.service(name="Learner")
            class Other:
                async def train(self, order: Any) -> TrainResult:
                    return TrainResult(model=[np.full(1, 10.0)], samples=1)

            async with heartline.open_connection(
                server.urls[0], identity="twice", services=[Other()]
            ) as connection:
                async with connection.subscribe(LEARNERS_TOPIC):
                    async with connection.subscribe(LEARNERS_TOPIC):
                        await trio.sleep(100)
                    await trio.sleep(100)
                await trio.sleep(100)

        join(learner, "a")
        await registered(trainer, 2)
        assert (await trainer.train_round()).samples == {"a": 1, "twice": 1}
        await trio.sleep(100)
        assert (await trainer.train_round()).samples == {"a": 1, "twice": 1}
        await trio.sleep(100)
        assert "twice" not in trainer.learners, "it is connected, and no learner any more"
        nursery.cancel_scope.cancel()


async def test_another_process_of_the_same_identity_takes_the_order(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    first, second = Sleeper(50), Sleeper(5)
    async with open_federation("memory://", tmp_path) as (server, join), trio.open_nursery() as nursery:
        trainer = Trainer(server, model(0.0))
        process = join(first, "a")
        await registered(trainer, 1)
        nursery.start_soon(rounds, trainer, 1)
        await trio.sleep(10)
        cut_off(server)
        process.cancel()
        join(second, "a")
        await trio.sleep(20)
        assert trainer.version == 1
        assert (len(first.trained), len(second.trained)) == (0, 1)


@pytest.mark.slow
async def test_churn(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Learners come, go without a word, and come back, in the middle of rounds: nothing is left of them."""
    rng = random.Random(7)
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0), patience=2.0, rng=rng)
        join(AsyncAdder(), "steady")
        await registered(trainer, 1)
        for number in range(15):
            process = join(Sleeper(rng.uniform(0, 3)), f"{number % 3}")
            await trio.sleep(rng.uniform(0, 1))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trainer.train_round)
                await trio.sleep(rng.uniform(0, 2))
                if rng.random() < 0.5:
                    cut_off(server)
                process.cancel()
        assert trainer.version == 15
        await trio.sleep(200)
        assert set(trainer.learners) == {"steady"}
        assert (await trainer.train_round()).dropped == {}
