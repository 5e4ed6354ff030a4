"""One round: its draw, the results so far, and the report at its end."""

from __future__ import annotations

import trio

from heartline.federated._attendance import Attendance
from heartline.federated._journal import Draw, Entry, Journal, LeftOut, Received, TooFewResults
from heartline.federated._keeper import StrategyKeeper
from heartline.federated._model import Model, TrainResult
from heartline.federated._report import RoundReport, TrainerStatistics, merge
from heartline.federated._strategies import Aggregation
from heartline.federated._worker import Worker
from heartline.push import Receipt
from heartline.wire.text import printable

__all__ = ["Round", "make_statistics"]


class Round:
    """A round in progress. Its entries are on the disk before they count, if there is a journal."""

    def __init__(
        self,
        aggregation: Aggregation,
        draw: Draw,
        journal: Journal | None,
        *,
        max_samples: int,
        heavy: bool,
        worker: Worker,
    ) -> None:
        self.draw = draw
        self.results: dict[str, TrainResult] = {}
        """Without their models: these are in the aggregation, and only the report still needs the rest."""
        self.dropped: dict[str, str] = {}
        self.resumed: tuple[str, ...] = ()
        self.abandoned = False
        self.started = trio.current_time()
        self._aggregation = aggregation
        self._journal = journal
        self._max_samples = max_samples
        self._heavy = heavy
        self._worker = worker
        self._lock = trio.Lock()

    async def replay(self) -> None:
        """Apply the journal's entries, in the order in which they were written."""
        await self._worker.run(self._replay)

    def _replay(self) -> None:
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
            metrics=merge(self.results)[1],
            learner_metrics={name: result.metrics for name, result in self.results.items()},
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
            if self._heavy or self._journal is not None:
                await self._worker.run(self._record, entry)
            else:
                self._record(entry)

    async def finish(self, strategy: StrategyKeeper, model: Model) -> tuple[Model, bytes]:
        """The new model and the strategy's state: see :meth:`StrategyKeeper.finish`."""
        if self._heavy:
            return await self._worker.run(strategy.finish, self._aggregation, model)
        return strategy.finish(self._aggregation, model)

    def _record(self, entry: Entry) -> None:
        if self._journal is not None:
            self._journal.append(entry)
        self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        match entry:
            case Received(name, result):
                try:
                    self._add(name, result)
                except ValueError as error:
                    self.dropped[name] = printable(str(error))
                else:
                    self.results[name] = TrainResult(model=[], samples=result.samples, metrics=result.metrics)
            case LeftOut(name, reason):
                self.dropped[name] = reason
            case TooFewResults():
                self.abandoned = True

    def _add(self, name: str, result: TrainResult) -> None:
        if result.samples > self._max_samples:
            raise ValueError(
                f"result of learner {name!r} rejected: samples must be at most {self._max_samples} "
                f"(max_samples), got {result.samples}"
            )
        self._aggregation.add(name, result)


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
