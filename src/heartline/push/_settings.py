"""What a server knows of a topic before anybody can ask for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from heartline.errors import ConfigurationError
from heartline.push._log import History
from heartline.push._store import Store

__all__ = ["Fold", "TopicSettings"]


@dataclass(frozen=True, kw_only=True)
class Fold:
    """How the updates of a topic make up a state, so that a subscriber can begin with
    :data:`heartline.SNAPSHOT`.

    The publisher applies each update in the moment in which it is published, to the value as a subscriber
    decodes it. So the state belongs to exactly one offset, and subscribers that apply the same function to
    what follows a snapshot have the same state.
    """

    apply: Callable[[Any, Any], Any]
    """``(state, value) -> state``: the state after an update. May change the given state and return it. If it
    raises, the topic has no state until it is opened with a function that does not, and says so to who asks;
    updates go on."""
    initial: Callable[[], Any] = dict
    """Makes the state before the first update. States are values that can be serialized."""

    def __post_init__(self) -> None:
        for name in ("apply", "initial"):
            if not callable(getattr(self, name)):
                raise ConfigurationError(f"Fold.{name} must be callable, not {getattr(self, name)!r:.80}")


@dataclass(frozen=True, kw_only=True)
class TopicSettings:
    """A topic of :func:`heartline.open_server`."""

    history: History | None = None
    """``None``: that of the server."""
    store: Store | None = None
    """Where it is kept, an open :class:`heartline.SqliteStore` or any other :class:`heartline.Store`;
    ``None``: in memory only."""
    fold: Fold | None = None
    """How its updates make up a state; ``None``: they do not."""

    def __post_init__(self) -> None:
        kinds = {"history": (History, "heartline.History"), "fold": (Fold, "heartline.Fold")}
        for name, (kind, called) in kinds.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ConfigurationError(
                    f"TopicSettings.{name} must be a {called} or None, not {value!r:.80}"
                )
        if self.store is not None and not all(hasattr(self.store, name) for name in ("load", "append")):
            raise ConfigurationError(
                f"TopicSettings.store must have the methods of heartline.Store, not {self.store!r:.80}"
            )
