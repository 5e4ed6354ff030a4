"""A trainer that is started again, or goes on after an error: what it takes from the disk, and what not."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline.federated import Trainer, load_checkpoint
from tests.federated.crashes import cut_off, run_inline
from tests.federated.helpers import Adder, AsyncAdder, Sleeper, model, open_federation, registered

pytestmark = pytest.mark.usefixtures("no_threads")


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "training"


@asynccontextmanager
async def trainer_with(tmp_path: Path, learners: dict[str, Adder], **settings: Any) -> AsyncIterator[Trainer]:
    """A server and a trainer of their own, with these learners there."""
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0), checkpoint=tmp_path / "training", **settings)
        for name, learner in learners.items():
            join(learner, name)
        await registered(trainer, len(learners))
        yield trainer


async def killed_in_a_round(tmp_path: Path, slow: Sleeper, **settings: Any) -> None:
    """One round, and the next one half done: ``quick`` has answered, ``slow`` has not."""
    async with trainer_with(tmp_path, {"quick": AsyncAdder(5.0), "slow": slow}, **settings) as trainer:
        await trainer.train_round()
        with trio.move_on_after(10):
            await trainer.train_round()
        assert (trainer.version, trainer.model[0].tolist()) == (1, [3.0])


async def test_results_that_had_arrived_are_not_asked_for_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    await killed_in_a_round(tmp_path, Sleeper(20))
    quick, slow, late = AsyncAdder(100.0), Sleeper(20), AsyncAdder()
    async with trainer_with(tmp_path, {"quick": quick, "slow": slow, "late": late}) as trainer:
        report = await trainer.train_round()
        assert (report.round, report.cohort, report.resumed) == (2, ("quick", "slow"), ("quick",))
        assert report.samples == {"quick": 1, "slow": 1}
        assert report.learner_metrics["quick"] == {"amount": 5.0}
        assert (quick.trained, slow.trained) == ([], [3.0])
        assert trainer.model[0].tolist() == [6.0]
        report = await trainer.train_round()
        assert (report.cohort, report.resumed) == (("late", "quick", "slow"), ())


@pytest.mark.parametrize("journal", [True, False], ids=["in a round", "between rounds"])
@pytest.mark.parametrize(("late", "there"), [(25, True), (50, False)])
async def test_after_an_outage_learners_may_take_longer(
    autojump_clock: MockClock, tmp_path: Path, journal: bool, late: float, there: bool
) -> None:
    """Who has tried in vain for hours comes back within half a minute: the longest pause between attempts."""
    await killed_in_a_round(tmp_path, Sleeper(20))
    if not journal:
        (tmp_path / "training.journal").unlink()
    async with open_federation("memory://", tmp_path) as (server, join), trio.open_nursery() as nursery:
        trainer = Trainer(server, model(0.0), checkpoint=tmp_path / "training", patience=5.0)
        join(AsyncAdder(), "quick")

        @nursery.start_soon
        async def come_late() -> None:
            await trio.sleep(late)
            join(AsyncAdder(), "slow")

        report = await trainer.train_round()
        assert ("slow" in report.samples) is there


async def test_who_was_left_out_stays_left_out(autojump_clock: MockClock, tmp_path: Path) -> None:
    class Failing(AsyncAdder):
        async def train(self, model: Any, config: Any) -> Any:
            raise RuntimeError("no data")

    async with trainer_with(tmp_path, {"bad": Failing(), "slow": Sleeper(20)}) as trainer:
        with trio.move_on_after(10):
            await trainer.train_round()
    better = AsyncAdder()
    async with trainer_with(tmp_path, {"bad": better, "slow": Sleeper(20)}) as trainer:
        report = await trainer.train_round()
        assert report.dropped == {"bad": "Learner.train raised RuntimeError: no data"}
        assert set(report.samples) == {"slow"}
        assert better.trained == []


async def test_a_cancelled_round_is_gone_on_with(autojump_clock: MockClock, tmp_path: Path) -> None:
    quick = AsyncAdder()
    async with trainer_with(tmp_path, {"quick": quick, "slow": Sleeper(20)}) as trainer:
        for _ in range(3):
            with trio.move_on_after(10):
                await trainer.train_round()
        report = await trainer.train_round()
        assert (set(report.samples), report.resumed) == ({"quick", "slow"}, ("quick",))
        assert quick.trained == [0.0]


async def test_the_config_is_that_of_the_draw(autojump_clock: MockClock, tmp_path: Path) -> None:
    seen: list[Any] = []

    class Curious(Sleeper):
        async def train(self, model: Any, config: Any) -> Any:
            seen.append(config["salt"].tolist())
            return await super().train(model, config)

    for salt in (1.0, 2.0):
        config = {"salt": model(salt)[0]}
        async with trainer_with(tmp_path, {"a": Curious(20)}, config=config) as trainer:
            with trio.move_on_after(10 if salt == 1.0 else 100):
                await trainer.train_round()
    assert seen == [[1.0], [1.0]]


async def test_a_round_that_failed_is_drawn_anew(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Also by a trainer that is started between the two tries: the draws go on where they were."""

    class Failing(AsyncAdder):
        async def train(self, model: Any, config: Any) -> Any:
            raise RuntimeError("no data")

    async def cohorts(lives: list[int]) -> list[tuple[str, ...]]:
        drawn = []
        for rounds in lives:
            learners: dict[str, Adder] = {f"{index}": Failing() for index in range(6)}
            async with trainer_with(tmp_path, learners, cohort=3) as trainer:
                for _ in range(rounds):
                    report = await trainer.train_round()
                    assert (report.round, report.receipt) == (1, None)
                    drawn.append(report.cohort)
        (tmp_path / "training").unlink()
        return drawn

    undisturbed = await cohorts([5])
    assert len(set(undisturbed)) > 1
    assert await cohorts([1, 1, 2, 1]) == undisturbed


async def test_a_full_disk(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round ends with the error, the model is that of the round before, and later it goes on."""
    learner = AsyncAdder()
    full = False
    fsync = os.fsync

    def sync(descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    async with trainer_with(tmp_path, {"a": learner, "slow": Sleeper(10)}) as trainer:
        await trainer.train_round()
        before = (tmp_path / "training").read_bytes()
        for moment in (0, 5):  # at the beginning of a round, and when a result has arrived
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def fill(moment: int = moment) -> None:
                    nonlocal full
                    await trio.sleep(moment)
                    full = True

                await trio.sleep(0.001)
                with pytest.raises(OSError, match="journal cannot be written: No space left on device"):
                    await trainer.train_round()
            full = False
            assert (trainer.version, trainer.model[0].tolist()) == (1, [1.0])
            assert (tmp_path / "training").read_bytes() == before
        report = await trainer.train_round()
        assert set(report.samples) == {"a", "slow"}
        assert trainer.model[0].tolist() == [2.0]
        assert learner.trained == [0.0, 1.0]


async def test_a_checkpoint_that_cannot_be_written(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = AsyncAdder()
    async with trainer_with(tmp_path, {"a": learner}) as trainer:
        await trainer.train_round()
        replace = Path.replace

        def refuse(path: Path, target: Path) -> Path:
            if target.name == "training":
                raise OSError(errno.EROFS, "Read-only file system")
            return replace(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", refuse)
            with pytest.raises(OSError, match="Read-only"):
                await trainer.train_round()
        assert (trainer.version, trainer.model[0].tolist()) == (1, [1.0])
        assert learner.versions[-1] == 1, "nobody has a model that the file does not have"
        report = await trainer.train_round()
        assert report.resumed == ("a",)
        assert learner.trained == [0.0, 1.0]
        assert trainer.model[0].tolist() == [2.0]


async def test_a_damaged_journal_is_an_error(autojump_clock: MockClock, tmp_path: Path) -> None:
    await killed_in_a_round(tmp_path, Sleeper(20))
    journal = tmp_path / "training.journal"
    content = bytearray(journal.read_bytes())
    content[40] ^= 1
    journal.write_bytes(content)
    slow = Sleeper(20)
    async with trainer_with(tmp_path, {"quick": AsyncAdder(), "slow": slow}) as trainer:
        with pytest.raises(ValueError, match="is damaged in the record at byte 20; move it"):
            await trainer.train_round()
        assert trainer.version == 1
        journal.unlink()
        assert set((await trainer.train_round()).samples) == {"quick", "slow"}


async def test_an_older_checkpoint_begins_a_new_run(
    autojump_clock: MockClock, file: Path, tmp_path: Path
) -> None:
    """Where a learner knows better: its versions do not go back within a run."""
    learner = AsyncAdder()
    async with open_federation("memory://", tmp_path) as (server, join):
        join(learner, "a")
        trainer = Trainer(server, model(0.0), checkpoint=file)
        async for report in trainer.run(5):
            if report.round == 2:
                older = file.read_bytes()
        await trio.sleep(1)
        run = load_checkpoint(file).metadata["run"]
        file.write_bytes(older)
        again = Trainer(server, model(0.0), checkpoint=file)
        await again.start()
        await trio.sleep(1)
        assert learner.versions[-1] == 5
        assert [report.round async for report in again.run(4)] == [3, 4]
        assert again.model[0].tolist() == [4.0]
        assert learner.trained == [0.0, 1.0, 2.0, 3.0, 4.0, 2.0, 3.0]
        await trio.sleep(1)
        assert learner.versions == [0, 1, 2, 3, 4, 5, 2, 3, 4]
        assert load_checkpoint(file).metadata["run"] != run


async def test_a_restart_alone_begins_no_new_run(
    autojump_clock: MockClock, file: Path, tmp_path: Path
) -> None:
    await killed_in_a_round(tmp_path, Sleeper(20))
    run = load_checkpoint(file).metadata["run"]
    async with trainer_with(tmp_path, {"quick": AsyncAdder(), "slow": Sleeper(1)}) as trainer:
        await trainer.train_round()
    assert load_checkpoint(file).metadata["run"] == run


async def test_who_always_knows_better_is_left_out(autojump_clock: MockClock, tmp_path: Path) -> None:
    class StaleOrder(Exception):
        pass

    class Liar(AsyncAdder):
        async def train(self, model: Any, config: Any) -> Any:
            raise StaleOrder("version 1000 is here")

    async with trainer_with(tmp_path, {"good": AsyncAdder(), "liar": Liar()}) as trainer:
        for _ in range(3):
            report = await trainer.train_round()
            assert report.dropped == {"liar": "Learner.train raised StaleOrder: version 1000 is here"}
            assert set(report.samples) == {"good"}


async def test_the_first_checkpoint_is_there_before_anyone_has_the_model(
    autojump_clock: MockClock, file: Path, tmp_path: Path
) -> None:
    learner = AsyncAdder()
    async with trainer_with(tmp_path, {"a": learner}) as trainer:
        assert load_checkpoint(file).round == 0
        server = trainer._server
        cut_off(server)
    missing = tmp_path / "no such directory" / "training"
    async with heartline.open_server("memory://") as server:
        trainer = Trainer(server, model(0.0), checkpoint=missing)
        with pytest.raises(FileNotFoundError, match="no such directory"):
            await trainer.start()
        assert trainer.version == 0
