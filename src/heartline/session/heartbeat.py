"""The heartbeat: any received byte is life, a PING is sent only into silence.

Each side sends a PING after ``interval`` seconds in which it sent nothing else, and gives the link up after
``timeout`` seconds in which it listened and received nothing. Both sides tell the other their timeout in the
handshake; the effective interval is at most a third of the peer's timeout, so that two lost turns do not
end a link.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from heartline.errors import ConfigurationError, ConnectionLost
from heartline.session.listening import Listening
from heartline.session.suspicion import Gaps

__all__ = ["SHORTEST_TIMEOUT", "Heartbeat", "Pulse"]

NOTABLE = 1 / 4
"""Of our timeout, a third of which is the longest gap that the peer owes us: shorter gaps say nothing of how
long it can be silent."""

SHORTEST_TIMEOUT = 0.3
"""Seconds, for a peer too: its timeout decides how often this side must speak. With this one an idle
connection sends ten PINGs a second, and takes half a thousandth of a core."""


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """When to send a sign of life, and when to give up the peer; in seconds.

    - ``interval``: how long this side is silent before it sends a sign of life.
    - ``timeout``: how long the peer is silent before the link counts as lost.
    """

    interval: float = 10.0
    """Silence of our own within which a PING goes out: short against the idle timeouts of common middleboxes
    (60 s). It goes out up to 1/8 earlier, so that links do not keep step."""
    timeout: float = 30.0
    """Silence of the peer before the link counts as lost: three intervals. Time in which this program was
    blocked or stopped does not count."""

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

    __slots__ = (
        "_gaps",
        "_heard",
        "_pause",
        "interval",
        "listening",
        "ping_sent",
        "rtt",
        "spoke",
        "timeout",
    )

    def __init__(self, settings: Heartbeat, now: float) -> None:
        self.interval: float = settings.interval
        """Seconds; the peer counts on a word in each."""
        self.timeout: float = settings.timeout
        self.spoke: float = now
        self.ping_sent: float = math.nan  # equals nothing, so without a PING no PONG answers one
        self.rtt: float | None = None
        self.listening: Listening | None = None
        """What was missed here, if that is counted; otherwise this side always listens."""
        self._heard = now
        self._pause = self.interval
        self._gaps: Gaps | None = None

    def agree(self, peer_timeout: float) -> None:
        """Take the peer's timeout into account."""
        self.interval = self._pause = min(self.interval, peer_timeout / 3)

    def pace(self, share: float) -> None:
        """Send a PING after this share of the interval, so that links do not keep step."""
        self._pause = self.interval * share

    @property
    def heard(self) -> float:
        """When the last byte was read."""
        return self._heard

    @heard.setter
    def heard(self, now: float) -> None:
        # Once per read: what costs more than a comparison is only done for gaps that heartbeats had to fill.
        # The peer owes us a word in each third of our timeout; shorter gaps are traffic.
        if now - self._heard > self.timeout * NOTABLE:
            self._learn(self.silence(now))
        self._heard = now

    def begin(self, now: float) -> None:
        """The handshake is over: the time before does not count as the peer's silence."""
        self._heard = now

    def _learn(self, gap: float) -> None:
        if gap > self.timeout * NOTABLE:
            if self._gaps is None:
                self._gaps = Gaps(self.timeout / 3)
            self._gaps.learn(gap)

    def silence(self, now: float) -> float:
        """The seconds in which this side listened and heard nothing."""
        missed = self.listening.missed(self._heard, now) if self.listening is not None else 0.0
        return max(0.0, now - self._heard - missed)

    def suspicion(self, now: float) -> float:
        """How suspicious that silence is; see :mod:`heartline.session.suspicion`."""
        return (self._gaps or Gaps(self.timeout / 3)).suspicion(self.silence(now))

    def ping_due(self, now: float) -> bool:
        """Whether a PING must go out; raises :class:`ConnectionLost` when the peer was silent too long."""
        # The same sums as in next_check: differences are rounded in other ways, and a check would be in vain.
        if now >= self._heard + self.timeout and now >= self._lost_at(now):
            raise ConnectionLost(
                f"nothing was heard for {self.silence(now):.3g} s (heartbeat timeout {self.timeout:g} s)"
            )
        return now >= self.spoke + self._pause

    def _lost_at(self, now: float) -> float:
        """When the peer has been silent for too long, if nothing is missed from ``now`` on."""
        end = self._heard + self.timeout
        return end + self.listening.missed(self._heard, now) if self.listening is not None else end

    def pong(self, ping_time: float, now: float) -> None:
        """Take the answer to a PING; one that answers no PING of ours changes nothing."""
        if ping_time == self.ping_sent:
            self.rtt = now - ping_time
            self.ping_sent = math.nan

    @property
    def next_check(self) -> float:
        """The earliest time at which :meth:`ping_due` has something to say."""
        ping = self.spoke + self._pause
        return ping if ping < self._heard + self.timeout else min(ping, self._lost_at(self._heard))
