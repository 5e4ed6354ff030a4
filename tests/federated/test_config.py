"""What learners get with an order: one for all, for a round, or for each; refused before anything begins."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline.federated import Trainer
from tests.federated.crashes import run_inline
from tests.federated.helpers import AsyncAdder, Sleeper, model, open_federation, registered, rounds


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)


class Curious(Sleeper):
    def __init__(self, seconds: float = 0) -> None:
        super().__init__(seconds)
        self.seen: list[Any] = []

    async def train(self, model: Any, config: Any) -> Any:
        self.seen.append(config)
        return await super().train(model, config)


def by_round(number: int) -> dict[str, Any]:
    return {"rate": 1 / number}


def by_round_with_more(number: int, scale: float = 3.0, *, offset: float = 0.0) -> dict[str, Any]:
    return {"rate": scale / number + offset}


def by_learner(number: int, learner: str) -> dict[str, Any]:
    return {"of": learner, "round": number, "seeds": np.full(2, number)}


def by_learner_of(factor: int, number: int, learner: str) -> dict[str, Any]:
    return {"of": learner, "round": factor * number}


class Callable_:
    def __call__(self, number: int, learner: str) -> dict[str, Any]:
        return {"of": learner}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, lambda number, name: {}),
        ({"rate": 3}, lambda number, name: {"rate": 3}),
        (by_round, lambda number, name: {"rate": 1 / number}),
        (by_round_with_more, lambda number, name: {"rate": 3 / number}),
        (by_learner, lambda number, name: {"of": name, "round": number, "seeds": [number] * 2}),
        (partial(by_learner_of, 2), lambda number, name: {"of": name, "round": 2 * number}),
        (Callable_(), lambda number, name: {"of": name}),
    ],
)
async def test_every_form_reaches_the_learners(
    config: Any, expected: Any, autojump_clock: MockClock, tmp_path: Path
) -> None:
    learners = {"a": Curious(), "b": Curious()}
    async with open_federation("memory://", tmp_path) as (server, join):
        trainer = Trainer(server, model(0.0), config=config, minimum=2)
        for name, learner in learners.items():
            join(learner, name)
        await rounds(trainer, 2)
    for name, learner in learners.items():
        plain = [
            {key: value.tolist() if hasattr(value, "tolist") else value for key, value in seen.items()}
            for seen in learner.seen
        ]
        assert plain == [expected(number, name) for number in (1, 2)]


async def test_each_has_its_own_after_a_restart_too(autojump_clock: MockClock, tmp_path: Path) -> None:
    """The journal has what was decided: the function is not asked again."""
    seen = {}
    for life in (1, 2):
        learners = {name: Curious(20) for name in ("a", "b", "c")}
        async with open_federation("memory://", tmp_path) as (server, join):
            trainer = Trainer(
                server,
                model(0.0),
                cohort=2,
                minimum=2,
                config=partial(_made_in, life),
                checkpoint=tmp_path / "training",
            )
            for name, learner in learners.items():
                join(learner, name)
            await registered(trainer, 3)
            with trio.move_on_after(10 if life == 1 else 1000):
                await trainer.train_round()
        seen[life] = {name: learner.seen for name, learner in learners.items() if learner.seen}
    assert seen[1] == seen[2]
    assert len(seen[2]) == 2
    assert all(configs == [{"made for": name, "in life": 1}] for name, configs in seen[2].items())


def _made_in(life: int, number: int, learner: str) -> dict[str, Any]:
    return {"made for": learner, "in life": life}


BAD = [{"rate": {0: 0.1, 1: 0.01}}, {"f": print}, {"a": [{"b": {(1, 2): 3}}]}, {3: 1}, {"z": 1j}]


@pytest.mark.parametrize("bad", BAD, ids=str)
async def test_what_cannot_be_sent_is_refused_before_the_journal_is_touched(
    bad: Any, autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_federation("memory://", tmp_path) as (server, join):
        learner = AsyncAdder()
        join(learner, "l")
        file = tmp_path / "training"
        with pytest.raises(heartline.SerializationError, match=r"^config "):
            Trainer(server, model(0.0), config=bad, checkpoint=file)
        by_name: Any = lambda number, name: bad  # noqa: E731
        for config, name in ((lambda number: bad, r"config\(1\)"), (by_name, r"config\(1, 'l'\)")):
            trainer = Trainer(server, model(0.0), config=config, checkpoint=file)
            for _ in range(2):
                with pytest.raises(heartline.SerializationError, match=f"^{name} holds what cannot be sent"):
                    await trainer.train_round()
            assert not file.with_name("training.journal").exists()
        mended = Trainer(server, model(0.0), config={"rate": [0.1, 0.01]}, checkpoint=file)
        assert (await mended.train_round()).round == 1
        assert learner.trained == [0.0]


async def test_a_mapping_that_changes_is_checked_in_each_round(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    config: dict[Any, Any] = {"rate": 1}
    async with open_federation("memory://", tmp_path) as (server, join):
        join(AsyncAdder(), "l")
        trainer = Trainer(server, model(0.0), config=config)
        await trainer.train_round()
        config[7] = 7
        with pytest.raises(heartline.SerializationError, match=r"^config holds"):
            await trainer.train_round()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (3, "config must be a mapping, or a function .*; not 3"),
        ([("rate", 1)], "config must be a mapping"),
        (
            lambda *, round: {},
            "config must be a function of the round, or of the round and the learner's name",
        ),
        (lambda a, b, c: {}, "config must be a function"),
        (AsyncAdder().train, "config must be a sync function"),
    ],
)
async def test_a_wrong_config_is_refused_where_it_is_given(config: Any, message: str) -> None:
    async with heartline.open_server("memory://") as server:
        with pytest.raises(heartline.ConfigurationError, match=message):
            Trainer(server, model(0.0), config=config)


async def test_a_function_that_gives_no_mapping(autojump_clock: MockClock, tmp_path: Path) -> None:
    nothing: Any = lambda number: None  # noqa: E731
    async with open_federation("memory://", tmp_path) as (server, join):
        join(AsyncAdder(), "l")
        with pytest.raises(heartline.ConfigurationError, match=r"config\(1\) must give a mapping, not None"):
            await Trainer(server, model(0.0), config=nothing).train_round()
