"""How the loss of a link is found, by either side, and what becomes of a call that is under way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import heartline
from heartline import Connection, Heartbeat, Lost

from ._common import QUICK, SOON, limits
from ._process import start, until
from ._proxy import Fault, Way, open_proxy

pytestmark = pytest.mark.slow

SILENCE = "nothing was heard"


@asynccontextmanager
async def call_over(fault: Fault, *ways: Way, patient: bool) -> AsyncIterator[tuple[list[str], Any]]:
    """A call during which the link meets this: why the client lost it, and the server's events."""
    async with (
        start("server", url="tcp://127.0.0.1:0", patient=patient) as server,
        open_proxy(await server.read("url")) as proxy,
        heartline.open_connection(
            proxy.url,
            identity="ann",
            reconnect=SOON,
            heartbeat=Heartbeat() if patient else QUICK,
            limits=limits(),
        ) as connection,
        heartline.open_connection(proxy.target) as own,
        trio.open_nursery() as nursery,
    ):
        reasons: list[str] = []
        nursery.start_soon(_follow, connection, reasons)
        ledger, watch = connection.service("Ledger"), own.service("Watch")
        nursery.start_soon(ledger.hold, "x")
        await until(lambda: _holds(watch, ["x"]))
        await proxy.strike(fault, *ways)
        assert await ledger.note("y") == 1
        await until(lambda: connection.statistics().resumed > 0)
        assert await own.service("Ledger").notes() == ["y"]
        assert (await watch.look())["held"] == ["x"], "it goes on"
        yield reasons, await watch.events()
        nursery.cancel_scope.cancel()


async def _follow(connection: Connection, reasons: list[str]) -> None:
    async for event in connection.events():
        if isinstance(event, Lost):
            reasons += [str(event.reason)]


async def _holds(watch: Any, held: list[str]) -> bool:
    look = await watch.look()
    return bool(look["held"] == held)


async def test_a_client_finds_that_it_hears_nothing() -> None:
    async with call_over(Fault.DROP, Way.DOWN, patient=False) as (reasons, _):
        assert any(SILENCE in reason for reason in reasons)


async def test_a_server_finds_that_it_hears_nothing() -> None:
    async with call_over(Fault.DROP, Way.UP, patient=False) as (_, events):
        assert any(kind == "Lost" and SILENCE in reason for kind, _, _, reason in events)


async def test_a_dead_cable_is_found() -> None:
    async with call_over(Fault.DROP, *Way, patient=False) as (reasons, _):
        assert any(SILENCE in reason for reason in reasons)


@pytest.mark.parametrize("way", Way, ids=lambda way: way.name)
@pytest.mark.parametrize("fault", [Fault.FIN, Fault.RESET, Fault.HALF_CLOSE], ids=lambda fault: fault.name)
async def test_a_broken_link_is_found_at_once(fault: Fault, way: Way) -> None:
    """Without any heartbeat: the system tells."""
    async with call_over(fault, way, patient=True) as (reasons, events):
        assert reasons
        assert not any(SILENCE in reason for reason in reasons + [event[3] for event in events])
