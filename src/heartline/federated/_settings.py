"""The settings of a trainer that are plain numbers, checked when they are given."""

from __future__ import annotations

import math
from dataclasses import dataclass

from heartline.errors import ConfigurationError
from heartline.federated._model import MAX_SAMPLES
from heartline.link import Backoff

__all__ = ["TrainerSettings"]


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """See :class:`heartline.federated.Trainer`; raises :class:`ConfigurationError`."""

    cohort: int | float | None
    minimum: int
    patience: float
    round_timeout: float | None
    evaluate_every: int | None
    max_samples: int
    max_failures: int | None
    backoff: Backoff

    def __post_init__(self) -> None:
        cohort = self.cohort
        if isinstance(cohort, float) and not 0 < cohort <= 1:
            raise ConfigurationError(f"cohort as a fraction must be above 0 and at most 1, not {cohort!r}")
        if not isinstance(cohort, float):
            _check_count("cohort", cohort, or_none=True)
        _check_count("minimum", self.minimum)
        _check_count("evaluate_every", self.evaluate_every, or_none=True)
        _check_count("max_failures", self.max_failures, or_none=True)
        _check_count("max_samples", self.max_samples, most=MAX_SAMPLES)
        if not _is_number(self.patience) or not 0 < self.patience < math.inf:
            raise ConfigurationError(f"patience must be finite seconds above 0, not {self.patience!r:.80}")
        timeout = self.round_timeout
        if timeout is not None and not (_is_number(timeout) and timeout > 0):
            raise ConfigurationError(f"round_timeout must be seconds above 0 or None, not {timeout!r:.80}")
        if not isinstance(self.backoff, Backoff):
            raise ConfigurationError(f"backoff must be a heartline.Backoff, not {self.backoff!r:.80}")


def _check_count(name: str, value: object, *, or_none: bool = False, most: float = math.inf) -> None:
    if or_none and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        bounds = "at least 1" if most == math.inf else f"from 1 to {most}"
        alternative = " or None" if or_none else ""
        raise ConfigurationError(f"{name} must be an int, {bounds}{alternative}, not {value!r:.80}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
