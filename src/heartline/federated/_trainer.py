"""The trainer: rounds of training over the learners that are connected.

A round: draw a cohort of the learners that are there, have them train, aggregate each result as it arrives,
save a checkpoint, push the new model to everyone. A learner that is away for too long or fails is left out of
the round; the report says why.

With a checkpoint the round in progress has a journal beside it. So a trainer that was killed anywhere finds
everything it needs to go on where it was, and one whose round was cancelled goes on in the same way.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import trio

from heartline.connection import Connection
from heartline.errors import ConfigurationError
from heartline.federated._attendance import POLL_INTERVAL, Attendance
from heartline.federated._collect import collect
from heartline.federated._files import Files
from heartline.federated._journal import Draw, Journal, TooFewResults
from heartline.federated._model import Model, check_model
from heartline.federated._progress import Progress, config_of
from heartline.federated._proxy import CurrentModel, LearnerProxy
from heartline.federated._round import Round, RoundReport, TrainerStatistics, make_statistics
from heartline.federated._strategies import FedAvg, Strategy
from heartline.federated._stub import MODEL_TOPIC, ModelPush, Order
from heartline.link import Backoff, ConnectionState, make_id
from heartline.push import History, Receipt, WaitFor
from heartline.server import Server

__all__ = ["Trainer"]

HEAVY = 4_000_000
"""Bytes of a model from which results are aggregated in a worker thread: below, the event loop is held for
less than the two milliseconds that handing the work over is worth."""

RETURN = Backoff().maximum
"""Seconds that learners have beside ``patience`` to come back to a trainer that was started again: after an
outage of hours their next attempt may be so far away."""


class Trainer:
    """Trains a model over the learners that are connected to a server.

    ``model`` is the initial global model. ``cohort``: how many learners to ask in a round, as a number or
    as a fraction of those connected; ``None``: all. ``minimum``: results without which a round does not
    count and is tried again. ``patience``: seconds that a learner may be without a connection that lives,
    until it is left out; ten, because a reconnect after a blip takes less, with four or five attempts.
    Training may take as long as it takes. ``round_timeout``: seconds after which a round goes on without
    those that did not answer all the same; ``None``: no such bound. ``config``: sent with every order, or
    made for each round by a function of its number. ``seed``: of the sampling of cohorts. ``rng``: makes
    the names of orders, which must never come twice; give a seeded one only for a run that is to be
    repeated.

    ``checkpoint``: a file that is written at the start and after each round, with a journal of the round in
    progress beside it (``.journal`` is added to the name). If it exists at the start, training goes on from
    there, in the middle of the round, and ends with the model that it would have had without the
    interruption: bit for bit where the strategy does not depend on the order of arrival, as :class:`FedAvg`
    states for itself. Results that had arrived are not asked for again. One trainer per file at a time.
    """

    def __init__(
        self,
        server: Server,
        model: Model,
        *,
        strategy: Strategy | None = None,
        cohort: int | float | None = None,
        minimum: int = 1,
        patience: float = 10.0,
        round_timeout: float | None = None,
        config: dict[str, Any] | Callable[[int], dict[str, Any]] | None = None,
        checkpoint: str | Path | None = None,
        seed: int = 0,
        rng: random.Random | None = None,
    ) -> None:
        check_model(model)
        _check_settings(cohort, minimum, patience, round_timeout)
        self._server = server
        self._rng = rng or random.SystemRandom()
        self._strategy = strategy or FedAvg()
        self._cohort = cohort
        self._minimum = minimum
        self._patience = patience
        self._round_timeout = math.inf if round_timeout is None else round_timeout
        self._config = config
        files = None if checkpoint is None else Files(Path(checkpoint))
        self._progress = Progress(model, seed=seed, files=files, make_id=self._make_id)
        self._loaded = False
        self._renewed = False
        self._grace = 0.0
        self._pushed: tuple[str, int] | None = None
        self._current: tuple[Round, Attendance] | None = None
        self._current_model = CurrentModel()
        server.declare_topic(MODEL_TOPIC, history=History(count=1))

    @property
    def model(self) -> Model:
        """The current global model."""
        return self._progress.model

    @property
    def version(self) -> int:
        """Rounds that the model has been through."""
        return self._progress.version

    @property
    def learners(self) -> dict[str, LearnerProxy]:
        """The learners that are connected and registered, by identity."""
        return {
            name: LearnerProxy._create(connection, self._current_model, self._make_id)
            for name, connection in self._present().items()
        }

    def statistics(self) -> TrainerStatistics:
        """A snapshot of the round in progress: which learners it waits for, and how long each was silent."""
        return make_statistics(self.version, *(self._current or (None, None)))

    async def start(self) -> None:
        """Load the checkpoint, or write the first, and push the current model; the first round does it too.

        Raises :exc:`ValueError` if the file is no checkpoint or is damaged, :exc:`OSError` if the disk
        refuses. After an error or a cancellation it can be called again.
        """
        if not self._loaded:
            if await self._progress.load():
                self._grace = RETURN
            self._loaded = True
        if self._pushed != (self._progress.run, self.version):
            await self._push(last=False)

    async def run(self, rounds: int) -> AsyncIterator[RoundReport]:
        """Train until the model has been through ``rounds`` rounds; yields a report after each.

        A round with too few results yields a report too, and is tried again. Raises, and may be cancelled,
        like :meth:`train_round`.
        """
        await self.start()
        while self.version < rounds:
            yield await self.train_round()

    async def finish(self, *, timeout: float = 5.0) -> Receipt:
        """Push the model for the last time, so that learners end.

        Learners that took part and are away have ``timeout`` seconds to come back for it; then all have as
        long again to confirm it. The receipt names those that did. Raises what :meth:`start` raises.
        Cancelling does not take back a model that was pushed.
        """
        await self.start()
        with trio.move_on_after(timeout):
            while not self._progress.expected <= self._present().keys():  # noqa: ASYNC110 - only at the end
                await trio.sleep(POLL_INTERVAL)
        return await self._push(last=True, wait="confirmed", timeout=timeout)

    async def train_round(self) -> RoundReport:
        """Train one round, as soon as ``minimum`` learners are connected and earlier ones had time to return.

        Raises what :meth:`start` raises. After an error or a cancellation the model and the files are those
        of the round before, and the next call goes on from what the journal has. A cancellation while the
        checkpoint is being written, or later, loses the report alone: the round counts.
        """
        await self.start()
        while not await self._collect(current := await self._begin()):
            await self._begin_new_run()
        draw, number, receipt = current.draw, self.version + 1, None
        self._progress.expected = set(draw.present) - current.dropped.keys() | self._present().keys()
        if len(current.results) >= self._minimum:
            # Saved before it is pushed: after a crash no learner can know a later model than the file's.
            await self._progress.advance(current.aggregation.finish(), draw.random_state)
            receipt = await self._push(last=False)
        else:
            await current.record(TooFewResults())
            self._progress.skip(draw.random_state)
        return current.report(number, receipt)

    # The beginning of a round

    async def _begin(self) -> Round:
        """The round of the journal, or else a new one."""
        journal = await self._progress.open_journal()
        if journal is not None:
            current = self._make_round(journal.draw, journal)
            await trio.to_thread.run_sync(current.replay)
            self._progress.expected = set(journal.draw.present)
            if not current.abandoned:
                return current
            self._progress.skip(journal.draw.random_state)
        present = await self._gather()
        number = self.version + 1
        config = self._config(number) if callable(self._config) else dict(self._config or {})
        draw = self._progress.draw(present, self._cohort, self._minimum, config)
        return self._make_round(draw, await self._progress.create_journal(draw))

    def _make_round(self, draw: Draw, journal: Journal | None) -> Round:
        aggregation = self._strategy.start_round(self.model, self.version + 1)
        heavy = sum(array.nbytes for array in self.model) >= HEAVY
        return Round(aggregation, draw, journal, heavy=heavy)

    async def _gather(self) -> list[str]:
        """The learners to draw from: waits for enough of them, and a while for those that were there before.

        So a learner that is just reconnecting can be drawn, as it could have been without the interruption.
        """
        expected = self._progress.expected
        deadline = trio.current_time() + self._patience + self._grace
        while len(present := self._present()) < self._minimum or (  # noqa: ASYNC110 - at a start or a loss
            not expected <= present.keys() and trio.current_time() < deadline
        ):
            await trio.sleep(POLL_INTERVAL)
        self._grace = 0.0
        self._progress.expected = set(present)
        return sorted(present)

    async def _collect(self, current: Round) -> bool:
        """Have the cohort train; ``False`` if a learner knows a later model of this run."""
        attendance = Attendance(current.missing, self._present, patience=self._patience, grace=self._grace)
        order = Order(
            run=self._progress.run,
            version=self.version,
            round=self.version + 1,
            config=config_of(current.draw),
            id=current.draw.order,
        )
        self._grace = 0.0
        self._current = current, attendance
        try:
            return await collect(
                current, attendance, order, timeout=self._round_timeout, heed_stale=not self._renewed
            )
        finally:
            self._current = None

    async def _begin_new_run(self) -> None:
        """Go on as another run, from the same model: somebody has put back an older checkpoint.

        Once is enough: no learner can know a later model of a new run, so a second such claim is wrong.
        """
        self._renewed = True
        await self._progress.begin_new_run()
        await self._push(last=False)

    # The model, at the learners and on the disk

    def _present(self) -> dict[str, Connection]:
        """The connections of the learners that are connected and registered, by identity."""
        subscribed = self._server.subscribers(MODEL_TOPIC)
        return {
            name: connection
            for name, connection in sorted(self._server.connections.items())
            if name in subscribed and connection.state is ConnectionState.OPEN
        }

    async def _push(self, *, last: bool, wait: WaitFor = None, timeout: float = 0.0) -> Receipt:
        # Without a wait the timeout says that no subscriber, whatever its policy, holds the training up.
        push = ModelPush(run=self._progress.run, version=self.version, model=self.model, last=last)
        self._current_model.replace(push)
        receipt = await self._server.publish(MODEL_TOPIC, push, wait=wait, timeout=timeout)
        self._pushed = (push.run, push.version)
        return receipt

    def _make_id(self) -> str:
        return make_id(self._rng)


def _check_settings(
    cohort: int | float | None, minimum: int, patience: float, round_timeout: float | None
) -> None:
    if isinstance(cohort, float) and not 0 < cohort <= 1:
        raise ConfigurationError(f"cohort as a fraction must be above 0 and at most 1, not {cohort!r}")
    if isinstance(cohort, int) and cohort < 1:
        raise ConfigurationError(f"cohort must be at least 1, not {cohort!r}")
    if minimum < 1:
        raise ConfigurationError(f"minimum must be at least 1, not {minimum!r}")
    if not 0 < patience < math.inf:
        raise ConfigurationError(f"patience must be finite seconds above 0, not {patience!r}")
    if round_timeout is not None and not round_timeout > 0:
        raise ConfigurationError(f"round_timeout must be seconds above 0 or None, not {round_timeout!r}")
