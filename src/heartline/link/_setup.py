"""What all connections of one endpoint share, and the interface of a connection's parts."""

from __future__ import annotations

import enum
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Protocol

import trio

from heartline._summaries import Summary
from heartline.errors import HeartlineError
from heartline.observe import Hooks
from heartline.session import Heartbeat
from heartline.wire import Frame, Limits, Serializer

if TYPE_CHECKING:
    from heartline.link._core import Core
    from heartline.link._flusher import Flusher
    from heartline.link._timer import HeartbeatTimer

__all__ = ["Change", "Part", "Setup", "Unsent"]

logger = logging.getLogger("heartline.link")

Unsent = Callable[[int], set[int]]
"""``unsent(frame_type)`` takes back the messages of a type that were not sent, and returns their ids."""


class Part(Protocol):
    """A protocol on top of a connection: it gets the frames of its family.

    A connection makes a part when it is first asked for, or when the first frame of its family comes.
    """

    family: ClassVar[int]
    """The upper four bits of its frames' types."""

    @property
    def idle(self) -> bool:
        """Whether nothing is in progress that a drain should wait for."""
        ...

    @property
    def held(self) -> int:
        """Bytes that it holds of what the peer sent, beside what the session counts."""
        ...

    def on_frame(self, frame: Frame) -> None:
        """Handle a frame; raises :class:`RemoteProtocolError` when the peer broke the rules."""
        ...

    def on_session_end(self, reason: HeartlineError, unsent: Unsent) -> None:
        """End what is in progress: the session is over."""
        ...


class Change(enum.Enum):
    """What happens to a connection."""

    OPENED = "opened"
    """It has its first link."""
    LOST = "lost"
    RESUMED = "resumed"
    """It has another link, on which its session goes on."""
    RENEWED = "renewed"
    """It has another link, and a new session."""
    CLOSED = "closed"


@dataclass(slots=True, kw_only=True)
class Setup:
    """Settings and collaborators of one endpoint."""

    limits: Limits
    heartbeat: Heartbeat
    serializer: Serializer
    rng: random.Random
    nursery: trio.Nursery
    let_pass: Callable[[BaseException], None]
    """What becomes of an error of an engine's task that is not its own; see :meth:`Engine.let_pass`."""
    timer: HeartbeatTimer
    flusher: Flusher
    parts: Mapping[int, Callable[[Core], Part]]
    """The function that makes the part of each frame family."""
    hooks: Hooks
    """Observers and middleware."""
    on_change: Callable[[Core, Change, HeartlineError | None], None]
    """Called with what happens to each connection, and the reason of a loss or an end."""
    comings: Summary = field(init=False)
    """Its log lines about connections that come and go, and about links that are lost and come back."""
    losses: Summary = field(init=False)
    """Its log lines about connections that ended without a goodbye: apart from the others, so that short
    visits do not hide the end of a connection that was meant to last."""
    troubles: Summary = field(init=False)
    """Its log lines about what should not happen, and may happen to many connections."""

    def __post_init__(self) -> None:
        self.comings = Summary(self.nursery, partial(logger.info, "connections: %d more in %s: %s"))
        self.losses = Summary(self.nursery, partial(logger.info, "losses: %d more in %s: %s"))
        self.troubles = Summary(self.nursery, partial(logger.warning, "troubles: %d more in %s: %s"))
        self.hooks.admit = self.troubles.admit
