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

__all__ = ["Board", "LearnerProxy"]


class Board:
    """The current model of a training, and who waits for the next one."""

    def __init__(self) -> None:
        self.current: ModelPush | None = None
        self.callbacks: list[Callable[[Model, int], None]] = []
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()

    def show(self, push: ModelPush) -> None:
        """A new model was pushed."""
        self.current = push
        for callback in self.callbacks:
            callback(push.model, push.version)
        self.changed.unpark_all()


@final
class LearnerProxy(metaclass=NoPublicConstructor):
    """A learner, as the server holds it: its calls, awaited, on the current global model.

    They raise what calls raise: :class:`RemoteError` when the learner raised, :class:`CallInterrupted` when
    its connection went.
    """

    def __init__(self, connection: Connection, board: Board, make_id: Callable[[], str]) -> None:
        self.id: str = connection.id
        """The learner's identity."""
        self._learner: Any = connection.service(LearnerStub)
        self._board = board
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
        """The learner's local model, without waiting for its work."""
        model: Awaitable[Model | None] = self._learner.get_model()
        return model

    def on_push(self, callback: Callable[[Model, int], None]) -> None:
        """Call ``callback(model, version)`` for every model that is pushed from now on."""
        self._board.callbacks.append(callback)

    async def wait_model(self) -> tuple[Model, int]:
        """Wait for the next push; gives the model and its version."""
        await self._board.changed.park()
        assert self._board.current is not None
        return self._board.current.model, self._board.current.version

    def _order(self, config: dict[str, Any] | None) -> Order:
        push = self._board.current
        if push is None:
            raise LocalProtocolError("the trainer has pushed no model yet: await trainer.start() first")
        return Order(
            run=push.run,
            version=push.version,
            round=push.version + 1,
            config=config or {},
            id=self._make_id(),
        )
