"""Middleware around admission, and what observers hear of connections and refusals."""

from __future__ import annotations

import itertools
import logging
from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given
from trio.testing import MockClock

import heartline
from heartline import (
    Backoff,
    CloseCode,
    Connection,
    ConnectionClosed,
    ConnectionRefusedByPeer,
    Limits,
    Observer,
    Operation,
    Overloaded,
    Peer,
)
from heartline.observe import Proceed
from tests.rpc.helpers import QUIET, cut, run, settle
from tests.small_middleware import Journal

AGAIN = Backoff(initial=0.1, maximum=0.1)


class Heard(Observer):
    """Writes down what it is told of connections and refusals."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.refused: list[tuple[int | None, str]] = []
        self.connections: set[Connection] = set()

    def connection_opened(self, connection: Connection) -> None:
        self.connections.add(connection)
        self.events.append(("opened", connection.id))

    def connection_lost(self, connection: Connection, reason: Exception) -> None:
        assert connection in self.connections
        self.events.append(("lost", type(reason).__name__))

    def connection_returned(self, connection: Connection, *, resumed: bool) -> None:
        assert connection in self.connections
        self.events.append(("returned", resumed))

    def connection_closed(self, connection: Connection, reason: Exception) -> None:
        assert connection in self.connections
        self.events.append(("closed", type(reason).__name__))

    def peer_refused(self, address: str, code: int | None, reason: str) -> None:
        assert code is not None
        assert isinstance(address, str)
        self.refused.append((code, reason))


def authenticate(peer: Peer) -> str | None:
    if peer.credentials == "wrong":
        raise PermissionError("wrong token")
    return peer.identity


async def connect(url: str, **settings: Any) -> str:
    """Come and go; the id that the server gave."""
    async with heartline.open_connection(url, heartbeat=QUIET, **settings) as connection:
        return connection.id


class TestAdmission:
    async def test_it_sees_who_comes(self) -> None:
        seen = []

        async def look(operation: Operation, proceed: Proceed) -> Any:
            seen.append((operation, await proceed()))

        async with heartline.open_server("memory://", middleware=[look], authenticate=authenticate) as server:
            # It returned nothing, which changes nothing.
            assert await connect(server.urls[0], identity="ada", credentials=7) == "ada"
        ((operation, identity),) = seen
        assert (operation.kind, operation.name, operation.peer, identity) == ("admission", "ada", "", "ada")
        assert (operation.subject.identity, operation.subject.credentials) == ("ada", 7)

    @pytest.mark.parametrize(
        ("error", "code", "reason", "terminal"),
        [
            (PermissionError("not you"), CloseCode.UNAUTHENTICATED, "not you", True),
            (Overloaded("later"), CloseCode.OVERLOADED, "later", False),
            (Overloaded(""), CloseCode.OVERLOADED, "not now", False),
            (
                ValueError("secret"),
                CloseCode.INTERNAL_ERROR,
                "the server could not check the credentials",
                False,
            ),
        ],
    )
    @pytest.mark.parametrize("after", [False, True])
    async def test_it_refuses(
        self, error: Exception, code: CloseCode, reason: str, terminal: bool, after: bool
    ) -> None:
        async def refuse(operation: Operation, proceed: Proceed) -> Any:
            if after:
                await proceed()
            raise error

        heard = Heard()
        async with heartline.open_server("memory://", middleware=[refuse], observers=[heard]) as server:
            with pytest.raises(ConnectionRefusedByPeer) as caught:
                await connect(server.urls[0])
            assert (caught.value.code, caught.value.reason) == (code, reason)
            assert caught.value.terminal == terminal
            assert not server.connections
            assert server.statistics().refused == 1
        assert heard.refused == [(code, reason)]
        assert not heard.events

    async def test_to_forget_about_it_lets_nobody_in(self) -> None:
        async def forget(_operation: Operation, _proceed: Proceed) -> Any:
            return "root"

        async with heartline.open_server("memory://", middleware=[forget]) as server:
            with pytest.raises(ConnectionRefusedByPeer, match="middleware did not go on"):
                await connect(server.urls[0])

    async def test_it_has_the_time_of_a_handshake(self, autojump_clock: MockClock) -> None:
        async def wait(_operation: Operation, proceed: Proceed) -> Any:
            await trio.sleep_forever()
            return await proceed()

        heard, limits = Heard(), Limits(handshake_timeout=5)
        async with heartline.open_server(
            "memory://", middleware=[wait], observers=[heard], limits=limits
        ) as server:
            with pytest.raises(ConnectionRefusedByPeer, match="no handshake within 5 s"):
                await connect(server.urls[0])
            assert server.statistics().handshaking == 0
        assert [code for code, _reason in heard.refused] == [CloseCode.HANDSHAKE_TIMEOUT]

    async def test_a_client_that_was_put_off_comes_back(self, autojump_clock: MockClock) -> None:
        refusals = 3

        async def put_off(operation: Operation, proceed: Proceed) -> Any:
            nonlocal refusals
            if operation.kind == "admission" and refusals and server.statistics().accepted:
                refusals -= 1
                raise Overloaded("one moment")
            return await proceed()

        async with (
            heartline.open_server("memory://", middleware=[put_off]) as server,
            heartline.open_connection(server.urls[0], reconnect=AGAIN) as client,
        ):
            cut(client)
            await settle()
            await client.wait_open()
            assert not refusals
            assert client.statistics().resumed == 1


async def test_observers_of_both_ends_hear_of_a_life(autojump_clock: MockClock) -> None:
    here, there = Heard(), Heard()
    async with heartline.open_server("memory://", observers=[there], authenticate=authenticate) as server:
        url = server.urls[0]
        async with heartline.open_connection(
            url, identity="ada", reconnect=AGAIN, observers=[here]
        ) as client:
            for links in (2, 3):
                cut(client)
                while client.statistics().links < links:
                    await trio.sleep(1)
        await settle()
        with pytest.raises(ConnectionRefusedByPeer):
            await connect(url, credentials="wrong")
    back = [("lost", "ConnectionLost"), ("returned", True)] * 2
    life = [("opened", "ada"), *back, ("closed", "ConnectionClosed")]
    assert here.events == [*life[:-1], ("lost", "ConnectionClosed"), life[-1]]
    assert there.events == life
    assert there.refused == [(CloseCode.UNAUTHENTICATED, "wrong token")]
    assert not here.refused
    assert len(here.connections) == len(there.connections) == 1


async def test_a_new_session_is_no_resumed_one(autojump_clock: MockClock) -> None:
    heard, limits = Heard(), Limits(resume_window=0)
    async with (
        heartline.open_server("memory://", limits=limits) as server,
        heartline.open_connection(server.urls[0], reconnect=AGAIN, observers=[heard]) as client,
    ):
        cut(client)
        await settle()
        await client.wait_open()
    assert ("returned", False) in heard.events


async def test_an_observer_may_end_the_connection_that_it_hears_of(autojump_clock: MockClock) -> None:
    class Bouncer(Observer):
        def connection_opened(self, connection: Connection) -> None:
            nursery.start_soon(connection.aclose)

    heard = Heard()
    async with (
        trio.open_nursery() as nursery,
        heartline.open_server("memory://", observers=[Bouncer(), heard]) as server,
    ):
        with suppress(ConnectionClosed):  # unless it has come and gone before the goodbye
            await connect(server.urls[0], reconnect=None)
        await settle()
        assert [event for event, *_ in heard.events] == ["opened", "closed"]
        assert not server.connections


@given(
    faults=st.lists(st.sampled_from(["cut", "close", "wait"]), max_size=6),
    window=st.sampled_from([0.0, 0.5, 60.0]),
    broken=st.booleans(),
)
def test_every_life_is_told_in_order(faults: list[str], window: float, broken: bool) -> None:
    class Broken(Observer):
        def connection_lost(self, connection: Connection, reason: Exception) -> None:
            raise ZeroDivisionError

        def connection_opened(self, connection: Connection) -> None:
            raise ZeroDivisionError

    here, there = Heard(), Heard()
    observers = [Broken()] if broken else []
    limits = Limits(resume_window=window)

    async def main() -> None:
        async with (
            heartline.open_server("memory://", observers=[*observers, there], limits=limits) as server,
            heartline.open_connection(
                server.urls[0], reconnect=AGAIN, observers=[*observers, here], limits=limits
            ) as client,
        ):
            for fault in faults:
                if fault == "cut" and client.state is heartline.ConnectionState.OPEN:
                    cut(client)
                elif fault == "close" and client.id in server.connections:
                    await server.connections[client.id].aclose()
                else:
                    await trio.sleep(0.3)
        await settle()

    logging.disable(logging.CRITICAL)
    try:
        run(main)
    finally:
        logging.disable(logging.NOTSET)
    _check_life([event for event, *_ in here.events])
    # A server's connection may be followed by another one of the same client.
    lives = [event for event, *_ in there.events]
    assert lives.count("opened") == lives.count("closed") == len(there.connections)
    assert here.events[-1][0] == "closed"


def _check_life(events: list[str]) -> None:
    assert events[0] == "opened"
    assert events[-1] == "closed"
    for before, after in itertools.pairwise(events):
        allowed = {"lost": ("returned", "closed")}.get(before, ("lost", "closed"))
        assert after in allowed


async def test_a_journal_of_admissions() -> None:
    journal = Journal()
    async with heartline.open_server("memory://", middleware=[journal], authenticate=authenticate) as server:
        await connect(server.urls[0], identity="ada")
        with pytest.raises(ConnectionRefusedByPeer):
            await connect(server.urls[0], identity="ben", credentials="wrong")
    assert journal.lines == ["admission ada", "admission ben: PermissionError"]
