from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from typing import Any, Literal, cast

import hypothesis.extra.numpy as npst
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartline.federated._model import MAX_SAMPLES, Evaluation, Model, TrainResult, as_model
from heartline.federated._strategies import FedAvg
from heartline.wire import CborSerializer, decode_value, encode_value
from tests.few_examples import few_examples

FLOATS: list[type[np.generic]] = [np.float16, np.float32, np.float64]
INTEGERS: list[type[np.generic]] = [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64]


def result(*arrays: np.ndarray, samples: int = 1) -> TrainResult:
    return TrainResult(model=list(arrays), samples=samples)


def fedavg(model: Model, results: list[TrainResult]) -> Model:
    aggregation = FedAvg().start_round(model, 1)
    for index, each in enumerate(results):
        aggregation.add(f"learner-{index}", each)
    return aggregation.finish()


def reference(results: list[TrainResult], index: int) -> np.ndarray:
    stack = np.stack([each.model[index].astype(np.float64) for each in results])
    return np.average(stack, axis=0, weights=[each.samples for each in results])


def elements(dtype: type[np.generic]) -> st.SearchStrategy[float | int]:
    if issubclass(dtype, np.floating):
        largest = min(float(np.finfo(dtype).max), 2.0**100)
        width = cast(Literal[16, 32, 64], np.dtype(dtype).itemsize * 8)
        return st.floats(-largest, largest, width=width)
    assert issubclass(dtype, np.integer)
    limits = np.iinfo(dtype)
    return st.integers(max(int(limits.min), -(2**50)), min(int(limits.max), 2**50))


@st.composite
def rounds(draw: st.DrawFn, dtypes: list[type[np.generic]]) -> tuple[Model, list[TrainResult]]:
    """A global model and results of the same shapes and dtypes."""
    kinds = draw(
        st.lists(st.tuples(st.sampled_from(dtypes), npst.array_shapes(min_dims=0, min_side=0)), max_size=3)
    )

    def model() -> Model:
        return [draw(npst.arrays(dtype, shape, elements=elements(dtype))) for dtype, shape in kinds]

    counts = draw(st.lists(st.integers(1, 10**6), min_size=1, max_size=5))
    return model(), [TrainResult(model=model(), samples=samples) for samples in counts]


@pytest.mark.slow
@given(rounds(FLOATS + INTEGERS))
def test_average_is_the_sample_weighted_mean(case: tuple[Model, list[TrainResult]]) -> None:
    model, results = case
    averaged = fedavg(model, results)
    assert len(averaged) == len(model)
    for index, (array, old) in enumerate(zip(averaged, model, strict=True)):
        assert (array.shape, array.dtype) == (old.shape, old.dtype)
        expected = reference(results, index)
        scale = max((np.abs(each.model[index].astype(float)).max(initial=0) for each in results), default=0)
        if old.dtype.kind == "f":
            # A half unit in the last place of the dtype, and float64's 1e-12 beneath it.
            limits = np.finfo(old.dtype)
            rounding = np.abs(expected) * float(limits.eps) / 2 + float(limits.smallest_subnormal)
            assert np.all(np.abs(array - expected) <= rounding + 1e-12 * scale)
        else:
            assert np.all(np.abs(array.astype(float) - expected) <= 0.5 + 1e-12 * scale)


@pytest.mark.slow
@given(rounds([np.float64]))
def test_float64_is_exact_to_1e_12(case: tuple[Model, list[TrainResult]]) -> None:
    model, results = case
    for index, array in enumerate(fedavg(model, results)):
        magnitudes = np.stack([np.abs(each.model[index]) for each in results]).max(axis=0, initial=0)
        np.testing.assert_array_less(np.abs(array - reference(results, index)), 1e-12 * magnitudes + 1e-300)


# Within the span for which FedAvg promises that no bit is lost: magnitudes from 2**-20 to 2**20, or zero.
SPANNED = st.builds(
    lambda sign, size: sign * size, st.sampled_from([-1.0, 0.0, 1.0]), st.floats(2**-20, 2**20, width=32)
)


@pytest.mark.slow
@given(
    st.data(),
    st.lists(st.tuples(st.integers(1, 10**6), st.lists(SPANNED, min_size=3, max_size=3)), min_size=1),
)
def test_float32_average_is_the_exact_sum_in_any_order(
    data: st.DataObject, learners: list[tuple[int, list[float]]]
) -> None:
    # A float64 global model, so that no coarser rounding hides a lost bit.
    model = [np.zeros(3)]
    results = [
        result(np.array(values, np.float32), samples=samples)
        for samples, values in data.draw(st.permutations(learners))
    ]
    total = sum(samples for samples, _ in learners)
    exact = [math.fsum(values[i] * samples for samples, values in learners) / total for i in range(3)]
    (averaged,) = fedavg(model, results)
    assert averaged.tobytes() == np.array(exact).tobytes()


@pytest.mark.slow
@given(st.permutations(range(40)), st.integers(0, 2**32 - 1))
@few_examples
def test_float64_average_has_the_same_bytes_in_any_order(order: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    results = [
        result(random.normal(0, 0.1, 20_000), samples=int(random.integers(1, 10_000))) for _ in range(40)
    ]
    model = [np.zeros(20_000)]
    (straight,) = fedavg(model, results)
    (shuffled,) = fedavg(model, [results[index] for index in order])
    assert straight.tobytes() == shuffled.tobytes()


def test_what_a_plain_sum_would_lose_is_kept() -> None:
    (averaged,) = fedavg([np.zeros(1)], [result(np.array([value])) for value in (1e16, 1.0, -1e16, 1.0)])
    assert averaged == [0.5]


def test_integers_are_rounded_to_the_nearest_halves_to_even() -> None:
    model = [np.zeros(4, np.int64)]
    low, high = np.array([0, 1, -1, 2**50 - 1]), np.array([1, 2, -2, 2**50])
    (averaged,) = fedavg(model, [result(low), result(high)])
    assert averaged.tolist() == [0, 2, -2, 2**50]
    (weighted,) = fedavg(model, [result(low, samples=3), result(high, samples=1)])
    assert weighted.tolist() == [0, 1, -1, 2**50 - 1]


def test_a_single_result_is_returned_unchanged_and_unshared() -> None:
    trained = np.array([0.1, -1e-40, 3.4e38], np.float32)
    (averaged,) = fedavg([np.zeros(3, np.float32)], [result(trained, samples=977)])
    assert averaged.tobytes() == trained.tobytes()
    assert not np.shares_memory(averaged, trained)


@pytest.mark.parametrize("view", [lambda a: a.T, lambda a: a[::-1, ::-1], lambda a: a.astype(">f8")])
def test_the_layout_of_an_array_in_memory_does_not_matter(view: Callable[[np.ndarray], np.ndarray]) -> None:
    array = np.arange(12.0).reshape(3, 4)
    for trained in (view(array), np.asfortranarray(view(array))):
        (averaged,) = fedavg([np.zeros(trained.shape)], [result(trained), result(trained)])
        assert np.array_equal(averaged, trained)
        assert averaged.dtype == np.dtype(float)


def test_arrays_of_many_blocks() -> None:
    random = np.random.default_rng(0)
    results = [result(random.normal(size=(3, 9001)), samples=n) for n in (1, 20, 300)]
    (averaged,) = fedavg([np.zeros((3, 9001))], results)
    np.testing.assert_allclose(averaged, reference(results, 0), rtol=0, atol=1e-15)


def test_finish_may_be_asked_again() -> None:
    aggregation = FedAvg().start_round([np.zeros(2)], 1)
    aggregation.add("a", result(np.array([1.0, 2.0])))
    first = aggregation.finish()[0].copy()
    assert np.array_equal(aggregation.finish()[0], first)


def test_a_round_with_nothing_added_has_no_average() -> None:
    with pytest.raises(ValueError, match="no learner's result"):
        FedAvg().start_round([np.zeros(2)], 1).finish()


F64, F32, I32 = np.zeros((2, 2)), np.zeros(2, np.float32), np.zeros(2, np.int32)
REJECTED = [
    ((F64, F32), "2 arrays instead of 3"),
    ((F64, F32, I32, I32), "4 arrays instead of 3"),
    ((np.zeros(4), F32, I32), r"model\[0\] has shape \(4,\) instead of \(2, 2\)"),
    ((F64, np.zeros(3, np.float32), I32), r"model\[1\] has shape \(3,\) instead of \(2,\)"),
    ((F64, F32, np.zeros(2)), r"model\[2\] has dtype float64, which does not fit int32"),
    ((np.array([[0, 0], [0, np.nan]]), F32, I32), r"model\[0\] has values from nan to nan"),
    ((F64, np.array([np.inf, 0], np.float32), I32), r"model\[1\] has values from 0 to inf"),
    ((F64, np.array([-np.inf, 0], np.float32), I32), r"model\[1\] has values from -inf to 0"),
    ((F64, np.array([1e39, 0]), I32), r"model\[1\] has values from 0 to 1e\+39: .* for float32"),
    ((F64, F32, np.array([0, 2**31])), r"model\[2\] has values from 0 to .* for int32"),
    ((np.full((2, 2), 1e308), F32, I32), "too large to sum"),
]


@pytest.mark.parametrize(("arrays", "reason"), REJECTED)
def test_a_bad_result_is_rejected_and_leaves_no_trace(arrays: tuple[np.ndarray, ...], reason: str) -> None:
    good = result(F64 + 1, F32 + 2, I32 + 3, samples=5)
    aggregation = FedAvg().start_round([F64, F32, I32], 1)
    aggregation.add("good", good)
    with pytest.raises(ValueError, match=rf"learner 'bad' rejected: .*{reason}"):
        aggregation.add("bad", result(*arrays, samples=1000))
    for array, expected in zip(aggregation.finish(), good.model, strict=True):
        assert np.array_equal(array, expected)
    # The learner may still send a good one.
    aggregation.add("bad", good)


def test_integers_beyond_what_float64_averages_are_rejected() -> None:
    aggregation = FedAvg().start_round([np.zeros(1, np.int64)], 1)
    aggregation.add("a", result(np.array([2**50])))
    with pytest.raises(ValueError, match=r"model\[0\] has values"):
        aggregation.add("b", result(np.array([2**50 + 1])))


def test_sums_that_would_overflow_only_together_are_rejected() -> None:
    aggregation = FedAvg().start_round([np.zeros(1)], 1)
    aggregation.add("a", result(np.array([2.0**1021])))
    aggregation.add("b", result(np.array([-(2.0**1021)])))
    with pytest.raises(ValueError, match=r"'c' rejected: .* too large to sum"):
        aggregation.add("c", result(np.array([2.0**1000])))
    assert aggregation.finish() == [0.0]


def test_a_learner_counts_once_in_a_round() -> None:
    strategy = FedAvg()
    aggregation = strategy.start_round([F32], 1)
    aggregation.add("a", result(F32 + 1))
    with pytest.raises(ValueError, match="'a' rejected: the learner already has a result in this round"):
        aggregation.add("a", result(F32 + 3))
    assert np.array_equal(aggregation.finish()[0], F32 + 1)
    strategy.start_round([F32], 2).add("a", result(F32))


def test_memory_does_not_grow_with_the_cohort() -> None:
    array = np.ones(131_072)  # 1 MiB
    accumulators = 2 * array.nbytes
    tracemalloc.start()
    try:
        aggregation = FedAvg().start_round([array], 1)
        for index in range(50):
            aggregation.add(f"learner-{index}", result(array, samples=index + 1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < accumulators + array.nbytes / 2


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(2, bool), r"model\[1\] must be of floats .* got dtype bool"),
        (np.zeros(2, complex), "got dtype complex128"),
        (np.zeros(2, np.longdouble), "got dtype (float|longdouble)"),
        (np.array(["a"]), "got dtype <U1"),
        (np.array([object()]), "got dtype object"),
        ([0.0], r"model\[1\] must be a numpy array or a number, got list"),
        (True, r"model\[1\] must be of floats .* got dtype bool"),
        (10**30, r"model\[1\] must be of floats .* got dtype object"),
        (np.longdouble(3), "got dtype (float|longdouble)"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), r"model\[1\] must not be a masked array"),
        (np.zeros((1,) * 33), r"model\[1\] must have at most 32 dimensions, got 33"),
    ],
)
def test_arrays_that_cannot_be_averaged_are_no_model(array: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        as_model([F32, array])
    with pytest.raises(ValueError, match=reason):
        TrainResult(model=[F32, array], samples=1)
    with pytest.raises(ValueError, match=reason):
        FedAvg().start_round([F32, array], 1)


def test_an_array_is_no_model() -> None:
    with pytest.raises(ValueError, match="a model must be a list of numpy arrays, got ndarray"):
        as_model(F64)


@pytest.mark.parametrize(
    "samples", [0, -1, 1.5, "3", True, np.bool_(True), np.int64(0), np.float64(3), MAX_SAMPLES + 1]
)
def test_results_stand_for_a_positive_number_of_samples(samples: Any) -> None:
    with pytest.raises(ValueError, match="samples must be an int from 1 to"):
        TrainResult(model=[F32], samples=samples)
    with pytest.raises(ValueError, match="samples must be an int from 1 to"):
        Evaluation(samples=samples)
    assert TrainResult(model=[F32], samples=MAX_SAMPLES).samples == MAX_SAMPLES


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss": "low"},
        {"loss": np.zeros(1)},
        {"loss": 10**400},
        {"loss": None},
        {3: 1.0},
        {"": 1.0},
        {"a\nb": 1.0},
        {"x" * 257: 1.0},
        {f"{index}": 1.0 for index in range(1001)},
        [("loss", 1.0)],
    ],
)
def test_metrics_are_numbers_by_name(metrics: Any) -> None:
    with pytest.raises(ValueError, match="metrics"):
        TrainResult(model=[F32], samples=1, metrics=metrics)
    with pytest.raises(ValueError, match="metrics"):
        Evaluation(samples=1, metrics=metrics)


NUMBERS = st.one_of(
    npst.from_dtype(np.dtype(np.float16)),
    npst.from_dtype(np.dtype(np.float32)),
    npst.from_dtype(np.dtype(np.float64)),
    npst.from_dtype(np.dtype(np.int8)),
    npst.from_dtype(np.dtype(np.uint64)),
    st.floats(),
    st.integers(-(2**63), 2**63 - 1),
)


@pytest.mark.parametrize("value", [True, np.bool_(True), np.array(True)])
def test_a_truth_is_measured_as_one(value: Any) -> None:
    assert TrainResult(model=[F32], samples=1, metrics={"converged": value}).metrics == {"converged": 1.0}


@given(NUMBERS, st.booleans())
def test_a_scalar_is_taken_as_the_number_that_it_is(number: Any, as_array: bool) -> None:
    """In a model it becomes an array without dimensions; it arrives as it was, and can be averaged."""
    given_as: Any = np.asarray(number) if as_array else number
    samples: Any = np.int64(7) if as_array else 7
    made = TrainResult(model=[given_as], samples=samples, metrics={"number": given_as})
    (parameter,) = made.model
    assert (parameter.shape, parameter.dtype) == ((), np.asarray(number).dtype)
    assert (made.samples, type(made.samples)) == (7, int)
    assert type(made.metrics["number"]) is float
    payload, flags = encode_value(CborSerializer(), made)
    arrived = msgspec.convert(decode_value(payload, flags), TrainResult)
    np.testing.assert_array_equal(arrived.model[0], parameter)
    np.testing.assert_array_equal(arrived.metrics["number"], made.metrics["number"])
    if np.isfinite(number) and abs(float(number)) < 2**50:
        (average,) = fedavg([np.zeros_like(parameter)], [arrived])
        exactness = np.finfo(parameter.dtype).eps if parameter.dtype.kind == "f" else 0.0
        np.testing.assert_allclose(average, parameter, rtol=exactness, atol=0)  # seven sevenths of it


def test_results_are_checked_when_converted_from_decoded_fields() -> None:
    fields = {"model": [F32], "samples": 3, "metrics": {"loss": 0.5}}
    converted = msgspec.convert(fields, TrainResult)
    assert converted.model[0] is F32
    assert (converted.samples, converted.metrics) == (3, {"loss": 0.5})
    for bad in (
        {"samples": 0},
        {"model": [[1.0]]},
        {"model": [np.zeros(1, bool)]},
        {"metrics": {"loss": "low"}},
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(fields | bad, TrainResult)
    assert msgspec.convert({"samples": 2, "metrics": {"a": 1}}, Evaluation) == Evaluation(
        samples=2, metrics={"a": 1.0}
    )
