from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import _digits
import numpy as np
import pytest
from _digits import BATCH, CLASSES, PIXELS, Data, Round
from hypothesis import given
from hypothesis import strategies as st

from heartline.federated._model import TrainResult
from heartline.federated._strategies import FedAvg

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def data() -> tuple[Data, Data]:
    return _digits.load(0)


def test_the_split_keeps_every_image_once(data: tuple[Data, Data]) -> None:
    train, test = data
    assert len(train.y) + len(test.y) == 1797
    assert len(test.y) == 359
    for part in data:
        assert part.x.shape == (len(part.y), PIXELS)
        assert part.x.dtype == np.float32
        assert (part.x.min(), part.x.max()) == (0, 1)
        assert set(part.y) == set(range(CLASSES))
    again = _digits.load(0)
    assert np.array_equal(again[0].x, train.x)
    other = _digits.load(1)
    assert not np.array_equal(other[0].y, train.y)
    assert sorted([*other[0].y, *other[1].y]) == sorted([*train.y, *test.y])


@pytest.mark.slow
@given(st.integers(1, 10), SEEDS, st.sampled_from([0.3, 0.5, 10.0]))
def test_shards_divide_the_images(data: tuple[Data, Data], count: int, seed: int, alpha: float) -> None:
    train, _ = data
    numbered = Data(np.arange(len(train.y)), train.y)
    shards = _digits.shards(numbered, count, seed=seed, alpha=alpha)
    assert len(shards) == count
    assert min(len(shard.y) for shard in shards) >= BATCH
    assert np.array_equal(np.sort(np.concatenate([shard.x for shard in shards])), numbered.x)
    for shard in shards:
        assert np.array_equal(shard.y, train.y[shard.x])
    again = _digits.shards(numbered, count, seed=seed, alpha=alpha)
    assert all(np.array_equal(one.x, other.x) for one, other in zip(shards, again, strict=True))


def test_shards_are_skewed_by_digit(data: tuple[Data, Data]) -> None:
    """In most shards the two commonest digits are more than a third of all; of even shards, about a fifth."""

    def skew(alpha: float) -> float:
        shares = [
            np.sort(np.bincount(shard.y, minlength=CLASSES))[-2:].sum() / len(shard.y)
            for shard in _digits.shards(data[0], 6, seed=0, alpha=alpha)
        ]
        return float(np.median(shares))

    assert skew(0.5) > 1 / 3
    assert skew(1000) < 0.27


def test_too_many_learners_for_the_images(data: tuple[Data, Data]) -> None:
    with pytest.raises(ValueError, match="no 16 images for each of 90 learners"):
        _digits.shards(data[0], 90, seed=0)


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    random = np.random.default_rng(0)
    model = [array.astype(float) for array in _digits.initial_model(0)]
    x, y = random.random((7, PIXELS)), random.integers(0, CLASSES, 7)

    def loss() -> float:
        scores = _digits._forward(model, x)[1]
        return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(7), y]))

    for array, slope in zip(model, _digits._gradient(model, x, y), strict=True):
        assert array.shape == slope.shape
        for index in random.integers(0, array.size, 20):
            values, step = array.reshape(-1), 1e-6
            kept = values[index]
            values[index] = kept + step
            above = loss()
            values[index] = kept - step
            below = loss()
            values[index] = kept
            assert slope.reshape(-1)[index] == pytest.approx((above - below) / (2 * step), abs=1e-6)


def test_training_is_repeatable_and_leaves_its_model_alone(data: tuple[Data, Data]) -> None:
    train, test = data
    start = _digits.initial_model(7)
    before = [array.tobytes() for array in start]
    once, again = (_digits.train(start, *train, epochs=2, learning_rate=0.3, seed=1) for _ in range(2))
    assert [array.tobytes() for array in start] == before
    assert [array.tobytes() for array in once] == [array.tobytes() for array in again]
    assert [(array.shape, array.dtype) for array in once] == [(array.shape, array.dtype) for array in start]
    other = _digits.train(start, *train, epochs=2, learning_rate=0.3, seed=2)
    assert not np.array_equal(other[0], once[0])
    assert _digits.accuracy(start, *test) < 0.3 < 0.9 < _digits.accuracy(once, *test)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("learners", [5, 8])
def test_a_federation_that_loses_a_learner_for_some_rounds_still_learns(seed: int, learners: int) -> None:
    train, test = _digits.load(seed)
    shards = _digits.shards(train, learners, seed=seed)
    largest = max(range(learners), key=lambda learner: len(shards[learner].y))
    model = _digits.initial_model(seed)
    for round in range(1, 21):
        aggregation = FedAvg().start_round(model, round)
        for learner, shard in enumerate(shards):
            if learner == largest and 7 <= round <= 12:
                continue
            trained = _digits.train(
                model, *shard, epochs=5, learning_rate=0.3, seed=round * learners + learner
            )
            aggregation.add(str(learner), TrainResult(model=trained, samples=len(shard.y)))
        model = aggregation.finish()
    assert _digits.accuracy(model, *test) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [1, 20])
def test_the_learning_curve_is_drawn_without_a_display(
    tmp_path: Path, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it would raise
    path = tmp_path / "curve.png"
    history = [
        Round(number, 1 - 0.5**number, 6 - (7 <= number < 12), {7: "killed", 12: "back"}.get(number))
        for number in range(1, rounds + 1)
    ]
    _digits.plot(history, path)
    picture = path.read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


@pytest.mark.slow
def test_a_learner_is_spared_what_only_the_trainer_needs() -> None:
    code = "import sys; from examples import _digits; print({'sklearn', 'matplotlib'} & set(sys.modules))"
    root = Path(_digits.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
