"""What a federation exchanges: models, training results, evaluations.

Every object checks itself when it is made, so code that has one need not check it again. A result that came
over a connection was made from its decoded fields, and so went through the same checks. Where it is made, a
result also takes what NumPy gives in the place of an array or a number: a scalar is an array without
dimensions, and a count or a measurement a number of Python's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from heartline.wire.segments import MAX_DIMENSIONS, MAX_SEGMENTS
from heartline.wire.text import is_name

Model: TypeAlias = list[NDArray[Any]]
"""A model's parameters: arrays of any shape, in an order that is the same at every learner."""

MAX_SAMPLES = 2**53
"""The most samples one result may stand for: float64, in which averages are taken, counts no further."""

MAX_METRICS = 1000
"""Metrics in one result: more than anybody reads."""

_NAME_SIZE = 256
"""Characters of a metric's name."""

_DTYPES = frozenset("efdbhilqBHILQ")
"""Type characters of what can be averaged in float64 and looks the same on every machine.

That is float16 to float64 and the integers; not bool, complex, longdouble, strings or Python objects.
"""


def as_model(model: Any) -> Model:
    """The model as a list of arrays; a scalar among them becomes an array without dimensions.

    Raises :exc:`ValueError` unless ``model`` is a list of arrays of real numbers. Their values are not looked
    at: whether infinities and NaN are acceptable in a result is for the strategy to say.
    """
    if not isinstance(model, list):
        raise ValueError(f"a model must be a list of numpy arrays, got {type(model).__name__}")
    if len(model) > MAX_SEGMENTS:
        raise ValueError(f"a model must have at most {MAX_SEGMENTS} arrays, got {len(model)}")
    return [_as_array(f"model[{index}]", array) for index, array in enumerate(model)]


def _as_array(name: str, value: Any) -> NDArray[Any]:
    if not isinstance(value, (np.ndarray, np.generic, int, float)):
        raise ValueError(f"{name} must be a numpy array or a number, got {type(value).__name__}")
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{name} must not be a masked array, whose mask would be lost; fill it first")
    array = np.asarray(value)
    if array.dtype.char not in _DTYPES:
        raise ValueError(f"{name} must be of floats of 16 to 64 bits or of integers, got dtype {array.dtype}")
    if array.ndim > MAX_DIMENSIONS:
        raise ValueError(f"{name} must have at most {MAX_DIMENSIONS} dimensions, got {array.ndim}")
    return array


def check_finite(model: Model) -> None:
    """Raise :exc:`ValueError` for a model with an infinity or a NaN."""
    for index, array in enumerate(model):
        # NaN spreads through both and fails both comparisons; no temporary is needed.
        if array.size and not (-np.inf < array.min() and array.max() < np.inf):
            raise ValueError(f"model[{index}] must be finite, got values from {array.min()} to {array.max()}")


def _as_samples(samples: Any) -> int:
    if isinstance(samples, np.integer) or (isinstance(samples, np.ndarray) and samples.shape == ()):
        samples = samples.item()
    if type(samples) is bool or not isinstance(samples, int) or not 0 < samples <= MAX_SAMPLES:
        raise ValueError(f"samples must be an int from 1 to {MAX_SAMPLES}, got {samples!r:.80}")
    return samples


def _as_metrics(metrics: Any) -> dict[str, float]:
    if not isinstance(metrics, Mapping) or len(metrics) > MAX_METRICS:
        raise ValueError(f"metrics must be a mapping of at most {MAX_METRICS} names, got {metrics!r:.80}")
    return {_metric_name(name): _as_number(name, value) for name, value in metrics.items()}


def _metric_name(name: Any) -> str:
    if not is_name(name, _NAME_SIZE):
        raise ValueError(
            f"a name in metrics is text of 1 to {_NAME_SIZE} printable characters, got {name!r:.80}"
        )
    return str(name)


def _as_number(name: str, value: Any) -> float:
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    if not isinstance(value, (int, float, np.bool_, np.integer, np.floating)):
        raise ValueError(f"metrics must map names to numbers, got {name!r}: {value!r:.80}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"metrics must map names to numbers within float64, got {name!r}") from None


class TrainResult(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a learner sends back after training.

    - ``model``: the trained parameters, of the global model's shapes. A NumPy scalar or a number of Python's
      becomes an array without dimensions.
    - ``samples``: how many training samples they stand for, 1 to ``2**53``; the weight in an average. The
      trainer's ``max_samples`` may be lower.
    - ``metrics``: whatever the learner measured, as numbers by name; 1000 at most. They become floats.

    Raises :exc:`ValueError` when made with anything else. Compared by identity: arrays have no single truth.
    """

    model: Model
    samples: int
    metrics: dict[str, float] = {}

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "model", as_model(self.model))
        _settle_counts(self)


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How well a model did on a learner's own data, or on that of several.

    - ``samples``: how many samples it was measured on, 1 to ``2**53``.
    - ``metrics``: the measurements, as numbers by name; 1000 at most. They become floats.

    Raises :exc:`ValueError` when made with anything else.
    """

    samples: int
    metrics: dict[str, float] = {}

    def __post_init__(self) -> None:
        _settle_counts(self)


def _settle_counts(result: TrainResult | Evaluation) -> None:
    msgspec.structs.force_setattr(result, "samples", _as_samples(result.samples))
    msgspec.structs.force_setattr(result, "metrics", _as_metrics(result.metrics))
