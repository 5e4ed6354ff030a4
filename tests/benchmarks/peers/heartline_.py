"""heartline itself, through its public API and with its default settings."""

from __future__ import annotations

from collections.abc import Callable

import trio

import heartline
from tests.benchmarks._load import trio_load


@heartline.service()
class Adder:
    """The service that is called."""

    @heartline.method()
    def add(self, a: int, b: int) -> int:
        """Return the sum."""
        return a + b


def serve_rpc(report: Callable[[object], None]) -> None:
    """Serve `add` on a free port."""

    async def main() -> None:
        async with heartline.open_server("tcp://127.0.0.1:0", services=[Adder()]) as server:
            report(server.urls[0])
            await trio.sleep_forever()

    trio.run(main)


def load_rpc(report: Callable[[object], None], url: str, plan: list[tuple[int, float]]) -> None:
    """Report the calls per second of each (in flight, seconds) of the plan."""

    async def main() -> None:
        async with heartline.open_connection(url) as connection:
            add = connection.service(Adder).add
            report([await trio_load(add, in_flight, seconds) for in_flight, seconds in plan])

    trio.run(main)
