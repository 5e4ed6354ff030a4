"""Rounds that fail: pauses that grow, a bound, and one line of the log for each."""

from __future__ import annotations

import itertools
import logging
import random
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline.federated import FederationFailed, Trainer
from tests.federated.helpers import AsyncAdder, model, open_federation, registered, rounds
from tests.few_examples import few_examples


class Broken(AsyncAdder):
    """Fails when its number of the round is in a set, or always."""

    def __init__(self, fails: set[int] | None = None) -> None:
        super().__init__()
        self.fails = fails

    async def train(self, model: Any, config: Any) -> Any:
        self.asked += 1
        if self.fails is None or self.asked in self.fails:
            raise RuntimeError("a bug\nwith \x1b[31m much to say" + "!" * 5000)
        return await super().train(model, config)


async def test_the_pauses_grow_and_then_it_is_enough(autojump_clock: MockClock, tmp_path: Path) -> None:
    times: list[float] = []
    async with open_federation("memory://", tmp_path) as (server, join):
        join(Broken(), "a")
        trainer = Trainer(server, model(0.0), rng=random.Random(1))
        await registered(trainer, 1)
        with pytest.raises(FederationFailed) as caught:
            async for report in trainer.run(3):
                assert (report.round, report.receipt) == (1, None)
                times.append(trio.current_time())
        times.append(trio.current_time())
        assert len(times) == 10, "max_failures by default"
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        ceilings = [min(60.0, 2.0**index) for index in range(9)]
        assert all(pause <= ceiling + 0.5 for pause, ceiling in zip(pauses, ceilings, strict=True))
        assert sum(pauses) > 30
        error = caught.value
        assert error.report.dropped["a"].startswith(
            "Learner.train raised RuntimeError: a bug\\nwith \\x1b[31m"
        )
        assert str(error).startswith("10 rounds in a row (max_failures) had fewer than 1 results (minimum)")
        assert str(error).isprintable()
        assert trainer.version == 0


@pytest.mark.slow
@given(st.sets(st.integers(1, 8)), st.integers(1, 4))
@few_examples
def test_only_failures_in_a_row_count(fails: set[int], most: int) -> None:
    async def main() -> tuple[list[bool], bool]:
        told = []
        async with open_federation("memory://", Path()) as (server, join):
            join(Broken(fails), "a")
            trainer = Trainer(server, model(0.0), max_failures=most, backoff=heartline.Backoff(initial=0.1))
            try:
                while trainer.version < 4:
                    told.append((await trainer.train_round()).receipt is not None)
            except FederationFailed as error:
                return [*told, error.report.receipt is not None], True
        return told, False

    expected: list[bool] = []
    while sum(expected) < 4 and expected[-most:] != [False] * most:
        expected.append(len(expected) + 1 not in fails)
    told, failed = trio.run(main, clock=MockClock(autojump_threshold=0))
    assert (told, failed) == (expected, sum(expected) < 4)


async def test_a_loop_of_single_rounds_is_held_back_too(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_federation("memory://", tmp_path) as (server, join):
        join(Broken(), "a")
        trainer = Trainer(server, model(0.0), max_failures=3, rng=random.Random(1))
        for _ in range(2):  # after the error it can be tried again
            for _ in range(2):
                assert (await trainer.train_round()).receipt is None
            with pytest.raises(FederationFailed):
                await trainer.train_round()
        trainer = Trainer(server, model(0.0), max_failures=None)
        with trio.move_on_after(300):
            async for report in trainer.run(1):
                last = report
        assert last.receipt is None


async def test_a_line_for_each_round(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "heartline.federated")
    async with open_federation("memory://", tmp_path) as (server, join):
        join(AsyncAdder(0.25), "good")
        for name in "abcd":
            join(Broken({1}), name)
        trainer = Trainer(server, model(0.0), minimum=5, federation="default")
        await rounds(trainer, 2)
    records = [record for record in caplog.records if record.name == "heartline.federated"]
    levels = [record.levelname for record in records]
    lines = [record.getMessage() for record in records if "waiting" not in record.getMessage()]
    assert levels.count("WARNING") == 1
    failed, first, second = lines
    assert failed.startswith(
        "federation default, round 1 failed, the model stays: 1 of 5 learners trained in 0.0 s; amount 0.25; "
        "without a (Learner.train raised RuntimeError: a bug\\nwith \\x1b[31m much to say!!!"
    )
    assert failed.endswith("…) and 1 more")
    assert failed.isprintable()
    assert len(failed) < 1000
    assert first == "federation default, round 1: 5 of 5 learners trained in 0.0 s; amount 0.85"
    assert second == first.replace("round 1", "round 2")
    assert not any(record.exc_info for record in records), "the traceback stays with the learner"
