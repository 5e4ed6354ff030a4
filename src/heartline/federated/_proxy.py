"""The trainer's view of a learner: the learner's interface, over its connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, final

import trio

from heartline.connection import Connection
from heartline.errors import LocalProtocolError
from heartline.federated._model import Evaluation, Model, TrainResult
from heartline.federated._stub import LearnerStub, ModelPush, Order
from heartline.link import NoPublicConstructor

__all__ = ["CurrentModel", "LearnerProxy"]


class CurrentModel:
    """The model that was pushed last, and those who want to hear of the next one."""

    def __init__(self) -> None:
        self.push: ModelPush | None = None
        self.callbacks: list[Callable[[Model, int], None]] = []
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()

    def replace(self, push: ModelPush) -> None:
        """Make a new push the current one, and tell everybody who wants to hear of it."""
        self.push = push
        for callback in self.callbacks:
            callback(push.model, push.version)
        self.changed.unpark_all()


@final
class LearnerProxy(metaclass=NoPublicConstructor):
    """A learner as the server sees it; its methods call the learner, with the current global model.

    They raise what calls raise: :class:`RemoteError` when the learner raised, :class:`CallInterrupted` when
    its connection was lost. :meth:`train` and :meth:`evaluate` raise :class:`LocalProtocolError` before the
    first push. Cancelling one of them tells the learner, which cancels its work where that can be cancelled.
    """

    def __init__(self, connection: Connection, current: CurrentModel, make_id: Callable[[], str]) -> None:
        self.id: str = connection.id
        """The learner's identity."""
        self._learner: Any = connection.service(LearnerStub)
        self._current = current
        self._make_id = make_id

    def __repr__(self) -> str:
        return f"<heartline.federated.LearnerProxy {self.id}>"

    async def train(self, config: dict[str, Any] | None = None) -> TrainResult:
        """Have the learner train from the current model."""
        result: TrainResult = await self._learner.train(self._order(config))
        return result

    async def evaluate(self, config: dict[str, Any] | None = None) -> Evaluation:
        """Have the learner evaluate the current model."""
        evaluation: Evaluation = await self._learner.evaluate(self._order(config))
        return evaluation

    def get_model(self) -> Awaitable[Model | None]:
        """The learner's local model, without waiting for its work; to be awaited."""
        model: Awaitable[Model | None] = self._learner.get_model()
        return model

    def on_push(self, callback: Callable[[Model, int], None]) -> None:
        """Call ``callback(model, version)`` for every model that is pushed from now on."""
        self._current.callbacks.append(callback)

    async def wait_model(self) -> tuple[Model, int]:
        """Wait for the next push; returns the model and its version. Cancelling has no other effect."""
        await self._current.changed.park()
        push = self._current.push
        assert push is not None
        return push.model, push.version

    def _order(self, config: dict[str, Any] | None) -> Order:
        push = self._current.push
        if push is None:
            raise LocalProtocolError("the trainer has pushed no model yet: await trainer.start() first")
        return Order(
            run=push.run,
            version=push.version,
            round=push.version + 1,
            config=config or {},
            id=self._make_id(),
        )
