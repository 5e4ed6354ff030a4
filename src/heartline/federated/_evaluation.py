"""Has learners evaluate a new model, each on data of its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

from heartline.connection import Connection
from heartline.errors import HeartlineError, UnknownMethod
from heartline.federated._model import Evaluation
from heartline.federated._report import merge
from heartline.federated._stub import LearnerStub, Order
from heartline.link import open_plain_nursery
from heartline.rpc import remote

__all__ = ["evaluate", "merged"]

logger = logging.getLogger("heartline.federated")


async def evaluate(
    learners: Mapping[str, Connection], orders: Mapping[str, Order], *, max_samples: int, timeout: float
) -> dict[str, Evaluation]:
    """What the learners measured that can evaluate and have answered within ``timeout`` seconds.

    A learner that fails is left out: an evaluation changes nothing, so it need not be repeated.
    """
    evaluations: dict[str, Evaluation] = {}

    async def ask(name: str, connection: Connection) -> None:
        learner = connection.service(LearnerStub)
        try:
            if not await remote(learner.can_evaluate)():
                return
            evaluation = await learner.evaluate(orders[name])
        except UnknownMethod:
            return
        except HeartlineError as error:
            logger.debug("learner %s did not evaluate the model: %s", name, error)
            return
        if evaluation.samples > max_samples:
            logger.debug("evaluation of learner %s left out: %d samples", name, evaluation.samples)
            return
        evaluations[name] = evaluation

    with trio.move_on_after(timeout):
        async with open_plain_nursery() as nursery:
            for name, connection in learners.items():
                nursery.start_soon(ask, name, connection)
    return dict(sorted(evaluations.items()))


def merged(evaluations: Mapping[str, Evaluation]) -> Evaluation | None:
    """One evaluation of them all; ``None`` if there is none."""
    if not evaluations:
        return None
    samples, metrics = merge(evaluations)
    return Evaluation(samples=samples, metrics=metrics)
