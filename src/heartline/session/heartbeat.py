"""The heartbeat: any received byte is life, a PING is sent only into silence.

Each side sends a PING after ``interval`` seconds in which it sent nothing else, and gives the link up after
``timeout`` seconds in which it received nothing. Both sides tell the other their timeout in the handshake;
the effective interval is at most a third of the peer's timeout, so that two lost turns do not end a link.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from heartline.errors import ConfigurationError, ConnectionLost

__all__ = ["SHORTEST_TIMEOUT", "Heartbeat", "Pulse"]

SHORTEST_TIMEOUT = 0.01
"""Seconds; a peer with a shorter one would make us send more than 300 PINGs a second."""


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """When to send a sign of life, and when to give the peer up; in seconds."""

    interval: float = 10.0
    """Silence of our own before a PING: short against the idle timeouts of common middleboxes (60 s)."""
    timeout: float = 30.0
    """Silence of the peer before the link counts as lost: three intervals."""

    def __post_init__(self) -> None:
        for name in ("interval", "timeout"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
                raise ConfigurationError(f"Heartbeat.{name} must be finite seconds above 0, not {value!r}")
        if self.timeout <= self.interval:
            raise ConfigurationError(
                f"Heartbeat.timeout ({self.timeout}) must be longer than its interval ({self.interval})"
            )
        if self.interval < SHORTEST_TIMEOUT / 3 or self.timeout < SHORTEST_TIMEOUT:
            raise ConfigurationError(
                f"Heartbeat.timeout ({self.timeout}) must be {SHORTEST_TIMEOUT} s or more, "
                f"and its interval ({self.interval}) a third of that"
            )


class Pulse:
    """The two stamps of one link and what follows from them."""

    __slots__ = ("heard", "interval", "ping_sent", "rtt", "spoke", "timeout")

    def __init__(self, settings: Heartbeat, now: float) -> None:
        self.interval: float = settings.interval
        self.timeout: float = settings.timeout
        self.heard: float = now
        self.spoke: float = now
        self.ping_sent: float = math.nan  # equals nothing, so without a PING no PONG answers one
        self.rtt: float | None = None

    def agree(self, peer_timeout: float) -> None:
        """Take the peer's timeout into account."""
        self.interval = min(self.interval, peer_timeout / 3)

    def ping_due(self, now: float) -> bool:
        """Whether a PING must go out; raises :class:`ConnectionLost` when the peer was silent too long."""
        # The same sums as in next_check: differences are rounded in other ways, and a check would be in vain.
        if now >= self.heard + self.timeout:
            raise ConnectionLost(
                f"nothing was heard for {now - self.heard:.3g} s (heartbeat timeout {self.timeout:g} s)"
            )
        return now >= self.spoke + self.interval

    def excuse(self, late: float, now: float) -> None:
        """This side did not listen for ``late`` seconds up to ``now``: they are not the peer's silence."""
        self.heard = min(now, self.heard + late)

    def pong(self, ping_time: float, now: float) -> None:
        """Take the answer to a PING; one that answers no PING of ours changes nothing."""
        if ping_time == self.ping_sent:
            self.rtt = now - ping_time
            self.ping_sent = math.nan

    @property
    def next_check(self) -> float:
        """The earliest time at which :meth:`ping_due` has something to say."""
        return min(self.heard + self.timeout, self.spoke + self.interval)
