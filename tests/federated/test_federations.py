"""Federations of one server: side by side by their names, and one training after the other in each."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline.federated import LEARNERS_TOPIC, MODEL_TOPIC, Trainer, run_learner
from tests.federated.crashes import cut_off
from tests.federated.helpers import AsyncAdder, Sleeper, model, open_federation, registered, rounds
from tests.few_examples import few_examples

FEDERATIONS = ("default", "ward", "bank")


async def train(trainer: Trainer, count: int) -> None:
    await rounds(trainer, count)
    await trainer.finish()


@pytest.mark.slow
@given(st.permutations(range(3)), st.lists(st.integers(1, 3), min_size=3, max_size=3))
@few_examples
def test_side_by_side(order: list[int], counts: list[int]) -> None:
    """Each has its own learners, versions and end, whatever the others do; models of any shapes."""
    learners = {
        (federation, name): Sleeper(delay)
        for (federation, delay), name in itertools.product(
            zip(FEDERATIONS, (0.3, 0.1, 0.5), strict=True), "ab"
        )
    }

    async def main() -> None:
        async with heartline.open_server("memory://") as server, trio.open_nursery() as nursery:
            for (federation, name), learner in learners.items():
                identity = f"{federation} {name}"
                part = partial(run_learner, learner=learner, federation=federation, identity=identity)
                nursery.start_soon(part, server.urls[0])
            for index in order:
                values = [float(index)] * (index + 1)
                trainer = Trainer(server, model(*values), federation=FEDERATIONS[index], minimum=2)
                nursery.start_soon(train, trainer, counts[index])

    trio.run(main, clock=MockClock(autojump_threshold=0))
    for (federation, _), learner in learners.items():
        index = FEDERATIONS.index(federation)
        expected = [float(index + number) for number in range(counts[index])]
        assert learner.trained == expected, "and never from a model of another federation"
        assert learner.model is not None
        assert learner.model[0].tolist() == [float(index + counts[index])] * (index + 1)


async def test_one_after_the_other(autojump_clock: MockClock, tmp_path: Path) -> None:
    """The learner of the next training may be there before its trainer, and before or after the last end."""
    ended: list[int] = []

    async with open_federation("memory://", tmp_path) as (server, _), trio.open_nursery() as nursery:

        async def take_part(number: int, learner: AsyncAdder) -> None:
            await run_learner(server.urls[0], learner, identity="the same at every start")
            ended.append(number)

        for number in range(3):
            learner = AsyncAdder()
            nursery.start_soon(take_part, number, learner)
            await trio.sleep(1)
            assert ended == list(range(number)), "what ended the last training does not end this learner"
            trainer = Trainer(server, model(*[0.0] * (number + 1)))
            await train(trainer, 2)
            await trio.sleep(1)
            assert ended == list(range(number + 1))
            assert learner.trained == [0.0, 1.0]


async def test_who_took_part_and_was_away_at_the_end_ends_too(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    away, ended = AsyncAdder(), []
    async with open_federation("memory://", tmp_path) as (server, join), trio.open_nursery() as nursery:
        far = heartline.Backoff(initial=100, maximum=100)

        @nursery.start_soon
        async def take_part() -> None:
            limits = heartline.Limits(resume_window=0)
            await run_learner(server.urls[0], away, identity="away", reconnect=far, limits=limits)
            ended.append(True)

        trainer = Trainer(server, model(0.0))
        join(AsyncAdder(), "steady")
        await registered(trainer, 2)
        await trainer.train_round()
        cut_off(server)
        await trainer.finish(timeout=0)
        late = AsyncAdder()
        join(late, "late")
        await trio.sleep(200)
        assert ended == [True]
        assert (away.versions[-1], late.versions) == (1, []), "who comes for the first time waits"
        again = Trainer(server, model(7.0))
        await rounds(again, 1)
        assert late.trained == [7.0]


async def test_the_end_holds_however_it_is_left(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Cancelled while it waits for a subscriber that does not confirm: the next training has its learners."""
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0))
        join(AsyncAdder(), "first")
        await trainer.train_round()
        async with heartline.open_connection(server.urls[0], identity="follower") as follower:
            async with follower.subscribe(MODEL_TOPIC):  # never confirms
                with trio.move_on_after(1) as scope:
                    await trainer.finish(timeout=100)
                assert scope.cancelled_caught
        learner = AsyncAdder()
        join(learner, "next")
        await trio.sleep(1)
        await rounds(Trainer(server, model(5.0)), 1)
        assert learner.trained == [5.0]


async def test_one_trainer_at_work_in_a_federation(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_federation("memory://", tmp_path) as (server, join), trio.open_nursery() as nursery:
        trainer = Trainer(server, model(0.0))
        join(Sleeper(10), "a")
        nursery.start_soon(rounds, trainer, 3)
        await trio.sleep(5)
        second = Trainer(server, model(0.0))
        for begin in (second.start, second.train_round, second.finish, lambda: rounds(second, 1)):
            with pytest.raises(heartline.ConfigurationError, match=r"federation 'default' .* another name"):
                await begin()
        waiting = Trainer(server, model(0.0), federation="ward")
        nursery.start_soon(waiting.train_round)
        await trio.sleep(1)
        with pytest.raises(heartline.ConfigurationError, match="federation 'ward'"):
            await Trainer(server, model(0.0), federation="ward").train_round()
        nursery.cancel_scope.cancel()


async def test_between_its_rounds_a_training_is_at_work_too(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_federation("memory://", tmp_path) as (server, join):
        join(AsyncAdder(), "a")
        second = Trainer(server, model(0.0))
        async for _ in Trainer(server, model(0.0)).run(2):
            with pytest.raises(heartline.ConfigurationError, match="at work already"):
                await second.start()
        await second.start()


async def test_the_next_trainer_takes_over_what_another_has_left(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Without an end, and back again: each pushes its own model before it gives an order."""
    learner = AsyncAdder()
    async with open_federation("memory://", tmp_path) as (server, join):
        join(learner, "a")
        first, second = Trainer(server, model(0.0)), Trainer(server, model(100.0, 0.0))
        for trainer in (first, second, second, first, second):
            with trio.fail_after(60):
                await trainer.train_round()
        assert learner.trained == [0.0, 100.0, 101.0, 1.0, 102.0]


async def test_a_training_can_go_on_after_its_end(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0))
        join(AsyncAdder(), "a")
        await train(trainer, 2)
        learner = AsyncAdder()
        join(learner, "b")
        await trio.sleep(1)
        assert learner.versions == []
        await rounds(trainer, 3)
        assert learner.trained == [2.0]


async def test_a_federation_has_topics_of_its_own(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0), federation="ward")
        join(AsyncAdder(), "a", federation="ward")
        await registered(trainer, 1)
        assert server.subscribers(f"{MODEL_TOPIC}/ward") == {"a"}
        assert server.subscribers(f"{LEARNERS_TOPIC}/ward") == {"a"}
        assert not server.subscribers(MODEL_TOPIC)


async def test_it_trains_where_only_declared_topics_exist(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_federation("memory://", tmp_path, declared_only=True) as (server, join):
        trainers = [Trainer(server, model(0.0), federation=name) for name in ("default", "ward")]
        for trainer, name in zip(trainers, ("default", "ward"), strict=True):
            join(AsyncAdder(), name, federation=name)
            await registered(trainer, 1)
            (report,) = await rounds(trainer, 1)
            assert report.cohort == (name,)


@pytest.mark.parametrize("name", ["", "x" * 101, "a\nb", 7, None])
async def test_a_name_is_checked_at_both_ends(name: Any) -> None:
    async with heartline.open_server("memory://") as server:
        with pytest.raises(heartline.ConfigurationError, match="federation must be text of 1 to 100"):
            Trainer(server, model(0.0), federation=name)
        with pytest.raises(heartline.ConfigurationError, match="federation must be text of 1 to 100"):
            await run_learner(server.urls[0], AsyncAdder(), federation=name)


async def test_a_trainer_says_whom_it_waits_for(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "heartline.federated")
    async with open_federation("memory://", tmp_path) as (server, join):
        join(AsyncAdder(), "a")
        trainer = Trainer(server, model(0.0), federation="default", minimum=2)
        await registered(trainer, 1)
        with trio.move_on_after(16 * 60):
            await trainer.train_round()
    said = [record.getMessage() for record in caplog.records if record.name == "heartline.federated"]
    line = "federation default, round 1: waiting for 2 learners, 1 are there"
    assert said == [line] * 5, "after 0, 1, 3, 7 and 15 minutes"
