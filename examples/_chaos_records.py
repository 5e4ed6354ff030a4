"""What the chaos demo knows about its federation: it counts what was begun, and what became of it.

It belongs to no node: no crash takes anything from it, and no program of a node reads it to do its work.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

from heartline import Connection
from heartline.federated import Model

CLIENTS = ("ada", "ben", "cleo")
LEARNERS = ("lea", "leo", "lou")
ROUNDS = 18


class Row(NamedTuple):
    """A kind of things: how many were begun, how many of them ended, and how many happened twice."""

    what: str
    begun: int
    ended: int
    twice: int
    note: str

    @property
    def open(self) -> int:
        """Under way; or, if nothing is any more, missing."""
        return max(0, self.begun - self.ended)


class Records:
    """Everything that was seen, from the beginning of the world to its end."""

    def __init__(self, expected_model: Model) -> None:
        self.closing = False
        """Nothing new is begun: what is under way shall come to its end."""
        self.connections: dict[str, Connection] = {}
        """The connection of each client and learner, as the node itself sees it."""
        self.calls: Counter[str] = Counter()
        """Those made, and how they ended: answered, failed, or with a crash of the caller."""
        self.executed: Counter[int] = Counter()
        """How often each call was executed."""
        self.orders: dict[str, bool] = {}
        """The orders that were begun, and whether the client knows that the hub has it."""
        self.published = 0
        """Updates of the topic of orders."""
        self.handled: dict[str, Counter[str]] = defaultdict(Counter)
        """How often each client was told of each order."""
        self.sent: Counter[str] = Counter()
        """Messages of each client."""
        self.received: Counter[str] = Counter()
        """Messages that the hub has on its disk, by client."""
        self.sessions: Counter[str] = Counter()
        """Sessions that began, those that lost their link, and how many of them got another one."""
        self.faults: Counter[str] = Counter()
        self.rounds = 0
        self.model: Model | None = None
        """What the training has brought."""
        self._expected_model = expected_model
        self.finished: list[str] = []
        """Learners that know that it is over."""

    def rows(self) -> list[Row]:
        """What there is to count."""
        calls, handled = self.calls, self.handled.values()
        ends = calls["answered"], calls["failed"], calls["crashed"]
        told = "{} answered, {} failed, {} crashed".format(*ends)
        executed_twice = sum(count > 1 for count in self.executed.values())
        seen_twice = sum(count > 1 for counts in handled for count in counts.values())
        updates = self.published * len(CLIENTS)
        return [
            Row("calls", calls["made"], sum(ends), executed_twice, told),
            Row("orders", len(self.orders), sum(self.orders.values()), 0, "repeated until answered"),
            Row("updates", updates, sum(map(len, handled)), seen_twice, f"to {len(CLIENTS)} clients"),
            Row("messages", self.sent.total(), self.received.total(), 0, "from the clients to the hub"),
            Row("rounds", ROUNDS, self.rounds, 0, f"of training, with {len(LEARNERS)} learners"),
        ]

    def losses(self) -> list[str]:
        """What is not as it should be in the end; nothing, if all is well."""
        rows = self.rows()
        losses = [f"{row.open} of {row.begun} {row.what} are missing" for row in rows if row.open]
        losses += [f"{row.twice} of {row.begun} {row.what} happened twice" for row in rows if row.twice]
        losses += [f"{name} was not told of the end" for name in LEARNERS if name not in self.finished]
        if self.model is not None and not all(map(np.array_equal, self.model, self._expected_model)):
            losses.append("the model is not the one that a training without faults gives")
        return losses
