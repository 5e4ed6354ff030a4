"""What a federation exchanges: models, training results, evaluations.

Every object checks itself when it is made, so code that has one need not check it again. A result that came
over a connection was made from its decoded fields, and so went through the same checks.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Model: TypeAlias = list[NDArray[Any]]
"""A model's parameters: arrays of any shape, in an order that is the same at every learner."""

MAX_SAMPLES = 2**53
"""The most samples one result may stand for: float64, in which averages are taken, counts no further."""

_DTYPES = frozenset("efdbhilqBHILQ")
"""Type characters of what can be averaged in float64 and looks the same on every machine.

That is float16 to float64 and the integers; not bool, complex, longdouble, strings or Python objects.
"""


def check_model(model: Model) -> None:
    """Raise :exc:`ValueError` unless ``model`` is a list of arrays of real numbers.

    Values are not looked at: whether infinities and NaN are acceptable is for the strategy to say.
    """
    if not isinstance(model, list):
        raise ValueError(f"a model must be a list of numpy arrays, got {type(model).__name__}")
    for index, array in enumerate(model):
        if not isinstance(array, np.ndarray):
            raise ValueError(f"model[{index}] must be a numpy array, got {type(array).__name__}")
        if array.dtype.char not in _DTYPES:
            raise ValueError(
                f"model[{index}] must be of floats of 16 to 64 bits or of integers, got dtype {array.dtype}"
            )


def _check_counted(samples: int, metrics: dict[str, float]) -> None:
    if not isinstance(samples, int) or not 0 < samples <= MAX_SAMPLES:
        raise ValueError(f"samples must be an int from 1 to {MAX_SAMPLES}, got {samples!r}")
    for name, value in metrics.items():
        if not isinstance(name, str) or not isinstance(value, (int, float)):
            raise ValueError(f"metrics must map str to float, got {name!r}: {value!r}; convert with float()")


class TrainResult(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a learner sends back after training.

    - ``model``: the trained parameters, of the global model's shapes.
    - ``samples``: how many training samples they stand for, 1 to ``2**53``; the weight in an average.
    - ``metrics``: whatever the learner measured, by name.

    Raises :exc:`ValueError` when made with anything else. Compared by identity: arrays have no single truth.
    """

    model: Model
    samples: int
    metrics: dict[str, float] = {}

    def __post_init__(self) -> None:
        check_model(self.model)
        _check_counted(self.samples, self.metrics)


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How well a model did on a learner's own data.

    - ``samples``: how many samples it was measured on, 1 to ``2**53``.
    - ``metrics``: the measurements, by name.

    Raises :exc:`ValueError` when made with anything else.
    """

    samples: int
    metrics: dict[str, float] = {}

    def __post_init__(self) -> None:
        _check_counted(self.samples, self.metrics)
