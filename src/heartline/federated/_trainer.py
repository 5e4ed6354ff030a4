"""The trainer: rounds of training over whoever is connected.

A round: sample a cohort of the learners that are there, have them train, aggregate each result as it arrives,
push the new model to everyone, save a checkpoint. A learner that is lost, fails or is late is left out of the
round, and told about in its report.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from heartline.errors import ConfigurationError, HeartlineError
from heartline.federated._checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from heartline.federated._model import Model, TrainResult, check_model
from heartline.federated._proxy import Board, LearnerProxy
from heartline.federated._strategies import Aggregation, FedAvg, Strategy
from heartline.federated._stub import MODEL_TOPIC, ModelPush
from heartline.push import History, Receipt
from heartline.server import Server, WaitFor

__all__ = ["RoundReport", "Trainer"]

POLL_INTERVAL = 0.05
"""Seconds between looks at who is connected, while there are too few learners to begin."""

HEAVY = 4_000_000
"""Bytes of a model from which results are aggregated in a worker thread: below, the event loop is held for
less than the two milliseconds that handing the work over is worth."""


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
    """From the first order to the new model."""
    receipt: Receipt | None
    """Of the push of the new model; ``None`` when there were too few results, so that the model stayed."""


@dataclass(slots=True)
class _Round:
    """A round in progress."""

    aggregation: Aggregation
    lock: trio.Lock = field(default_factory=trio.Lock)
    results: dict[str, TrainResult] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


class Trainer:
    """Trains a model over the learners that are connected to a server.

    ``model`` is the initial global model. ``cohort``: how many learners to ask in a round, as a number or as
    a fraction of those connected; ``None``: all. ``minimum``: results without which a round does not count
    and is tried again. ``round_timeout``: seconds after which a round goes on without those that did not
    answer; ``None``: it waits as long as their connections live. ``config``: sent with every order, or made
    for each round by a function of its number. ``checkpoint``: a file that is written after each round; if it
    exists when the first round begins, training goes on from there. ``seed``: of the sampling of cohorts.
    """

    def __init__(
        self,
        server: Server,
        model: Model,
        *,
        strategy: Strategy | None = None,
        cohort: int | float | None = None,
        minimum: int = 1,
        round_timeout: float | None = None,
        config: dict[str, Any] | Callable[[int], dict[str, Any]] | None = None,
        checkpoint: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        check_model(model)
        _check_settings(cohort, minimum, round_timeout)
        self.model: Model = model
        """The current global model."""
        self.version: int = 0
        """Rounds that the model has been through."""
        self._server = server
        self._strategy = strategy or FedAvg()
        self._cohort = cohort
        self._minimum = minimum
        self._round_timeout = round_timeout
        self._config = config
        self._checkpoint = None if checkpoint is None else Path(checkpoint)
        self._rng = random.Random(seed)
        self._run = f"{server.setup.rng.getrandbits(64):016x}"
        self._board = Board()
        server.declare_topic(MODEL_TOPIC, history=History(count=1))

    @property
    def learners(self) -> dict[str, LearnerProxy]:
        """The learners that are connected and registered, by identity."""
        subscribed = self._server.subscribers(MODEL_TOPIC)
        return {
            name: LearnerProxy(connection, self._board)
            for name, connection in sorted(self._server.connections.items())
            if name in subscribed
        }

    async def start(self) -> None:
        """Load the checkpoint, if there is one, and push the current model; the first round does it too."""
        if self._board.current is not None:
            return
        if self._checkpoint is not None and self._checkpoint.exists():
            saved = await trio.to_thread.run_sync(load_checkpoint, self._checkpoint)
            self._restore(saved)
        await self._push(last=False)

    async def run(self, rounds: int) -> AsyncIterator[RoundReport]:
        """Train until the model has been through ``rounds`` rounds; gives a report after each.

        A round with too few results gives a report too, and is tried again.
        """
        await self.start()
        while self.version < rounds:
            yield await self.train_round()

    async def finish(self, *, timeout: float = 5.0) -> Receipt:
        """Push the model for the last time, so that learners end; waits ``timeout`` seconds for them to."""
        await self.start()
        return await self._push(last=True, wait="confirmed", timeout=timeout)

    async def train_round(self) -> RoundReport:
        """One round; waits first until ``minimum`` learners are connected."""
        await self.start()
        learners = await self._wait_learners()
        cohort = self._sample(sorted(learners))
        number = self.version + 1
        config = self._config(number) if callable(self._config) else dict(self._config or {})
        current = _Round(self._strategy.start_round(self.model, number))
        started = trio.current_time()
        with trio.move_on_after(float("inf") if self._round_timeout is None else self._round_timeout):
            async with trio.open_nursery() as nursery:
                for name in cohort:
                    nursery.start_soon(self._train_one, learners[name], config, current)
        for name in cohort:
            if name not in current.results and name not in current.dropped:
                current.dropped[name] = f"no result within {self._round_timeout:g} s (round_timeout)"
        receipt = None
        if len(current.results) >= self._minimum:
            self.model = current.aggregation.finish()
            self.version = number
            # Saved before anyone has it: after a crash no learner knows a later model than the file.
            await self._save()
            receipt = await self._push(last=False)
        return RoundReport(
            round=number,
            cohort=tuple(cohort),
            samples={name: result.samples for name, result in current.results.items()},
            metrics={name: result.metrics for name, result in current.results.items()},
            dropped=current.dropped,
            seconds=trio.current_time() - started,
            receipt=receipt,
        )

    async def _wait_learners(self) -> dict[str, LearnerProxy]:
        while len(learners := self.learners) < self._minimum:  # noqa: ASYNC110 - seconds, at a start only
            await trio.sleep(POLL_INTERVAL)
        return learners

    def _sample(self, names: list[str]) -> list[str]:
        count = len(names) if self._cohort is None else self._cohort
        if isinstance(count, float):
            count = round(count * len(names))
        return sorted(self._rng.sample(names, min(len(names), max(self._minimum, count))))

    async def _train_one(self, learner: LearnerProxy, config: dict[str, Any], current: _Round) -> None:
        try:
            result = await learner.train(config)
            async with current.lock:
                if sum(array.nbytes for array in self.model) >= HEAVY:
                    await trio.to_thread.run_sync(current.aggregation.add, learner.id, result)
                else:
                    current.aggregation.add(learner.id, result)
        except (HeartlineError, ValueError) as error:
            current.dropped[learner.id] = str(error)
        else:
            # The parameters are in the aggregation now: only what the report tells is kept.
            current.results[learner.id] = TrainResult(
                model=[], samples=result.samples, metrics=result.metrics
            )

    async def _push(self, *, last: bool, wait: WaitFor = None, timeout: float = 0.0) -> Receipt:
        # Without a wait the timeout says that no subscriber, whatever its policy, holds the training up.
        push = ModelPush(run=self._run, version=self.version, model=self.model, last=last)
        self._board.show(push)
        return await self._server.publish(MODEL_TOPIC, push, wait=wait, timeout=timeout)

    # Checkpoints

    def _restore(self, saved: Checkpoint) -> None:
        version, internal, gauss = saved.random_state
        self._rng.setstate((version, tuple(internal), gauss))
        self._run = saved.metadata["run"]
        self.model, self.version = saved.model, saved.round

    async def _save(self) -> None:
        if self._checkpoint is not None:
            state = Checkpoint(
                round=self.version,
                model=self.model,
                random_state=self._rng.getstate(),
                metadata={"run": self._run},
            )
            await trio.to_thread.run_sync(save_checkpoint, self._checkpoint, state)


def _check_settings(cohort: int | float | None, minimum: int, round_timeout: float | None) -> None:
    if isinstance(cohort, float) and not 0 < cohort <= 1:
        raise ConfigurationError(f"cohort as a fraction must be above 0 and at most 1, not {cohort!r}")
    if isinstance(cohort, int) and cohort < 1:
        raise ConfigurationError(f"cohort must be at least 1, not {cohort!r}")
    if minimum < 1:
        raise ConfigurationError(f"minimum must be at least 1, not {minimum!r}")
    if round_timeout is not None and not round_timeout > 0:
        raise ConfigurationError(f"round_timeout must be seconds above 0 or None, not {round_timeout!r}")
