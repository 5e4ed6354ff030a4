"""What all connections of one endpoint share."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import trio

from heartline.errors import HeartlineError
from heartline.session import Heartbeat
from heartline.wire import Frame, Limits, Serializer

if TYPE_CHECKING:
    from heartline.connection._connection import Connection
    from heartline.connection._timer import HeartbeatTimer

__all__ = ["CallsPart", "Part", "PushPart", "Setup"]


class Part(Protocol):
    """A protocol that stands on the connection: it gets the frames of its family and the ends of sessions."""

    def on_frame(self, frame: Frame) -> None:
        """Handle a frame; raises RemoteProtocolError when the peer broke the rules."""
        ...

    def on_link_open(self) -> None:
        """A session has begun: the first one, or the one after."""
        ...

    def on_link_end(self, reason: HeartlineError, unsent: Callable[[int], set[int]]) -> None:
        """The session is over; ``unsent(frame_type)`` takes back messages that never left: their ids."""
        ...


class CallsPart(Part, Protocol):
    """What the RPC layer gives to a connection."""

    def proxy(self, service: Any, retry: Any) -> Any:
        """A proxy for a service class or name at the peer."""
        ...

    @property
    def idle(self) -> bool:
        """Whether no call is in progress, in either direction."""
        ...


class PushPart(Part, Protocol):
    """What the push layer gives to a connection."""

    def subscribe(self, topic: str, since: Any, policy: Any) -> Any:
        """A subscription to a topic of the peer."""
        ...


@dataclass(slots=True, kw_only=True)
class Setup:
    """Settings and collaborators of one :func:`open_connection` or :func:`open_server`."""

    limits: Limits
    heartbeat: Heartbeat
    serializer: Serializer
    rng: random.Random
    nursery: trio.Nursery
    timer: HeartbeatTimer
    make_calls: Callable[[Connection], CallsPart]
    make_push: Callable[[Connection], PushPart]
