"""How the learners' results become the next global model.

A :class:`Strategy` opens an :class:`Aggregation` for each round; results are added as they arrive and need
not be kept. :class:`FedAvg` is the one that the field starts from.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from heartline.federated._model import Model, TrainResult, as_model

_BLOCK = 8192
"""Elements worked on at a time: three scratch blocks of 64 KiB stay in a core's cache, and an accumulation
needs no temporary of the model's size."""

_LARGEST_INTEGER = 2**50
"""Of integers up to here the weighted mean in float64 is off by less than a half, so it rounds to the right
one."""

_LARGEST_SUM = 2.0**1022
"""A quarter of what float64 holds, so that no step of a sum below it can overflow."""


class Aggregation(Protocol):
    """One round's results on their way to one model."""

    def add(self, learner_id: str, result: TrainResult) -> None:
        """Take a learner's result into account.

        Raises :exc:`ValueError`, naming the learner, if the result cannot be used; the aggregation is then
        as if the result had never come.
        """

    def finish(self) -> Model:
        """Return the new global model. Raises :exc:`ValueError` if nothing was added."""
        ...


class Strategy(Protocol):
    """A way to aggregate; one object serves all rounds of a training.

    One that remembers anything from round to round is a :class:`StatefulStrategy`.
    """

    def start_round(self, model: Model, round: int) -> Aggregation:
        """Begin the aggregation of ``round`` (counted from 1), in which learners start from ``model``."""
        ...


@runtime_checkable
class StatefulStrategy(Strategy, Protocol):
    """A strategy that remembers something from round to round, such as a momentum.

    The trainer keeps its state in the checkpoint, together with the model that it belongs to. It gives the
    state back when it is started again, and before a round that follows one without a new model: what the
    strategy learned in that round is forgotten with it.
    """

    def state(self) -> Any:
        """The state, which the trainer copies: any value that can be sent, NumPy arrays included."""
        ...

    def restore(self, state: Any) -> None:
        """Take a copy of what :meth:`state` gave, which the strategy may keep; tuples have become lists."""
        ...


class FedAvg:
    """Federated averaging: the mean of the learners' models, weighted by their numbers of samples.

    This is the server's side of algorithm 1 in H. B. McMahan, E. Moore, D. Ramage, S. Hampson and
    B. Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from Decentralized Data",
    AISTATS 2017. The weights are taken over the learners whose results arrived.

    - The sums are float64 with the rounding errors carried along in a second float64, so
      memory is 16 bytes per parameter, however many learners there are.
    - The new model has the shapes and dtypes of the old one. A mean of integers (a counter, for example) is
      rounded to the nearest, halves to even.
    - **The order of arrival** does not change a bit of the new model where the sums are exact. They are if,
      for each parameter, the terms (value times samples) are multiples of some q, a power of two, and their
      magnitudes add up to at most 2**106 q, divided by the number of learners. With float32, a
      thousand learners and up to a million samples each, that holds for values within a factor of 2**40 of
      one another, zeros aside; with float64, for terms within a factor of 2**33. Outside of that nothing is
      promised: what is lost is of the order of 2**-106 of the largest term, so it rarely shows.
    """

    def start_round(self, model: Model, round: int) -> Aggregation:
        """Begin a round; ``model`` gives shapes and dtypes. Raises :exc:`ValueError` if it is no model."""
        return _Average(as_model(model))


class _Average:
    """The aggregation of :class:`FedAvg`."""

    def __init__(self, model: Model) -> None:
        self._sums = [_WeightedSum(array) for array in model]
        self._samples = 0
        self._learners: set[str] = set()
        # An upper bound on the magnitude of every sum.
        self._largest_sum = 0.0

    def add(self, learner_id: str, result: TrainResult) -> None:
        try:
            largest_sum = self._check(learner_id, result)
        except ValueError as error:
            raise ValueError(f"result of learner {learner_id!r} rejected: {error}") from None
        for total, array in zip(self._sums, result.model, strict=True):
            total.add(array, result.samples)
        self._samples += result.samples
        self._learners.add(learner_id)
        self._largest_sum = largest_sum

    def finish(self) -> Model:
        if not self._learners:
            raise ValueError("nothing to average: no learner's result was added in this round")
        return [total.mean(self._samples) for total in self._sums]

    def _check(self, learner_id: str, result: TrainResult) -> float:
        """Return the bound on the sums with ``result`` in them; raise before anything has changed."""
        if learner_id in self._learners:
            raise ValueError("the learner already has a result in this round")
        if len(result.model) != len(self._sums):
            raise ValueError(f"the model has {len(result.model)} arrays instead of {len(self._sums)}")
        largest = 0.0
        for index, (total, array) in enumerate(zip(self._sums, result.model, strict=True)):
            try:
                largest = max(largest, total.check(array))
            except ValueError as error:
                raise ValueError(f"model[{index}] {error}") from None
        largest_sum = self._largest_sum + largest * result.samples
        if largest_sum > _LARGEST_SUM:
            raise ValueError(f"values of {largest:g} times {result.samples} samples are too large to sum")
        return largest_sum


class _WeightedSum:
    """The weighted sum of arrays like one array, and what rounding took from it.

    Knuth's two-sum (The Art of Computer Programming, volume 2, section 4.2.2, theorem B) gives the exact
    error of each addition; the errors are summed beside the sum and put back at the end.
    """

    def __init__(self, like: NDArray[Any]) -> None:
        self._shape = like.shape
        self._dtype = like.dtype
        self._sum = np.zeros(like.size)
        self._lost = np.zeros(like.size)
        if like.dtype.kind == "f":
            self._lowest, self._highest = _float_range(like.dtype)
        else:
            self._lowest, self._highest = _integer_range(like.dtype)

    def check(self, array: NDArray[Any]) -> float:
        """Return the largest magnitude in ``array``; raise :exc:`ValueError` if it cannot be added."""
        if array.shape != self._shape:
            raise ValueError(f"has shape {array.shape} instead of {self._shape}")
        if not np.can_cast(array.dtype, self._dtype, casting="same_kind"):
            raise ValueError(f"has dtype {array.dtype}, which does not fit {self._dtype}")
        if array.size == 0:
            return 0.0
        # NaN spreads through both and fails both comparisons; no temporary is needed.
        lowest, highest = float(array.min()), float(array.max())
        if not (self._lowest <= lowest and highest <= self._highest):
            raise ValueError(
                f"has values from {lowest:g} to {highest:g}: "
                f"they must be finite and from {self._lowest:g} to {self._highest:g} for {self._dtype}"
            )
        return max(-lowest, highest)

    def add(self, array: NDArray[Any], weight: int) -> None:
        values = array.reshape(-1)
        scratch = np.empty((3, min(_BLOCK, values.size)))
        for start in range(0, values.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            total, lost = self._sum[block], self._lost[block]
            term, new, part = scratch[:, : total.size]
            np.multiply(values[block], float(weight), out=term, dtype=np.float64)
            np.add(total, term, out=new)
            # lost += (total - (new - part)) + (term - part), where part = new - total
            np.subtract(new, total, out=part)
            np.subtract(term, part, out=term)
            np.subtract(new, part, out=part)
            np.subtract(total, part, out=part)
            np.add(term, part, out=term)
            np.add(lost, term, out=lost)
            total[:] = new

    def mean(self, weight: int) -> NDArray[Any]:
        """Return the sum divided by ``weight``, in the shape and dtype of the array it is like."""
        result = np.empty(self._sum.size, self._dtype)
        for start in range(0, result.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            mean = (self._sum[block] + self._lost[block]) / weight
            result[block] = mean if self._dtype.kind == "f" else np.rint(mean)
        return result.reshape(self._shape)


def _float_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    limits = np.finfo(dtype)
    return float(limits.min), float(limits.max)


def _integer_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    limits = np.iinfo(dtype)
    return float(max(limits.min, -_LARGEST_INTEGER)), float(min(limits.max, _LARGEST_INTEGER))
