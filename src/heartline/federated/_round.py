"""One round: its draw, the results so far, and the report at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from heartline.federated._attendance import Attendance
from heartline.federated._journal import Draw, Entry, Journal, LeftOut, Received, TooFewResults
from heartline.federated._model import TrainResult
from heartline.federated._strategies import Aggregation
from heartline.push import Receipt

__all__ = ["Round", "RoundReport", "TrainerStatistics", "make_statistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundReport:
    """What happened in a round."""

    round: int
    """Counted from 1."""
    cohort: tuple[str, ...]
    """The learners that were asked."""
    samples: dict[str, int]
    """Samples by learner, of those whose results were used."""
    metrics: dict[str, dict[str, float]]
    """What the learners measured."""
    dropped: dict[str, str]
    """Why the others' results were not used."""
    seconds: float
    """From the first order to the new model; in a round that was resumed, from the moment it was resumed."""
    receipt: Receipt | None
    """Of the push of the new model; ``None`` when there were too few results, so that the model stayed."""
    resumed: tuple[str, ...] = ()
    """The learners of the cohort whose results were in the journal when the trainer was restarted."""


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


class Round:
    """A round in progress. Its entries are on the disk before they count, if there is a journal."""

    def __init__(self, aggregation: Aggregation, draw: Draw, journal: Journal | None, *, heavy: bool) -> None:
        self.aggregation = aggregation
        self.draw = draw
        self.results: dict[str, TrainResult] = {}
        """Without their models: these are in the aggregation, and only the report still needs the rest."""
        self.dropped: dict[str, str] = {}
        self.resumed: tuple[str, ...] = ()
        self.abandoned = False
        self.started = trio.current_time()
        self._journal = journal
        self._threaded = heavy or journal is not None
        self._lock = trio.Lock()

    def replay(self) -> None:
        """Apply the journal's entries, in the order in which they were written; blocks."""
        assert self._journal is not None
        for entry in self._journal.replay():
            self._apply(entry)
        self.resumed = tuple(self.results)

    @property
    def missing(self) -> list[str]:
        """The learners that have not answered and were not left out."""
        return [name for name in self.draw.cohort if name not in self.results and name not in self.dropped]

    def report(self, number: int, receipt: Receipt | None) -> RoundReport:
        """What happened, at the end."""
        return RoundReport(
            round=number,
            cohort=tuple(self.draw.cohort),
            samples={name: result.samples for name, result in self.results.items()},
            metrics={name: result.metrics for name, result in self.results.items()},
            dropped=self.dropped,
            seconds=trio.current_time() - self.started,
            receipt=receipt,
            resumed=self.resumed,
        )

    async def record(self, entry: Entry) -> None:
        """Write an entry to the journal and let it count; one entry at a time.

        A cancellation either comes first, and the entry does not count, or has no effect. Raises
        :exc:`OSError` if the journal cannot be written: the entry does not count then.
        """
        async with self._lock:
            if self._threaded:
                await trio.to_thread.run_sync(self._record, entry)
            else:
                self._record(entry)

    def _record(self, entry: Entry) -> None:
        if self._journal is not None:
            self._journal.append(entry)
        self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        match entry:
            case Received(name, result):
                try:
                    self.aggregation.add(name, result)
                except ValueError as error:
                    self.dropped[name] = str(error)
                else:
                    self.results[name] = TrainResult(model=[], samples=result.samples, metrics=result.metrics)
            case LeftOut(name, reason):
                self.dropped[name] = reason
            case TooFewResults():
                self.abandoned = True


def make_statistics(version: int, current: Round | None, attendance: Attendance | None) -> TrainerStatistics:
    """Take the snapshot, at any moment: a thread may be recording a result meanwhile."""
    if current is None or attendance is None:
        return TrainerStatistics(
            version=version, round=None, cohort=(), received=(), dropped={}, waiting={}, seconds=0.0
        )
    return TrainerStatistics(
        version=version,
        round=version + 1,
        cohort=tuple(current.draw.cohort),
        received=tuple(current.results),
        dropped=dict(current.dropped),
        waiting=attendance.waiting(),
        seconds=trio.current_time() - current.started,
    )
