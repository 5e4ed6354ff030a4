"""Where a connection stands, and its snapshot."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["ConnectionState", "ConnectionStatistics"]


class ConnectionState(enum.Enum):
    """Where a connection stands."""

    CONNECTING = "connecting"
    """No link yet."""
    OPEN = "open"
    LEAVING = "leaving"
    """One side said goodbye; what is in progress may end."""
    LOST = "lost"
    """No link at the moment; a client tries to get a new one, and its server waits for that."""
    CLOSED = "closed"
    """The end."""


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
    round_trip: float | None
    """Seconds of the last PING's round trip, ``None`` before the first."""
    silence: float
    """Seconds since the last byte was heard."""
    suspicion: float
    """How suspicious the silence is, in powers of ten: a living peer is silent for so long once in
    ``10 ** suspicion`` times. 0 when it was just heard, about 6 when it is given up (less if it was always
    slow), infinite without a link. Seconds in which this side did not listen do not count.
    See :ref:`suspicion`."""
    channels: int
    """Open channels beside the default one."""
