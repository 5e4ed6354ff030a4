"""What the nodes of a federation have seen: every observation is held against the rules as it comes."""

from __future__ import annotations

from collections import Counter

import trio

import heartline
from heartline import Connection, ConnectionLost, ConnectionState, Server
from heartline.connection import Lanes
from heartline.testing import CallChecker, CreditChecker, DeliveryChecker, OrderChecker, VersionChecker
from tests.engine import core_of

__all__ = ["LIMITS", "MEMBERS", "SIZES", "Notes", "Stream"]

MEMBERS = ("ada", "ben", "cleo")
"""Clients that call, follow and send; beside them there are learners."""

LARGEST = 9000
"""Bytes of the longest message: it travels in several fragments."""

SIZES = (0, 50, 50, 500, 500, LARGEST)
"""Bytes of messages: most are small."""

LIMITS = heartline.Limits(
    resume_window=15,
    replay_buffer=24_000,
    window=6_000,
    write_buffer=16_000,
    frame_size=2048,
    message_size=64_000,
)
"""Small, so that each of them is met."""


class Notes:
    """The memory of one run; it belongs to no node, so no crash takes it."""

    def __init__(self) -> None:
        self.quiet = trio.Event()
        """Nothing new is begun: what is under way shall come to its end."""
        self.leave = trio.Event()
        """The hub is to end."""
        self.left = trio.Event()
        """The hub's server has ended."""
        self.calls = CallChecker()
        self.delivery = DeliveryChecker()
        self.order = OrderChecker()
        self.versions = VersionChecker()
        self.seen: Counter[str] = Counter()
        """What happened how often: messages by kind, and marks of what was reached."""
        self.epochs: dict[str, str] = {}
        self.last_order = 0
        """The newest offset of the durable topic that was stored."""
        self.reached: dict[str, int] = {}
        """The newest offset that each follower has handled."""
        self.result: list[bytes] | None = None
        """The final model of the training."""
        self.server: Server | None = None
        """The hub's server in its present life."""

    def registered(self) -> int:
        """Connections and subscriptions that the hub knows."""
        if self.server is None:
            return 0
        subscribers = sum(topic.subscribers for topic in self.server.statistics().topics.values())
        return len(self.server.connections) + subscribers

    def note(self, what: str, count: int = 1) -> None:
        """Count something."""
        self.seen[what] += count

    def same_epoch(self, topic: str, epoch: str) -> None:
        """A topic with a store has one epoch for good."""
        known = self.epochs.setdefault(topic, epoch)
        assert epoch == known, f"topic {topic!r} began anew: epoch {epoch}, before {known}"

    def check_bounds(self, connection: Connection) -> None:
        """What a connection holds for its peer, and what it keeps, is within its limits."""
        core = core_of(connection)
        checker = CreditChecker(window=LIMITS.window, largest_message=LARGEST + 100)
        for frame, link in core.part(Lanes).inbox.frames:
            # Of a session that has ended, messages stay to be read, beside the window of the next one.
            if link is core.link:
                checker.arrived(connection.id, len(frame.payload))
        statistics = connection.statistics()
        assert statistics.unconfirmed <= LIMITS.replay_buffer + LIMITS.write_buffer + 2 * LARGEST
        assert statistics.backlog <= 4 * LIMITS.write_buffer + 20 * LARGEST


class Stream:
    """Numbered messages to one peer, within one session: they end with it."""

    def __init__(self, notes: Notes, name: str) -> None:
        notes.note("streams")
        self._notes = notes
        self._name = f"{name}, stream {notes.seen['streams']}"
        self._next = 0
        notes.order.begin(self._name, -1)

    def send_next(self, connection: Connection, size: int) -> None:
        """Send the next message if there is room for it: then it is in the session."""
        if connection.state not in (ConnectionState.OPEN, ConnectionState.LOST):
            return
        try:
            connection.send_nowait([self._name, self._next, bytes(size)])
        except trio.WouldBlock:
            self._notes.note("mark: waited for credit")
        except ConnectionLost:
            pass  # the session has ended
        else:
            self._next += 1
