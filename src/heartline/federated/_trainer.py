"""The trainer: rounds of training over the learners that are connected.

A round: draw a cohort of the learners that are there, have them train, aggregate each result as it arrives,
save a checkpoint, push the new model to everyone. A learner that is away for too long or fails is left out of
the round; the report says why.

With a checkpoint the round in progress has a journal beside it. So a trainer that was killed anywhere finds
everything it needs to go on where it was, and one whose round was cancelled goes on in the same way.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from heartline.errors import ConfigurationError
from heartline.federated._attendance import POLL_INTERVAL, Attendance
from heartline.federated._collect import collect
from heartline.federated._config import Config, ConfigSource, configs_of
from heartline.federated._evaluation import evaluate, merged
from heartline.federated._failures import PAUSES, Failures
from heartline.federated._federation import DEFAULT, Federation
from heartline.federated._files import Files
from heartline.federated._journal import Draw, Journal, TooFewResults
from heartline.federated._keeper import StrategyKeeper
from heartline.federated._model import Evaluation, Model, as_model, check_finite
from heartline.federated._progress import Progress
from heartline.federated._proxy import CurrentModel, LearnerProxy
from heartline.federated._report import RoundReport, TrainerStatistics, log_round
from heartline.federated._round import Round, make_statistics
from heartline.federated._settings import TrainerSettings
from heartline.federated._strategies import FedAvg, Strategy
from heartline.federated._stub import ModelPush, Order
from heartline.federated._worker import Worker
from heartline.link import GOODBYE_GRACE, Backoff, make_id
from heartline.push import Receipt, WaitFor
from heartline.server import Server

__all__ = ["Trainer"]

logger = logging.getLogger("heartline.federated")

HEAVY = 4_000_000
"""Bytes of a model from which results are aggregated in a worker thread: below, the event loop is held for
less than the two milliseconds that handing the work over is worth."""

RETURN = Backoff().maximum
"""Seconds that learners have beside ``patience`` to come back to a trainer that was started again: after an
outage of hours their next attempt may be so far away."""

HOUR = 3600.0
"""Seconds that a round takes at most, if nobody says otherwise: a learner that lives and never answers costs
an hour, and not the training."""

LARGEST_DATASET = 10**9
"""Samples of a result, if nobody says otherwise: more than a learner has, and much less than 2**53, which
would decide the average alone."""

SAY_AGAIN = 60.0
"""Seconds between the first two lines of the log about learners that are waited for. The pauses double, up to
an hour: some learners may be away for days."""


class Trainer:
    """Trains a model over the learners that are connected to a server.

    ``model`` is the initial global model, whose values are finite. ``federation``: its name among those of
    the server; learners join one by its name. One trainer works in a federation at a time, and the next one
    takes over what it left.

    - ``strategy``: how results become the next model; ``None``: :class:`FedAvg`.
    - ``cohort``: how many learners to ask in a round, as a number or as a fraction of those connected;
      ``None``: all.
    - ``minimum``: results without which a round does not count and is tried again.
    - ``patience``: seconds that a learner may be without a connection that lives, until it is left out; ten,
      because a reconnect after a blip takes less, with four or five attempts.
    - ``round_timeout``: seconds after which a round goes on without those that did not answer all the same.
      An hour, so that a learner that never answers costs a round an hour; give more where training takes
      longer. ``None``: no such bound.
    - ``config``: sent with every order; or a function that makes it, of the round's number, or of the number
      and the learner's name. It is sent as it was checked, before anything of the round is on the disk.
    - ``evaluate_every``: after so many rounds, counted by their numbers, the new model is evaluated by all
      learners there that define ``evaluate``; ``None``: never.
    - ``max_samples``: the most that one result may stand for, as its weight in the average; a result above
      is not used. A billion, because nobody can check the number and few learners have as many.
    - ``max_failures``: rounds in a row that may fail, with too few results; then :class:`FederationFailed`
      is raised. Ten; ``None``: no bound. ``backoff``: the pauses between them.
    - ``seed``: of the sampling of cohorts. ``rng``: makes the names of orders, which must never come twice,
      and the pauses; give a seeded one only for a run that is to be repeated.

    ``checkpoint``: a file that is written at the start and after each round, with a journal of the round in
    progress beside it (``.journal`` is added to the name). If it exists at the start, training goes on from
    there, in the middle of the round, and ends with the model that it would have had without the
    interruption: bit for bit where the strategy does not depend on the order of arrival, as :class:`FedAvg`
    states for itself. Results that had arrived are not asked for again. One trainer per file at a time.

    Raises :class:`ConfigurationError` for a wrong setting, and :exc:`ValueError` for what is no model.
    """

    def __init__(
        self,
        server: Server,
        model: Model,
        *,
        federation: str = DEFAULT,
        strategy: Strategy | None = None,
        cohort: int | float | None = None,
        minimum: int = 1,
        patience: float = 10.0,
        round_timeout: float | None = HOUR,
        config: ConfigSource = None,
        evaluate_every: int | None = None,
        max_samples: int = LARGEST_DATASET,
        max_failures: int | None = 10,
        backoff: Backoff = PAUSES,
        checkpoint: str | Path | None = None,
        seed: int = 0,
        rng: random.Random | None = None,
    ) -> None:
        model = as_model(model)
        check_finite(model)
        if not isinstance(server, Server):
            raise ConfigurationError(f"server must be a heartline.Server, not {server!r:.80}")
        self._settings = TrainerSettings(
            cohort=cohort,
            minimum=minimum,
            patience=patience,
            round_timeout=round_timeout,
            evaluate_every=evaluate_every,
            max_samples=max_samples,
            max_failures=max_failures,
            backoff=backoff,
        )
        self._config = Config(config)
        self._server = server
        self._federation = Federation(server, federation)
        self._rng = rng or random.SystemRandom()
        self._strategy = StrategyKeeper(FedAvg() if strategy is None else strategy)
        self._worker = Worker()
        self._timeout = math.inf if round_timeout is None else round_timeout
        self._progress = Progress(
            model,
            strategy=self._strategy,
            seed=seed,
            files=None if checkpoint is None else Files(Path(checkpoint)),
            worker=self._worker,
            make_id=self._make_id,
        )
        self._loaded = False
        self._renewed = False
        self._grace = 0.0
        self._pushed: tuple[str, int] | None = None
        self._failures = Failures(self._settings, self._rng)
        self._current: tuple[Round, Attendance] | None = None
        self._current_model = CurrentModel()

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
            for name, connection in self._federation.learners().items()
        }

    def statistics(self) -> TrainerStatistics:
        """A snapshot of the round in progress: which learners it waits for, and how long each was silent."""
        return make_statistics(self.version, *(self._current or (None, None)))

    async def start(self) -> None:
        """Load the checkpoint, or write the first, and push the current model; the first round does it too.

        Raises :exc:`ValueError` if the file is no checkpoint or is damaged, :exc:`OSError` if the disk
        refuses, and :class:`ConfigurationError` if the federation has another trainer at work. After an
        error or a cancellation it can be called again.
        """
        with self._federation.hold():
            if not self._loaded:
                if await self._progress.load():
                    self._grace = RETURN
                self._loaded = True
            if self._federation.taken_over or self._pushed != (self._progress.run, self.version):
                await self._push(last=False)

    async def run(self, rounds: int) -> AsyncIterator[RoundReport]:
        """Train until the model has been through ``rounds`` rounds; yields a report after each.

        A round with too few results yields a report too, and is tried again. Raises, and may be cancelled,
        like :meth:`train_round`. No other trainer can work in the federation before it has ended.
        """
        with self._federation.hold():
            await self.start()
            while self.version < rounds:
                yield await self.train_round()

    async def finish(self, *, timeout: float = 5.0) -> Receipt:
        """Push the model for the last time, so that learners end.

        Learners that took part and are away have ``timeout`` seconds to come back for it; then all have as
        long again to confirm it. The receipt names those that did. A learner that took part and comes back
        later still ends; one that comes for the first time waits for the next training. Raises what
        :meth:`start` raises. Cancelling does not take back a model that was pushed.
        """
        with self._federation.hold():
            await self.start()
            with trio.move_on_after(timeout):
                while not self._progress.expected <= self._federation.learners().keys():  # noqa: ASYNC110 - at the end
                    await trio.sleep(POLL_INTERVAL)
            try:
                receipt = await self._push(last=True, wait="confirmed", timeout=timeout)
            except trio.Cancelled:
                with trio.move_on_after(GOODBYE_GRACE, shield=True):
                    await self._end_training()
                raise
            await self._end_training()
            return receipt

    async def _end_training(self) -> None:
        """Leave word for learners that come back later, and none that ends those of the next training."""
        await self._push(last=True, ended=True)

    async def train_round(self) -> RoundReport:
        """Train one round, as soon as ``minimum`` learners are connected and earlier ones had time to return.

        A round that has too few results is told in its report, which has no receipt; the next one begins
        after a pause. Raises what :meth:`start` raises, :class:`FederationFailed` at ``max_failures`` such
        rounds in a row, :class:`ConfigurationError` for a config or a new model that is none, and
        :class:`SerializationError` for a config or a strategy's state that cannot be sent.

        After an error or a cancellation the model and the files are those of the round before, and the next
        call goes on from what the journal has. A cancellation while the checkpoint is being written, or
        later, loses only the report, as does an error in making the config for an evaluation: the round
        counts.
        """
        with self._federation.hold():
            await self.start()
            await self._failures.pause()
            while not await self._collect(current := await self._begin()):
                await self._begin_new_run()
            report = await self._end(current)
            log_round(self._federation.name, report)
            self._failures.count(report)
            return report

    async def _end(self, current: Round) -> RoundReport:
        """Make the new model, save it, push it and have it evaluated."""
        draw, number = current.draw, self.version + 1
        self._progress.expected = (
            set(draw.present) - current.dropped.keys() | self._federation.learners().keys()
        )
        if len(current.results) < self._settings.minimum:
            await current.record(TooFewResults())
            self._progress.skip(draw.random_state)
            return current.report(number, None)
        model, state = await current.finish(self._strategy, self.model)
        # Saved before it is pushed: after a crash no learner can know a later model than the file's.
        await self._progress.advance(model, state, draw.random_state)
        receipt = await self._push(last=False)
        report = current.report(number, receipt)
        every = self._settings.evaluate_every
        if every is None or number % every:
            return report
        evaluations = await self._evaluate(number)
        return replace(report, evaluation=merged(evaluations), evaluations=evaluations)

    # The beginning of a round

    async def _begin(self) -> Round:
        """The round of the journal, or else a new one."""
        journal = await self._progress.open_journal()
        if journal is not None:
            current = self._make_round(journal.draw, journal)
            await current.replay()
            self._progress.expected = set(journal.draw.present)
            if not current.abandoned:
                return current
            self._progress.skip(journal.draw.random_state)
        present = await self._gather()
        settings, configure = self._settings, partial(self._config.make, self.version + 1)
        draw = self._progress.draw(present, settings.cohort, settings.minimum, configure)
        return self._make_round(draw, await self._progress.create_journal(draw))

    def _make_round(self, draw: Draw, journal: Journal | None) -> Round:
        aggregation = self._strategy.start_round(self.model, self.version + 1)
        heavy = sum(array.nbytes for array in self.model) >= HEAVY
        return Round(
            aggregation,
            draw,
            journal,
            max_samples=self._settings.max_samples,
            heavy=heavy,
            worker=self._worker,
        )

    async def _gather(self) -> list[str]:
        """The learners to draw from: waits for enough of them, and a while for those that were there before.

        So a learner that is just reconnecting can be drawn, as it could have been without the interruption.
        """
        expected, minimum = self._progress.expected, self._settings.minimum
        deadline = trio.current_time() + self._settings.patience + self._grace
        say, pause = trio.current_time(), SAY_AGAIN
        while len(present := self._federation.learners()) < minimum or (
            not expected <= present.keys() and trio.current_time() < deadline
        ):
            if len(present) < minimum and trio.current_time() >= say:
                say, pause = say + pause, min(2 * pause, HOUR)
                logger.info(
                    "federation %s, round %d: waiting for %d learners, %d are there",
                    self._federation.name,
                    self.version + 1,
                    minimum,
                    len(present),
                )
            await trio.sleep(POLL_INTERVAL)
        self._grace = 0.0
        self._progress.expected = set(present)
        return sorted(present)

    async def _collect(self, current: Round) -> bool:
        """Have the cohort train; ``False`` if a learner knows a later model of this run."""
        draw = current.draw
        attendance = Attendance(
            current.missing, self._federation.learners, patience=self._settings.patience, grace=self._grace
        )
        orders = self._orders(draw.order, self.version + 1, draw.cohort, draw.configs)
        self._grace = 0.0
        self._current = current, attendance
        try:
            return await collect(
                current, attendance, orders, timeout=self._timeout, heed_stale=not self._renewed
            )
        finally:
            self._current = None

    def _orders(
        self, id: str, round: int, learners: Sequence[str], configs: Sequence[bytes]
    ) -> dict[str, Order]:
        """An order of this id for each learner, on the current model."""
        return {
            name: Order(run=self._progress.run, version=self.version, round=round, config=config, id=id)
            for name, config in configs_of(configs, learners).items()
        }

    async def _evaluate(self, round: int) -> dict[str, Evaluation]:
        """Have the learners that are there evaluate the model that this round has made."""
        learners = self._federation.learners()
        orders = self._orders(
            self._make_id(), round, list(learners), self._config.make(round, list(learners))
        )
        return await evaluate(learners, orders, max_samples=self._settings.max_samples, timeout=self._timeout)

    async def _begin_new_run(self) -> None:
        """Go on as another run, from the same model: somebody has put back an older checkpoint.

        Once is enough: no learner can know a later model of a new run, so a second such claim is wrong.
        """
        self._renewed = True
        await self._progress.begin_new_run()
        await self._push(last=False)

    # The model, at the learners and on the disk

    async def _push(
        self, *, last: bool, ended: bool = False, wait: WaitFor = None, timeout: float = 0.0
    ) -> Receipt:
        # Without a wait the timeout says that no subscriber, whatever its policy, holds the training up.
        push = ModelPush(
            run=self._progress.run, version=self.version, model=self.model, last=last, ended=ended
        )
        if not ended:
            self._current_model.replace(push)
        topic = self._federation.model_topic
        receipt = await self._server.publish(topic, push, wait=wait, timeout=timeout)
        self._pushed = None if ended else (push.run, push.version)
        self._federation.taken_over = False
        return receipt

    def _make_id(self) -> str:
        return make_id(self._rng)
