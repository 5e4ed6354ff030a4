"""What a trainer tells: a report and a line of the log for each round, and the end of its patience."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from heartline.errors import HeartlineError
from heartline.federated._model import MAX_SAMPLES, Evaluation, TrainResult
from heartline.push import Receipt
from heartline.wire.text import printable

__all__ = ["FederationFailed", "RoundReport", "TrainerStatistics", "log_round", "merge", "tell_dropped"]

logger = logging.getLogger("heartline.federated")

TOLD = 3
"""Learners that a line names of those that a round goes on without; the report names all of them."""

_REASON_SIZE = 200
"""Characters of a reason in a line of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundReport:
    """What happened in a round."""

    round: int
    """Counted from 1."""
    cohort: tuple[str, ...]
    """The learners that were asked."""
    samples: dict[str, int]
    """Samples by learner, of those whose results were used."""
    metrics: dict[str, float]
    """The means of what the learners measured, weighted by their samples. A mean is that of the learners that
    gave this metric, and gave a finite number."""
    learner_metrics: dict[str, dict[str, float]]
    """What each of them measured."""
    dropped: dict[str, str]
    """Why the others' results were not used."""
    seconds: float
    """From the first order to the new model; in a round that was resumed, from the moment it was resumed."""
    receipt: Receipt | None
    """Of the push of the new model; ``None`` when there were too few results, so that the model stayed."""
    resumed: tuple[str, ...] = ()
    """The learners of the cohort whose results were in the journal when the trainer was restarted."""
    evaluation: Evaluation | None = None
    """How well the new model does, over all learners that evaluated it; the means are as in ``metrics``.
    ``None``: it was not evaluated in this round, or by nobody."""
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    """How well it does at each of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerStatistics:
    """A snapshot of a training; the fields about a round are empty between rounds."""

    version: int
    """Rounds that the model has been through."""
    round: int | None
    """The round in progress, counted from 1."""
    cohort: tuple[str, ...]
    """The learners that take part in the round in progress."""
    received: tuple[str, ...]
    """Those whose results have arrived."""
    dropped: Mapping[str, str]
    """Those that the round goes on without, and why."""
    waiting: Mapping[str, float]
    """Those that the round waits for, and the seconds since something was heard of each: a learner with a
    connection that lives is silent for a heartbeat's interval at most, however long it trains."""
    seconds: float
    """Since the first order of the round."""


class FederationFailed(HeartlineError):
    """As many rounds in a row as ``max_failures`` allows had too few results; the model is as before them.

    ``report`` is that of the last one, with the reason of each learner.
    """

    def __init__(self, message: str, *, report: RoundReport) -> None:
        super().__init__(message)
        self.report = report


def _average(results: Iterable[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """The means of metrics, weighted by samples; a number that is not finite counts for no mean."""
    values: dict[str, list[tuple[int, float]]] = {}
    for samples, metrics in results:
        for name, value in metrics.items():
            if math.isfinite(value):
                values.setdefault(name, []).append((samples, value))
    return {name: _mean(weighted) for name, weighted in values.items()}


def _mean(weighted: list[tuple[int, float]]) -> float:
    total = sum(samples for samples, _ in weighted)
    # In any order the same, and never above the largest value.
    return math.fsum(value * (samples / total) for samples, value in weighted)


def merge(results: Mapping[str, TrainResult | Evaluation]) -> tuple[int, dict[str, float]]:
    """What several learners measured: all their samples, and the means."""
    counted = [(result.samples, result.metrics) for result in results.values()]
    return min(MAX_SAMPLES, sum(samples for samples, _ in counted)), _average(counted)


def log_round(federation: str, report: RoundReport) -> None:
    """The line of a round."""
    failed = report.receipt is None
    parts = [f"{len(report.samples)} of {len(report.cohort)} learners trained in {report.seconds:.1f} s"]
    parts += [f"{name} {value:.4g}" for name, value in sorted(report.metrics.items())]
    if report.evaluation is not None:
        parts.append(f"evaluated by {len(report.evaluations)}")
        parts += [f"{name} {value:.4g}" for name, value in sorted(report.evaluation.metrics.items())]
    if report.dropped:
        parts.append(f"without {tell_dropped(report.dropped)}")
    tell = logger.warning if failed else logger.info
    tell(
        "federation %s, round %d%s: %s",
        federation,
        report.round,
        " failed, the model stays" if failed else "",
        "; ".join(parts),
    )


def tell_dropped(dropped: Mapping[str, str]) -> str:
    """Those that a round goes on without, in a line."""
    told = [f"{name} ({printable(reason, _REASON_SIZE)})" for name, reason in sorted(dropped.items())[:TOLD]]
    rest = len(dropped) - len(told)
    return ", ".join(told) + (f" and {rest} more" if rest else "")
