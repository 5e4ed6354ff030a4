"""What a strategy remembers from round to round belongs to the model, and is kept and taken back with it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import cbor2
import hypothesis.extra.numpy as npst
import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline.federated import (
    Checkpoint,
    FedAvg,
    StatefulStrategy,
    Trainer,
    load_checkpoint,
    save_checkpoint,
)
from heartline.federated._body import encode_header, write_arrays
from heartline.federated._checkpoint import _HashingFile
from tests.federated.crashes import run_inline
from tests.federated.helpers import AsyncAdder, Momentum, model, open_federation
from tests.federated.test_checkpoint import in_one_directory

WEIGHTS = npst.arrays(
    st.sampled_from([np.float32, np.float64, np.int64]), npst.array_shapes(min_dims=0, min_side=0)
)
STATES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | WEIGHTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)


async def lives(folder: Path, rounds: list[int], **settings: Any) -> list[float]:
    """The model's first parameter after each round; each number is a life of the trainer."""
    values = []
    for count in rounds:
        async with open_federation("memory://", folder) as (server, join):
            join(AsyncAdder(), "a")
            settings["strategy"] = settings.get("make", Momentum)()
            given_on = {name: value for name, value in settings.items() if name != "make"}
            trainer = Trainer(server, model(0.0, 5.0), **given_on)
            for _ in range(count):
                await trainer.train_round()
                values.append(float(trainer.model[0][0]))
    return values


async def test_two_lives_are_as_one(autojump_clock: MockClock, tmp_path: Path) -> None:
    undisturbed = await lives(tmp_path, [4])
    assert undisturbed == pytest.approx([1.0, 2.9, 5.61, 9.049])
    assert await lives(tmp_path, [1, 2, 1], checkpoint=tmp_path / "training") == undisturbed
    saved = load_checkpoint(tmp_path / "training")
    assert saved.strategy["rounds"] == 4
    assert saved.strategy["speed"][0][0] == pytest.approx(3.439)


@pytest.mark.parametrize("checkpoint", [True, False])
@pytest.mark.parametrize("fault", ["finish", "state", "disk", "cancelled"])
async def test_a_round_that_breaks_off_leaves_no_trace(
    fault: str, checkpoint: bool, autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the strategy has learned in it: the state goes with the model."""
    if fault in ("disk", "cancelled") and not checkpoint:
        return  # nothing is awaited between the new model and the end of the round

    class Failing(Momentum):
        faulty = False

        def state(self) -> Any:
            if self.faulty and self.memory["rounds"] == 2:
                self.faulty = False
                if fault == "state":
                    raise RuntimeError("no state")
                if fault == "finish":
                    raise RuntimeError("finished, and then")
                if fault == "cancelled":
                    scope.cancel()
            return super().state()

    strategy, scope = Failing(), trio.CancelScope()
    async with open_federation("memory://", tmp_path) as (server, join):
        join(AsyncAdder(), "a")
        file = tmp_path / "training" if checkpoint else None
        trainer = Trainer(server, model(0.0, 5.0), strategy=strategy, checkpoint=file)
        await trainer.train_round()
        strategy.faulty = True
        with monkeypatch.context() as patch:
            if fault == "disk":
                replace = Path.replace

                def refuse(path: Path, target: Path) -> Path:
                    if target.name == "training":
                        raise OSError(errno.EROFS, "Read-only file system")
                    return replace(path, target)

                patch.setattr(Path, "replace", refuse)
            with scope:
                with pytest.raises((RuntimeError, OSError, trio.Cancelled)) as caught:
                    await trainer.train_round()
                if fault == "cancelled":
                    raise caught.value
        assert trainer.version == 1
        for _ in range(3):
            await trainer.train_round()
        assert trainer.model[0][0] == pytest.approx(9.049)
        assert strategy.restored == 1


async def test_a_round_with_too_few_results_leaves_no_trace(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    class Counting(Momentum):
        def start_round(self, model: Any, round: int) -> Any:
            self.memory["rounds"] += 100
            return super().start_round(model, round)

    class Moody(AsyncAdder):
        async def train(self, model: Any, config: Any) -> Any:
            self.asked += 1
            if self.asked % 2:
                raise RuntimeError("not in the mood")
            return await super().train(model, config)

    strategy = Counting()
    async with open_federation("memory://", tmp_path) as (server, join):
        join(Moody(), "a")
        async for _ in Trainer(server, model(0.0), strategy=strategy).run(2):
            pass
    assert strategy.memory["rounds"] == 202


@given(STATES)
@in_one_directory
def test_a_state_is_kept_as_it_is(tmp_path: Path, state: Any) -> None:
    save_checkpoint(tmp_path / "training", Checkpoint(round=1, model=model(1.0), strategy=state))
    loaded = load_checkpoint(tmp_path / "training")
    assert loaded.model[0].tolist() == [1.0]
    assert told(loaded.strategy) == told(state)


def told(value: Any) -> Any:
    """What can be compared of a value with arrays in it."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, list):
        return [told(item) for item in value]
    return {key: told(item) for key, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("state", [{1: "layer"}, {"f": print}, [np.array(["text"])], {"a": {2: 3}}])
async def test_a_state_that_cannot_be_kept_is_refused_by_name(
    state: Any, autojump_clock: MockClock, tmp_path: Path
) -> None:
    """When the trainer is made, and after a round: nothing of that round counts."""

    class Growing(Momentum):
        def state(self) -> Any:
            return state if self.memory["rounds"] else "fine"

    with pytest.raises(heartline.SerializationError, match=r"strategy of a checkpoint"):
        save_checkpoint(tmp_path / "other", Checkpoint(round=1, model=[], strategy=state))
    async with open_federation("memory://", tmp_path) as (server, join):
        learner = AsyncAdder()
        join(learner, "a")
        trainer = Trainer(server, model(0.0), strategy=Growing(), checkpoint=tmp_path / "training")
        await trainer.start()
        before = (tmp_path / "training").read_bytes()
        with pytest.raises(heartline.SerializationError, match=r"strategy.state\(\) holds what cannot be"):
            await trainer.train_round()
        assert (tmp_path / "training").read_bytes() == before
        assert (trainer.version, learner.versions) == (0, [0])
        bad = Growing()
        bad.memory["rounds"] = 1
        with pytest.raises(heartline.SerializationError, match=r"strategy.state\(\) holds what cannot be"):
            Trainer(server, model(0.0), strategy=bad)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ([np.zeros(2)], r"model\[0\] must be of shape \(1,\) and dtype float64, got \(2,\) and float64"),
        ([np.zeros(1, np.float32)], r"model\[0\] must be of shape \(1,\) and dtype float64, got .* float32"),
        ([np.float64(1)], r"model\[0\] must be of shape \(1,\)"),
        ([np.zeros(1)] * 2, "the model must have 1 arrays, got 2"),
        ([], "the model must have 1 arrays, got 0"),
        (np.zeros(1), "a model must be a list of numpy arrays, got ndarray"),
        (None, "a model must be a list of numpy arrays, got NoneType"),
        ([np.array([np.nan])], r"model\[0\] must be finite, got values from nan"),
        ([np.array([-np.inf])], r"model\[0\] must be finite, got values from -inf"),
    ],
)
async def test_what_cannot_be_the_next_model_is_refused_by_name(
    made: Any, reason: str, autojump_clock: MockClock, tmp_path: Path
) -> None:
    class Wrong(FedAvg):
        def start_round(self, model: Any, round: int) -> Any:
            class Aggregation:
                add = staticmethod(lambda learner_id, result: None)
                finish = staticmethod(lambda: made)

            return Aggregation()

    learner = AsyncAdder()
    async with open_federation("memory://", tmp_path) as (server, join):
        join(learner, "a")
        trainer = Trainer(server, model(0.0), strategy=Wrong(), checkpoint=tmp_path / "training")
        await trainer.start()
        before = (tmp_path / "training").read_bytes()
        for _ in range(2):
            with pytest.raises(heartline.ConfigurationError, match=f"strategy.finish returned .*{reason}"):
                await trainer.train_round()
        await trio.sleep(1)
        assert (trainer.version, learner.versions, learner.trained) == (0, [0], [0.0])
        assert (tmp_path / "training").read_bytes() == before
        mended = Trainer(server, model(0.0), checkpoint=tmp_path / "training")
        report = await mended.train_round()
        assert report.resumed == ("a",), "its results are not lost"


async def test_numbers_of_a_strategy_are_arrays_without_dimensions(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    class Scalar(FedAvg):
        def start_round(self, model: Any, round: int) -> Any:
            mean = super().start_round(model, round)

            class Aggregation:
                add = mean.add

                def finish(self) -> Any:
                    return [model[0] + 0.5 * (mean.finish()[0] - model[0])]

            return Aggregation()

    async with open_federation("memory://", tmp_path) as (server, join):
        learner = AsyncAdder()
        join(learner, "a")
        given_as: Any = [1.0]
        trainer = Trainer(server, given_as, strategy=Scalar())
        report = await trainer.train_round()
        assert report.dropped == {}
        assert (trainer.model[0].shape, trainer.model[0].item()) == ((), 1.5)


def test_what_has_no_state_is_a_strategy_too() -> None:
    assert not isinstance(FedAvg(), StatefulStrategy)
    assert isinstance(Momentum(), StatefulStrategy)


class Half(FedAvg):
    def state(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (FedAvg, r"strategy must be an object .*: strategy=FedAvg\(\)"),
        ("average", "strategy must be an object with the method start_round, not 'average'"),
        (Half(), "both state.* and restore.*, or neither"),
    ],
)
async def test_a_wrong_strategy_is_refused_where_it_is_given(strategy: Any, message: str) -> None:
    async with heartline.open_server("memory://") as server:
        with pytest.raises(heartline.ConfigurationError, match=message):
            Trainer(server, model(0.0), strategy=strategy)


async def test_a_state_needs_a_strategy_that_takes_it(autojump_clock: MockClock, tmp_path: Path) -> None:
    file = tmp_path / "training"
    await lives(tmp_path, [1], checkpoint=file)
    with pytest.raises(heartline.ConfigurationError, match=r"holds the state of a strategy.* no restore"):
        async with heartline.open_server("memory://") as server:
            await Trainer(server, model(0.0, 5.0), checkpoint=file).start()


async def test_a_state_may_begin_in_the_middle(autojump_clock: MockClock, tmp_path: Path) -> None:
    file = tmp_path / "training"
    assert await lives(tmp_path, [2], checkpoint=file, make=FedAvg) == [1.0, 2.0]
    assert await lives(tmp_path, [2], checkpoint=file) == pytest.approx([3.0, 4.9])


def test_a_checkpoint_of_the_first_version_is_read(tmp_path: Path) -> None:
    """It knew no state; a trainer goes on from it."""
    fields = {"round": 3, "random_state": [1], "metadata": {"run": "r"}}
    path = tmp_path / "training"
    with path.open("wb") as file:
        file.seek(len(b"heartline checkpoint 1\n") + 32)
        body = _HashingFile(file)
        body.write(encode_header(fields, model(1.0, 2.0)))
        write_arrays(body, model(1.0, 2.0))
        file.seek(0)
        file.write(b"heartline checkpoint 1\n" + body.hash.digest())
    loaded = load_checkpoint(path)
    assert (loaded.round, loaded.random_state, loaded.metadata) == (3, [1], {"run": "r"})
    assert (loaded.model[0].tolist(), loaded.strategy) == ([1.0, 2.0], None)
    assert cbor2.loads(cbor2.dumps(fields)) == fields
