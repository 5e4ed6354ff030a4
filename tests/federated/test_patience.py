"""Who is waited for, and how long: life on a connection counts, not the time that training takes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline.federated import RoundReport, Trainer
from tests.engine import link_of
from tests.federated.crashes import cut_off
from tests.federated.helpers import AsyncAdder, Sleeper, model, open_federation, registered


async def after(seconds: float, function: Any, *args: Any) -> None:
    await trio.sleep(seconds)
    function(*args)


async def test_a_long_silent_training_is_not_a_dead_learner(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0), patience=2.0)
        join(Sleeper(300), "thorough")
        report = await trainer.train_round()
        assert set(report.samples) == {"thorough"}
        assert report.seconds == pytest.approx(300, abs=1)


async def test_a_blip_does_not_cost_the_place_in_the_round(autojump_clock: MockClock, tmp_path: Path) -> None:
    learner = Sleeper(60)
    async with open_federation("memory://", tmp_path) as (server, join), trio.open_nursery() as nursery:
        trainer = Trainer(server, model(0.0), patience=10.0)
        join(learner, "a")
        for moment in (5, 20, 21, 40):
            nursery.start_soon(after, moment, cut_off, server)
        report = await trainer.train_round()
        assert (report.samples, report.dropped) == ({"a": 1}, {})
        assert len(learner.trained) == 1
        assert learner.cancelled == 0
        assert report.seconds == pytest.approx(60, abs=5), "the work went on without a link"


async def test_a_result_that_was_lost_on_its_way_is_sent_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    class Unlucky(AsyncAdder):
        async def train(self, model: Any, config: Any) -> Any:
            cut_off(server)
            return await super().train(model, config)

    learner = Unlucky()
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0))
        join(learner, "a")
        report = await trainer.train_round()
        assert report.samples == {"a": 1}
        assert len(learner.trained) == 1


async def test_who_is_away_for_too_long_is_left_out(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_federation("memory://", tmp_path) as (server, join), trio.open_nursery() as nursery:
        trainer = Trainer(server, model(0.0), patience=10.0)
        join(Sleeper(100), "steady")
        gone = join(Sleeper(100), "gone")
        await registered(trainer, 2)
        nursery.start_soon(after, 30, gone.cancel)
        reports: list[RoundReport] = []
        seen = {}

        @nursery.start_soon
        async def watch() -> None:
            for moment in (29, 35, 60):
                await trio.sleep_until(trio.current_time() - trio.current_time() % 1000 + moment)
                seen[moment] = trainer.statistics()

        reports.append(await trainer.train_round())
        assert reports[0].dropped == {"gone": "its connection was away for 10 s (patience)"}
        assert set(reports[0].samples) == {"steady"}
        assert seen[29].waiting.keys() == seen[35].waiting.keys() == {"steady", "gone"}
        assert all(silence <= 11 for silence in seen[29].waiting.values()), "a heartbeat's interval"
        assert seen[35].waiting["gone"] == pytest.approx(5, abs=1)
        assert seen[60].waiting.keys() == {"steady"}
        assert seen[60].dropped.keys() == {"gone"}
        assert (seen[60].version, seen[60].round, seen[60].cohort) == (0, 1, ("gone", "steady"))
        assert seen[60].seconds == pytest.approx(60, abs=1)
        start = trio.current_time()
        await trainer.train_round()
        assert trio.current_time() - start == pytest.approx(100, abs=0.5), "nobody waits for it any more"
    idle = trainer.statistics()
    assert (idle.version, idle.round, idle.cohort, idle.waiting, idle.seconds) == (2, None, (), {}, 0.0)


async def test_a_learner_that_is_started_again_is_asked_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    first, second = Sleeper(100), Sleeper(100)
    async with open_federation("memory://", tmp_path) as (server, join), trio.open_nursery() as nursery:
        trainer = Trainer(server, model(0.0), patience=10.0)
        process = join(first, "a")
        nursery.start_soon(after, 50, process.cancel)
        nursery.start_soon(after, 55, join, second, "a")
        report = await trainer.train_round()
        assert report.samples == {"a": 1}
        assert (first.cancelled, len(first.trained), len(second.trained)) == (1, 0, 1)
        assert report.seconds == pytest.approx(155, abs=1)


async def test_who_is_just_reconnecting_has_its_place_in_the_draw(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0))
        for name in "abc":
            join(AsyncAdder(), name)
        await registered(trainer, 3)
        for _ in range(3):
            assert set((await trainer.train_round()).samples) == {"a", "b", "c"}
            cut_off(server)
            while len(trainer.learners) == 3:
                await trio.sleep(0.001)


async def test_the_end_waits_for_who_is_just_reconnecting(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0))
        join(AsyncAdder(), "a")
        await trainer.train_round()
        cut_off(server)
        while trainer.learners:
            await trio.sleep(0.001)
        assert (await trainer.finish()).confirmed == {"a"}


async def test_an_order_goes_only_to_who_is_registered(autojump_clock: MockClock, tmp_path: Path) -> None:
    """A connection without the learner's subscription is none of a learner, whatever its identity."""
    async with open_federation("memory://", tmp_path) as (server, join), trio.open_nursery() as nursery:
        trainer = Trainer(server, model(0.0), patience=10.0)
        process = join(Sleeper(50), "a")
        join(AsyncAdder(), "b")
        await registered(trainer, 2)
        nursery.start_soon(after, 20, process.cancel)

        @nursery.start_soon
        async def come_as_something_else() -> None:
            await trio.sleep(21)
            async with heartline.open_connection(server.urls[0], identity="a"):
                await trio.sleep(15)

        report = await trainer.train_round()
        assert report.dropped == {"a": "its connection was away for 10 s (patience)"}


@pytest.mark.slow
async def test_work_that_nobody_waits_for_makes_room(autojump_clock: MockClock, tmp_path: Path) -> None:
    """The learner is back when its round is over: the next order does not wait for the work of that one."""
    learner = Sleeper(1000)
    async with open_federation("memory://", tmp_path) as (server, join), trio.open_nursery() as nursery:
        trainer = Trainer(server, model(0.0), patience=1.0)
        join(AsyncAdder(), "steady")
        far = {"reconnect": heartline.Backoff(initial=100, maximum=100), "rng": random.Random(1)}
        join(learner, "far", limits=heartline.Limits(resume_window=0), **far)
        await registered(trainer, 2)
        nursery.start_soon(after, 1, link_of(server.connections["far"]).stream.close)  # type: ignore[attr-defined]
        report = await trainer.train_round()
        assert report.dropped.keys() == {"far"}
        with trio.fail_after(100):
            while len(trainer.learners) < 2:
                await trio.sleep(0.1)
        assert learner.cancelled == 0
        report = await trainer.train_round()
        assert set(report.samples) == {"far", "steady"}
        assert learner.cancelled == 1
        assert learner.trained == [1.0]
        assert report.seconds == pytest.approx(1000, abs=1)


async def test_the_work_ends_with_the_learner(autojump_clock: MockClock, tmp_path: Path) -> None:
    learner = Sleeper(1000)
    async with open_federation("memory://", tmp_path) as (server, join), trio.open_nursery() as nursery:
        trainer = Trainer(server, model(0.0))
        process = join(learner, "a")
        nursery.start_soon(trainer.train_round)
        await trio.sleep(10)
        cut_off(server)
        await trio.sleep(0.001)
        assert learner.cancelled == 0
        process.cancel()
        await trio.sleep(0.001)
        assert learner.cancelled == 1
        nursery.cancel_scope.cancel()
