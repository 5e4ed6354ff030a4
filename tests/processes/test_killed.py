"""SIGKILL: nobody says goodbye, and what is left of the dead is known to the living."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import heartline
from heartline import (
    CallInterrupted,
    CloseCode,
    ConnectionRefusedByPeer,
    ConnectionState,
    Gap,
    Outcome,
)
from tests.patience import PATIENCE

from ._common import SOON, limits
from ._process import start, until, url_to_listen

pytestmark = pytest.mark.slow

kinds = pytest.mark.parametrize("kind", ["tcp", "unix"])


async def see(watch: Any, condition: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until the server is like that."""

    async def holds() -> bool:
        return condition(await watch.look())

    await until(holds)


@kinds
async def test_a_killed_client_is_replaced_by_the_next_of_its_name(kind: str, tmp_path: Path) -> None:
    async with start("server", url=url_to_listen(kind, tmp_path), patient=True, history=1_000_000) as server:
        url = await server.read("url")
        async with (
            heartline.open_connection(url) as own,
            start("client", url=url, name="ann", patient=True) as first,
        ):
            watch = own.service("Watch")
            await see(watch, lambda look: look["held"] == ["ann"])
            await first.kill()
            async with start("client", url=url, name="ann", patient=True, seed=2) as second:
                await second.read("opened")
                # The window is a minute: it is the newcomer that ends the session of the dead.
                await see(watch, lambda look: look["cancelled"] == ["ann"] and look["held"] == ["ann"])
                look = await watch.look()
                assert look["connections"]["ann"] == "open"
                assert look["subscribers"] == ["ann"]
                closed = [reason for kind, name, _, reason in await watch.events() if kind == "Closed"]
                assert len(closed) == 1
                assert "took over" in closed[0]
                await second.finish()
                result = await second.read("result")
                assert result["resumed"] == 0
                assert result["came_back"] == result["sent"]


@kinds
async def test_the_session_of_a_killed_client_ends_with_its_window(kind: str, tmp_path: Path) -> None:
    window = 0.5
    async with start(
        "server", url=url_to_listen(kind, tmp_path), patient=True, limits={"resume_window": window}
    ) as server:
        url = await server.read("url")
        async with (
            heartline.open_connection(url) as own,
            start("client", url=url, name="ann", patient=True) as client,
        ):
            watch = own.service("Watch")
            await see(watch, lambda look: look["held"] == ["ann"])
            await client.kill()
            await see(watch, lambda look: "ann" not in look["connections"])
            ended: tuple[list[str], ...] = ([], ["ann"], [])
            await see(watch, lambda look: (look["held"], look["cancelled"], look["subscribers"]) == ended)
            times = {kind: time for kind, name, time, _ in await watch.events() if name == "ann"}
            assert times["Closed"] - times["Lost"] >= window


@kinds
async def test_a_killed_server_and_the_next_one(kind: str, tmp_path: Path) -> None:
    ended: dict[str, CallInterrupted] = {}

    async def call(name: str, method: Any) -> None:
        with pytest.raises(CallInterrupted) as caught:
            await method(name)
        ended[name] = caught.value

    async with start("server", url=url_to_listen(kind, tmp_path), patient=True) as first:
        url = await first.read("url")
        async with (
            heartline.open_connection(url, identity="ann", reconnect=SOON, limits=limits()) as ann,
            ann.subscribe("entries", since="oldest") as entries,
            trio.open_nursery() as nursery,
        ):
            ledger = ann.service("Ledger")
            for number in range(3):
                await ledger.note(f"before {number}")
            seen = [await anext(entries) for _ in range(3)]
            nursery.start_soon(call, "pending", ledger.hold)
            await see(ann.service("Watch"), lambda look: look["held"] == ["pending"])
            await first.kill()
            await until(lambda: ann.state is ConnectionState.LOST)
            nursery.start_soon(call, "too late", ledger.note)
            assert not ended, "while the session may go on nothing is over"
            async with start("server", url=url, patient=True) as second:
                await second.read("url")
                await until(lambda: len(ended) == 2)
                assert ended["pending"].outcome is Outcome.MAYBE_EXECUTED
                assert ended["too late"].outcome is Outcome.NOT_SENT
                await ann.wait_open()
                assert ann.statistics().resumed == 0
                assert await ledger.note("after") == 1, (
                    "it counts anew, and has not got the call that was not sent"
                )
                gaps, after = await _go_on(entries, "after")
                assert len(gaps) == 1
                assert gaps[0].first == 4
                assert after.epoch != seen[0].epoch


async def _go_on(
    entries: heartline.Subscription[heartline.Update[str] | Gap], last: str
) -> tuple[list[Gap], heartline.Update[str]]:
    """Read up to this value; it, and the gaps before."""
    gaps: list[Gap] = []
    async for update in entries:
        if isinstance(update, Gap):
            gaps.append(update)
        elif update.value == last:
            return gaps, update
    raise AssertionError("a subscription does not end by itself")


async def test_everyone_comes_back_to_a_server_that_is_killed_again_and_again() -> None:
    url = "tcp://127.0.0.1:0"
    open_connection = partial(heartline.open_connection, reconnect=SOON, limits=limits())
    async with trio.open_nursery() as nursery:
        connections: list[heartline.Connection] = []

        async def live(url: str) -> None:
            async with open_connection(url) as connection:
                connections.append(connection)
                await trio.sleep_forever()

        for life in range(3):
            async with start("server", url=url, patient=True) as server:
                url = await server.read("url")
                if not life:
                    for _ in range(10):
                        nursery.start_soon(live, url)
                await until(lambda: len(connections) == 10)
                for connection in connections:
                    await until(partial(_has_links, connection, life + 1))
                    await connection.wait_open()
                    await connection.service("Ledger").note("here")
                assert len(await connections[0].service("Ledger").notes()) == 10
        assert all(connection.statistics().resumed == 0 for connection in connections)
        nursery.cancel_scope.cancel()


def _has_links(connection: heartline.Connection, count: int) -> bool:
    return connection.statistics().links >= count


@kinds
async def test_a_client_that_hangs_keeps_its_name_until_it_is_missed(kind: str, tmp_path: Path) -> None:
    """Its program is started again, elsewhere, while nobody has noticed yet: it has to wait, and gets in."""
    async with start("server", url=url_to_listen(kind, tmp_path), history=1_000_000) as server:
        url = await server.read("url")
        async with start("client", url=url, name="ann") as hung:
            await hung.read("opened")
            hung.send(signal.SIGSTOP)
            codes = []
            with trio.fail_after(PATIENCE):
                while True:
                    try:
                        async with heartline.open_connection(url, identity="ann") as connection:
                            assert connection.id == "ann"
                            break
                    except ConnectionRefusedByPeer as refused:
                        codes.append(refused.code)
                    await trio.sleep(0.02)
            assert set(codes) <= {CloseCode.IDENTITY_IN_USE}
            assert not CloseCode.is_terminal(CloseCode.IDENTITY_IN_USE)
