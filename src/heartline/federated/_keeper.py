"""A strategy with the state that it had after the last round that counted."""

from __future__ import annotations

from typing import Any

from heartline.errors import ConfigurationError
from heartline.federated._model import Model, as_model, check_finite
from heartline.federated._strategies import Aggregation, StatefulStrategy, Strategy
from heartline.federated._values import pack, unpack

__all__ = ["StrategyKeeper"]


class StrategyKeeper:
    """Has a strategy aggregate, and takes it back where a round ended without a new model.

    A round may break off anywhere: the disk refuses the checkpoint, a cancellation comes. What the strategy
    has learned by then belongs to a model that never was, so it gets its state of before again.
    """

    def __init__(self, strategy: Strategy) -> None:
        if isinstance(strategy, type) or not callable(getattr(strategy, "start_round", None)):
            hint = f": strategy={strategy.__name__}()" if isinstance(strategy, type) else ""
            raise ConfigurationError(
                f"strategy must be an object with the method start_round, not {strategy!r:.80}{hint}"
            )
        has = [callable(getattr(strategy, name, None)) for name in ("state", "restore")]
        if any(has) and not all(has):
            raise ConfigurationError(
                "a strategy has both state() and restore(state), or neither of them, "
                f"not one of the two: {strategy!r:.80}"
            )
        self._strategy = strategy
        self._stateful: StatefulStrategy | None = strategy if isinstance(strategy, StatefulStrategy) else None
        self._kept = self._pack()
        self._in_doubt = False

    def load(self, state: Any) -> None:
        """Take the state of a checkpoint; ``None``: it has none, and the strategy begins as it was made."""
        if state is None:
            return
        if self._stateful is None:
            raise ConfigurationError(
                "the checkpoint holds the state of a strategy, and this one has no restore(state): "
                f"{self._strategy!r:.80}"
            )
        self._kept = pack("strategy.state()", state)
        self._stateful.restore(state)

    def start_round(self, model: Model, round: int) -> Aggregation:
        """Begin a round, with the state after the last one that counted."""
        if self._in_doubt and self._stateful is not None:
            self._stateful.restore(unpack(self._kept))
        self._in_doubt = True
        return self._strategy.start_round(model, round)

    def finish(self, aggregation: Aggregation, model: Model) -> tuple[Model, bytes]:
        """The model after this round, like ``model`` in its shapes and dtypes, and the strategy's state.

        Raises :class:`ConfigurationError` for a model that is not, and :class:`SerializationError` for a
        state that cannot be kept. Nothing counts before :meth:`settle`.
        """
        return _checked(aggregation.finish(), model), self._pack()

    def settle(self, state: bytes) -> None:
        """The round counts."""
        self._kept = state
        self._in_doubt = False

    @property
    def kept(self) -> bytes:
        """The state after the last round that counted, packed; empty for a strategy without one."""
        return self._kept

    def _pack(self) -> bytes:
        return b"" if self._stateful is None else pack("strategy.state()", self._stateful.state())


def _checked(made: Any, model: Model) -> Model:
    """What a strategy made, if it can take the place of ``model``."""
    try:
        new = as_model(made)
        if len(new) != len(model):
            raise ValueError(f"the model must have {len(model)} arrays, got {len(new)}")
        for index, (array, old) in enumerate(zip(new, model, strict=True)):
            if (array.shape, array.dtype) != (old.shape, old.dtype):
                raise ValueError(
                    f"model[{index}] must be of shape {old.shape} and dtype {old.dtype}, "
                    f"got {array.shape} and {array.dtype}"
                )
        check_finite(new)
    except ValueError as error:
        raise ConfigurationError(f"strategy.finish returned what cannot be the next model: {error}") from None
    return new
