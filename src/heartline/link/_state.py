"""Where a connection and its link stand, as tables, and the snapshot of a connection.

A *connection* begins without a link. Its first link, and each later one, makes it open. A goodbye, by
either side, makes it leave: nothing new is begun, and the end of the link is the end of the session. When a
link ends the connection is lost, until another link comes; the session decides whether it goes on there. The
end can come from any state, and nothing follows it.

A *link* joins a session with its stream. While it is up, bytes flow. When the stream is lost it is down,
and another stream may bring it up again. When the session cannot go on, with this stream or another, it is
over, for good.

A step without a row is a bug of this side.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = [
    "CONNECTION_TRANSITIONS",
    "LINK_TRANSITIONS",
    "ConnectionState",
    "ConnectionStatistics",
    "ConnectionStep",
    "LinkState",
    "LinkStep",
]


class ConnectionState(enum.Enum):
    """Where a connection stands."""

    CONNECTING = "connecting"
    """No link yet."""
    OPEN = "open"
    LEAVING = "leaving"
    """One side said goodbye; what is in progress may end."""
    LOST = "lost"
    """No link at the moment; the client tries to get a new one, and the server waits for it."""
    CLOSED = "closed"
    """The end."""


class ConnectionStep(enum.Enum):
    """What moves a connection."""

    LINK_UP = "the link is up"
    GOODBYE = "a goodbye"
    LINK_DOWN = "the link is down"
    END = "the end"


class LinkState(enum.Enum):
    """Where a link stands."""

    UP = "up"
    """Its stream is in use."""
    DOWN = "down"
    """Its stream is lost; another one may follow."""
    OVER = "over"
    """The session cannot go on."""


class LinkStep(enum.Enum):
    """What moves a link."""

    LOSE = "lose the stream"
    COME_UP = "use another stream"
    FAIL = "fail"


_C, _L = ConnectionState, LinkState

CONNECTION_TRANSITIONS: dict[tuple[ConnectionState, ConnectionStep], ConnectionState] = {
    (_C.CONNECTING, ConnectionStep.LINK_UP): _C.OPEN,
    (_C.LOST, ConnectionStep.LINK_UP): _C.OPEN,
    (_C.OPEN, ConnectionStep.GOODBYE): _C.LEAVING,
    (_C.LEAVING, ConnectionStep.GOODBYE): _C.LEAVING,
    (_C.OPEN, ConnectionStep.LINK_DOWN): _C.LOST,
    (_C.LEAVING, ConnectionStep.LINK_DOWN): _C.LOST,
    **{(state, ConnectionStep.END): _C.CLOSED for state in _C if state is not _C.CLOSED},
}

LINK_TRANSITIONS: dict[tuple[LinkState, LinkStep], LinkState] = {
    (_L.UP, LinkStep.LOSE): _L.DOWN,
    (_L.DOWN, LinkStep.COME_UP): _L.UP,
    (_L.DOWN, LinkStep.FAIL): _L.OVER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatistics:
    """A snapshot of a connection."""

    state: ConnectionState
    links: int
    """Links so far: 1 for a connection that was never lost."""
    resumed: int
    """Those of them on which a session went on that had lost its link."""
    frames_sent: int
    """Sequenced frames sent in the present session."""
    frames_received: int
    backlog: int
    """Bytes that wait for the peer to read."""
    unconfirmed: int
    """Bytes sent that are kept until the peer has confirmed them."""
    held: int
    """Bytes that this side holds for the connection: the two above, halves of messages, messages and updates
    that nobody has read, and the arguments of calls in progress. ``Limits.memory`` bounds what the peer can
    add."""
    round_trip: float | None
    """Seconds of the last PING's round trip, ``None`` before the first."""
    silence: float
    """Seconds since the last byte was heard."""
    suspicion: float
    """How suspicious the silence is, in powers of ten: a living peer is silent for so long only once in
    ``10 ** suspicion`` times. 0 when the peer was just heard, about 6 when it is given up (less if it was
    always slow), infinite without a link. Seconds in which this side did not listen do not count.
    See :ref:`suspicion`."""
    channels: int
    """Open channels beside the default one."""
