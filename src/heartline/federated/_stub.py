"""The learner's end of the wire: what the trainer calls, and the pushes it takes.

Models are numbered by their versions, and a training order names the version to start from. The order waits
for that version: the push and the order travel on one connection, but a call may overtake an update, and in
a new session the update may come again later than the order. A version lower than the one that is there is
old news and is dropped, unless it belongs to another run: at a learner the versions of a run never go back.
An order for such a version is refused with :exc:`StaleOrder`.

An order has an id. When the trainer has lost the learner, or was restarted, it sends the order again under
the same id and gets the same result: see :mod:`heartline.federated._work`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import trio

from heartline.federated._model import Evaluation, Model, TrainResult, as_model
from heartline.federated._work import OrderRunner
from heartline.federated._worker import Worker
from heartline.rpc import service

if TYPE_CHECKING:
    from heartline.federated._learner import Learner

__all__ = ["LearnerStub", "ModelPush", "Order", "StaleOrder"]

logger = logging.getLogger("heartline.federated")

R = TypeVar("R")


class ModelPush(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An update of a federation's topic for models, such as :data:`MODEL_TOPIC`."""

    run: str
    """The training; versions of different runs are not compared."""
    version: int
    """Rounds that this model has been through; 0 is the initial one."""
    model: Model
    last: bool = False
    """The training has finished, and this is its result: learners end."""
    ended: bool = False
    """The same was pushed before, and this stays on the topic for learners of this run that come back later.
    A learner that has seen nothing of the run is not meant, and waits for the next one."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "model", as_model(self.model))


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer wants: work on this version of the model."""

    run: str
    version: int
    round: int
    config: dict[str, Any]
    id: str
    """Identifies the order: the same id sent again gets the result of the first time."""


class StaleOrder(Exception):
    """Raised at a learner whose model is newer, in the same run, than the version it was asked to work on.

    The trainer must have gone on from an older checkpoint than its last. It begins a new run from there.
    """


@service(name="Learner")
class LearnerStub:
    """The service that a learner's connection offers to its trainer."""

    def __init__(
        self,
        learner: Learner,
        on_push: Callable[[Model, int], None] | None,
        nursery: trio.Nursery,
        *,
        evaluates: bool = True,
    ) -> None:
        self._orders = OrderRunner(nursery)
        self._learner = learner
        self._on_push = on_push
        self._evaluates = evaluates
        self._current: ModelPush | None = None
        self._arrived = trio.lowlevel.ParkingLot()
        self._working = trio.Lock()
        self._worker = Worker()

    @property
    def version(self) -> int | None:
        """The version of the newest model that this learner has received."""
        return self._current.version if self._current else None

    def receive(self, push: ModelPush) -> bool:
        """Take a pushed model; tells whether it is the last."""
        current = self._current
        known = current is not None and push.run == current.run
        if push.ended and not known:
            logger.info("the last training has ended without this learner, which waits for the next one")
            return False
        if current is not None and known and push.version < current.version:
            return push.last
        self._current = push
        self._learner.on_model(push.model, push.version)
        if self._on_push is not None:
            self._on_push(push.model, push.version)
        self._arrived.unpark_all()
        return push.last

    async def train(self, order: Order) -> TrainResult:
        """Train from the ordered version; a repeated order gets the same result."""
        result: TrainResult = await self._orders.run_once(order.id, partial(self._train, order))
        return result

    async def _train(self, order: Order) -> TrainResult:
        model = await self._wait_for(order)
        return await self._work(self._learner.train, model, order, TrainResult)

    async def evaluate(self, order: Order) -> Evaluation:
        """Evaluate the ordered version."""
        model = await self._wait_for(order)
        return await self._work(self._learner.evaluate, model, order, Evaluation)

    def get_model(self) -> Model | None:
        """The learner's model, without waiting for its work."""
        model = self._learner.get_model()
        return None if model is None else as_model(model)

    def can_evaluate(self) -> bool:
        """Whether the learner defines ``evaluate``."""
        return self._evaluates

    async def _wait_for(self, order: Order) -> Model:
        while True:
            current = self._current
            if current is not None and current.run == order.run:
                if current.version == order.version:
                    return current.model
                if current.version > order.version:
                    raise StaleOrder(
                        f"the learner has version {current.version}, the order is for version {order.version}"
                    )
            await self._arrived.park()

    async def _work(self, function: Callable[..., Any], model: Model, order: Order, kind: type[R]) -> R:
        async with self._working:
            if inspect.iscoroutinefunction(function):
                result = await function(model, order.config)
            else:
                (result,) = await self._worker.run(_call, function, model, order.config)
                if inspect.isawaitable(result):  # of an async method behind a decorator that hides it
                    result = await result
        if not isinstance(result, kind):
            raise TypeError(
                f"{function.__qualname__} must return a {kind.__name__}, not a {type(result).__name__}"
            )
        return result


def _call(function: Callable[..., R], *args: Any) -> tuple[R]:
    """What a function returns, in a tuple: Trio lets no bare coroutine out of a thread."""
    return (function(*args),)
