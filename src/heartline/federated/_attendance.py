"""Which learners of a cohort are connected, and the order that each gets, over one connection or several.

A learner may compute for hours, or take hours to send its result, as long as its connection lives; the
heartbeat sees to that. What is measured is how long a learner has no living connection. If it is back in time
it gets the same order again, and answers with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import trio

from heartline.connection import Connection
from heartline.errors import CallInterrupted, ConnectionLost
from heartline.federated._model import TrainResult
from heartline.federated._stub import LearnerStub, Order

__all__ = ["POLL_INTERVAL", "Attendance"]

POLL_INTERVAL = 0.05
"""Seconds between looks at which learners are connected: short beside a reconnect, and a look takes
microseconds."""

CALM_INTERVAL = 0.5
"""The most that it grows to, by a tenth with each look, while nobody is away: a round may take hours."""


class Attendance:
    """The learners of a cohort that have not answered yet.

    ``present`` gives the learners that are connected and registered at the moment. Each of the ``cohort`` may
    be away for ``patience`` seconds, and for ``grace`` seconds more at first.
    """

    def __init__(
        self,
        cohort: Iterable[str],
        present: Callable[[], Mapping[str, Connection]],
        *,
        patience: float,
        grace: float,
    ) -> None:
        self._find = present
        self._present = present()
        self._patience = patience
        self._seen = dict.fromkeys(cohort, trio.current_time() + grace)
        """When each was last seen; in the future, it has that much longer."""
        self._scopes = {name: trio.CancelScope() for name in self._seen}
        self._looked = trio.lowlevel.ParkingLot()

    async def ask(self, name: str, order: Order) -> TrainResult:
        """Have a learner train.

        Raises :class:`ConnectionLost` when it is away for too long, and otherwise what its call raises.
        Cancelling cancels the call.
        """
        try:
            with self._scopes[name]:
                while True:
                    connection = self._present.get(name)
                    if connection is not None:
                        try:
                            return await connection.service(LearnerStub).train(order)
                        except CallInterrupted:
                            pass  # the order can be repeated, so it does not matter how far it came
                    await self._looked.park()
            raise ConnectionLost(f"its connection was away for {self._patience:g} s (patience)")
        finally:
            del self._scopes[name]

    async def watch(self) -> None:
        """Look again and again which learners are connected, until cancelled."""
        interval, longest = POLL_INTERVAL, max(POLL_INTERVAL, min(CALM_INTERVAL, self._patience / 20))
        while True:
            now = trio.current_time()
            self._present = self._find()
            interval = min(longest, 1.1 * interval)
            for name, scope in self._scopes.items():
                if name in self._present:
                    self._seen[name] = max(self._seen[name], now)
                    continue
                interval = POLL_INTERVAL
                if now - self._seen[name] >= self._patience:
                    scope.cancel()
            self._looked.unpark_all()
            await trio.sleep(interval)

    def waiting(self) -> dict[str, float]:
        """The learners that have not answered, and the seconds of their silence up to now."""
        now = trio.current_time()
        return {
            name: connection.statistics().silence
            if (connection := self._present.get(name)) is not None
            else max(0.0, now - self._seen[name])
            for name in self._scopes
        }
