"""What the nodes of a federation have seen: every observation is held against the rules as it comes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from heartline import Connection
from heartline.testing import CallChecker, CreditChecker, DeliveryChecker, OrderChecker, VersionChecker

__all__ = ["LARGEST", "LIMITS", "MEMBERS", "Notes"]

import heartline

MEMBERS = ("ada", "ben", "cleo")
"""Clients that call, follow and send; beside them there are learners."""

LARGEST = 9000
"""Bytes of the longest message: it travels in several fragments."""

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
        self.quiet = False
        """Nothing new is begun: what is under way shall come to its end."""
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
        self.trained: Counter[tuple[str, int]] = Counter()

    def note(self, what: str, count: int = 1) -> None:
        """Count something."""
        self.seen[what] += count

    def same_epoch(self, topic: str, epoch: str) -> None:
        """A topic with a store has one epoch for good."""
        known = self.epochs.setdefault(topic, epoch)
        assert epoch == known, f"topic {topic!r} began anew: epoch {epoch}, before {known}"

    def check_bounds(self, connection: Connection) -> None:
        """What a connection holds for its peer, and what it keeps, is within its limits."""
        link = connection.link
        if link is None:
            return
        session: Any = link.session
        for channel, left in session._windows.items():
            checker = CreditChecker(window=LIMITS.window, largest_message=LARGEST + 100)
            checker.arrived((connection.id, channel), LIMITS.window - left)
        statistics = connection.statistics()
        assert statistics.unconfirmed <= LIMITS.replay_buffer + LIMITS.write_buffer + 2 * LARGEST
        assert statistics.backlog <= 4 * LIMITS.write_buffer + 20 * LARGEST
