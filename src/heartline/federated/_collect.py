"""Collects the results of a round: each learner of the cohort gets an order, and gives a result or fails."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from heartline.errors import HeartlineError, RemoteError
from heartline.federated._attendance import Attendance
from heartline.federated._journal import LeftOut, Received
from heartline.federated._round import Round
from heartline.federated._stub import Order, StaleOrder
from heartline.link import open_plain_nursery
from heartline.wire.text import printable

__all__ = ["collect"]


class _Collection:
    def __init__(
        self, current: Round, attendance: Attendance, orders: Mapping[str, Order], *, heed_stale: bool
    ) -> None:
        self.stale = trio.CancelScope()
        self._round = current
        self._attendance = attendance
        self._orders = orders
        self._heed_stale = heed_stale

    async def run(self) -> None:
        async with open_plain_nursery() as watching:
            watching.start_soon(self._attendance.watch)
            async with open_plain_nursery() as asking:
                for name in self._round.missing:
                    asking.start_soon(self._train_one, name)
            watching.cancel_scope.cancel()

    async def _train_one(self, name: str) -> None:
        entry: Received | LeftOut
        try:
            entry = Received(name, await self._attendance.ask(name, self._orders[name]))
        except (HeartlineError, ValueError) as error:
            if self._heed_stale and _is_stale(error):
                self.stale.cancel()
                return
            entry = LeftOut(name, printable(str(error)))
        await self._round.record(entry)


async def collect(
    current: Round,
    attendance: Attendance,
    orders: Mapping[str, Order],
    *,
    timeout: float,
    heed_stale: bool,
) -> bool:
    """Have all learners train whose results are missing in the round, for ``timeout`` seconds at most.

    With ``heed_stale`` the round is called off, and ``False`` returned, when a learner knows a later model of
    the run. Raises :exc:`OSError` if the journal cannot be written. After a cancellation the
    journal has the results that came.
    """
    collection = _Collection(current, attendance, orders, heed_stale=heed_stale)
    with trio.move_on_after(timeout), collection.stale:
        await collection.run()
    if collection.stale.cancel_called:
        return False
    for name in current.missing:
        await current.record(LeftOut(name, f"no result within {timeout:g} s (round_timeout)"))
    return True


def _is_stale(error: Exception) -> bool:
    return isinstance(error, RemoteError) and error.type_name == StaleOrder.__name__
