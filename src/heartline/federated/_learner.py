"""The learner: what a user writes, and the program that keeps it connected."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Unpack

from heartline.connection import Connection
from heartline.endpoints import ConnectionSettings, open_connection
from heartline.errors import ConfigurationError
from heartline.federated._federation import DEFAULT, learners_topic, model_topic
from heartline.federated._model import Evaluation, Model, TrainResult
from heartline.federated._stub import LearnerStub, ModelPush
from heartline.link import open_plain_nursery
from heartline.observe import check_function
from heartline.push import Subscription

__all__ = ["Learner", "run_learner"]

PATIENCE = 60.0
"""Seconds to wait for a server that is not there yet: the parts of a federation are started in any order."""

OnPush = Callable[[Model, int], None]


class Learner:
    """A participant with data of its own; subclass it and write :meth:`train`.

    ``train`` and ``evaluate`` may be sync, which is right for anything that computes: they then run in a
    worker thread, and heartbeats go on meanwhile. Or async, for what waits. Only one of them runs at a time.
    """

    model: Model | None = None
    """The local model: the last global one, until ``train`` replaces it."""

    def train(self, model: Model, config: dict[str, Any]) -> TrainResult | Awaitable[TrainResult]:
        """Train from the global ``model`` on this learner's data.

        ``config`` is what the trainer sends with the order of this round. The method is called once for each
        order, even if the connection is lost or the trainer is restarted meanwhile; only a learner that is
        itself restarted is asked again.
        """
        raise NotImplementedError(f"{type(self).__name__} must define train(model, config)")

    def evaluate(self, model: Model, config: dict[str, Any]) -> Evaluation | Awaitable[Evaluation]:
        """Measure the global ``model`` on this learner's data. A learner without this method is not asked."""
        raise NotImplementedError(f"{type(self).__name__} does not define evaluate(model, config)")

    def get_model(self) -> Model | None:
        """The local model, without waiting."""
        return self.model

    def on_model(self, model: Model, version: int) -> None:
        """A new global model has arrived; called in the event loop, so keep it short."""
        self.model = model


async def run_learner(
    target: str,
    learner: Learner,
    *,
    federation: str = DEFAULT,
    on_push: OnPush | None = None,
    **settings: Unpack[ConnectionSettings],
) -> None:
    """Take part in a federation until its trainer has finished.

    It connects to ``target``, registers, takes every new model and trains when asked. After a loss it comes
    back by itself and gets the current model. ``federation``: which one of the server's, by the name that
    its trainer has. A training that finished before this learner came does not concern it: it waits for the
    next one of the federation. ``on_push(model, version)`` is called beside ``learner.on_model``.
    ``settings`` are those of :func:`heartline.open_connection`. ``patience`` is a minute unless given,
    because the parts of a federation are started in any order; ``identity`` should be the same at every
    start, so that the trainer recognizes the learner.

    Raises what ended the connection for good, such as :class:`ConnectionRefusedByPeer`, and
    :class:`Forbidden` if the server's middleware lets it not register. Cancelling says
    goodbye and cancels the work in progress; a sync ``train`` is waited for, and can ask with
    :func:`trio.from_thread.check_cancelled` whether to give up.
    """
    if not isinstance(learner, Learner):
        raise ConfigurationError(f"learner must be a heartline.federated.Learner, not {learner!r}")
    check_function("learner.on_model", learner.on_model, "model", "version")
    check_function("learner.get_model", learner.get_model)
    if on_push is not None:
        check_function("on_push", on_push, "model", "version")
    topics = model_topic(federation), learners_topic(federation)
    # The nursery of the work: a training outlives the connection on which it was ordered, and the next one
    # answers with its result.
    async with open_plain_nursery() as nursery:
        evaluates = type(learner).evaluate is not Learner.evaluate
        stub = LearnerStub(learner, on_push, nursery, evaluates=evaluates)
        settings["services"] = [stub, *settings.get("services", ())]
        settings.setdefault("patience", PATIENCE)
        async with open_connection(target, **settings) as connection:
            await _follow(connection, stub, *topics)
        nursery.cancel_scope.cancel()


async def _follow(connection: Connection, stub: LearnerStub, models: str, learners: str) -> None:
    """Register, and take every model, until the last one."""
    async with (
        connection.subscribe(
            models, type=ModelPush, since="newest", policy="keep newest", on_gap="raise"
        ) as updates,
        # Behind the other: a learner that is registered gets what is pushed.
        connection.subscribe(learners) as registration,
        open_plain_nursery() as nursery,
    ):
        nursery.start_soon(_stay_registered, registration)
        async for update in updates:
            if stub.receive(update.value):
                nursery.cancel_scope.cancel()
                return


async def _stay_registered(registration: Subscription[Any]) -> None:
    """Register again in each new session, which a subscription does while it is iterated."""
    async for _ in registration:
        pass  # nothing is published there
