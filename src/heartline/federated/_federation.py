"""The federations of a server: side by side by their names, and one trainer at work in each at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from heartline.connection import Connection
from heartline.errors import ConfigurationError
from heartline.link import ConnectionState
from heartline.push import History
from heartline.server import Server, attached
from heartline.wire.text import is_name

__all__ = ["DEFAULT", "LEARNERS_TOPIC", "MODEL_TOPIC", "Federation", "learners_topic", "model_topic"]

MODEL_TOPIC = "model_push"
"""The topic on which the trainer pushes every new model; that of a federation with a name is
``model_push/NAME``."""

LEARNERS_TOPIC = "model_learners"
"""The topic whose subscribers are the learners; that of a federation with a name is ``model_learners/NAME``.

Nothing is published on it: to subscribe is to register. So whoever merely follows the model is not drawn, and
middleware for subscriptions decides who may be a learner.
"""

DEFAULT = "default"
"""The name of the federation that has no other."""

_NAME_SIZE = 100
"""Characters of a name: with what stands before it, it fits in the name of a topic."""


def model_topic(federation: str) -> str:
    """The topic of a federation's models; raises :class:`ConfigurationError` for what cannot be its name."""
    return _topic(MODEL_TOPIC, federation)


def learners_topic(federation: str) -> str:
    """The topic on which a federation's learners register; raises as :func:`model_topic`."""
    return _topic(LEARNERS_TOPIC, federation)


def _topic(start: str, federation: str) -> str:
    if not is_name(federation, _NAME_SIZE):
        raise ConfigurationError(
            f"federation must be text of 1 to {_NAME_SIZE} printable characters, not {federation!r:.120}"
        )
    return start if federation == DEFAULT else f"{start}/{federation}"


class _Places:
    """The federations of one server in which a trainer has worked, with the trainer that did last."""

    def __init__(self) -> None:
        self.holders: dict[str, Federation] = {}


class Federation:
    """A trainer's place in a federation of a server."""

    def __init__(self, server: Server, name: str) -> None:
        self.name: str = name
        self.model_topic: str = model_topic(name)
        self._learners_topic = learners_topic(name)
        self._server = server
        self._holders = attached(server, _Places).holders
        self.taken_over: bool = False
        """Others have worked here, and the learners may have a model of theirs."""
        self._at_work = 0
        server.declare_topic(self.model_topic, history=History(count=1))
        server.declare_topic(self._learners_topic)  # with declared_only nobody could register otherwise

    def learners(self) -> dict[str, Connection]:
        """The connections of the learners that are connected and registered, by identity."""
        registered = self._server.subscribers(self._learners_topic)
        return {
            name: connection
            for name, connection in sorted(self._server.connections.items())
            if name in registered and connection.state is ConnectionState.OPEN
        }

    @contextmanager
    def hold(self) -> Iterator[None]:
        """A block in which no other trainer works here.

        Raises :class:`ConfigurationError` if another one is at work.
        """
        holder = self._holders.get(self.name)
        if holder is not None and holder is not self and holder._at_work:
            raise ConfigurationError(
                f"federation {self.name!r} of this server has a trainer at work already: wait for its end, "
                "or give this trainer and its learners another name (federation)"
            )
        if holder is not self:
            self._holders[self.name] = self
            self.taken_over = True
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1
