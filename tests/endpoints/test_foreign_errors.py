"""A user's function may raise anything, also what is no ``Exception``: it fails alone, and is logged once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import (
    Backoff,
    ConnectionRefusedByPeer,
    Fold,
    Observer,
    Operation,
    Peer,
    PushError,
    RemoteError,
    Server,
    StoreError,
    TopicSettings,
)
from heartline.observe import Proceed
from tests.connection.helpers import QUIET, cut, no_leaks, settle
from tests.opening import open_stream
from tests.push.stores import Disk, FakeStore

from .leaving import heard_of


class Panic(BaseException):
    """As extensions written in Rust raise it."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("BOOM"),
    "CancelledError": lambda: asyncio.CancelledError("BOOM"),
    "GeneratorExit": lambda: GeneratorExit("BOOM"),
    "Panic": lambda: Panic("BOOM"),
    "a group": lambda: BaseExceptionGroup("BOOM", [Panic("BOOM")]),
}


class Faulty:
    """Whatever a user can give to an endpoint; the part that is named here raises."""

    def __init__(self, place: str, make_error: Callable[[], BaseException]) -> None:
        self._place = place
        self._make_error = make_error
        self.asked = 0

    def fail(self, place: str) -> None:
        if place == self._place:
            raise self._make_error()

    def authenticate(self, peer: Peer) -> None:
        if peer.credentials == "spoiled":
            self.fail("authenticate")

    async def authenticate_later(self, peer: Peer) -> None:
        await trio.lowlevel.checkpoint()
        if peer.credentials == "spoiled":
            self.fail("authenticate, async")

    async def middleware(self, operation: Operation, proceed: Proceed) -> Any:
        if operation.name == "Methods.inline" or getattr(operation.subject, "credentials", "") == "spoiled":
            self.fail("middleware of " + ("an admission" if operation.kind == "admission" else "a call"))
        return await proceed()

    def credentials(self) -> str:
        self.asked += 1
        if self.asked == 2:
            self.fail("credentials")
        return "fine"

    async def dialect(self, stream: trio.abc.Stream, first: bytes, visit: Any) -> None:
        self.fail("a dialect")

    def apply(self, state: Any, value: Any) -> Any:
        self.fail("a fold")
        return state


class Spy(Observer):
    def __init__(self, faulty: Faulty) -> None:
        self._faulty = faulty

    def call_served(self, name: str, seconds: float, error: BaseException | None) -> None:
        self._faulty.fail("an observer")


@heartline.service
class Methods:
    def __init__(self, faulty: Faulty) -> None:
        self._faulty = faulty

    def inline(self) -> str:
        self._faulty.fail("a method")
        return "fine"

    async def task(self) -> str:
        self._faulty.fail("an async method")
        return "fine"

    async def nursery(self) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            self._faulty.fail("a nursery in a method")
            nursery.cancel_scope.cancel()
        return "fine"

    @heartline.method(thread=True)
    def thread(self) -> str:
        self._faulty.fail("a method in a thread")
        return "fine"

    def echo(self) -> str:
        return "fine"


# What happens at each place


async def call(server: Server, faulty: Faulty, method: str) -> None:
    async with heartline.open_connection(server.urls[0], heartbeat=QUIET) as client:
        with pytest.raises(RemoteError) as caught:
            await getattr(client.service(Methods), method)()
        assert "BOOM" in str(caught.value)
        assert await heartline.remote(client.service(Methods).echo)() == "fine"
        assert client.statistics().links == 1


async def be_observed(server: Server, faulty: Faulty) -> None:
    async with heartline.open_connection(server.urls[0], heartbeat=QUIET) as client:
        assert await heartline.remote(client.service(Methods).echo)() == "fine"


async def be_judged(server: Server, faulty: Faulty) -> None:
    with pytest.raises(ConnectionRefusedByPeer, match="could not check the credentials"):
        async with heartline.open_connection(server.urls[0], credentials="spoiled"):
            pass


async def renew(server: Server, faulty: Faulty) -> None:
    """The second time: the first error would be raised by the opening."""
    again = Backoff(initial=0.1, maximum=0.1)
    async with heartline.open_connection(
        server.urls[0], credentials=faulty.credentials, reconnect=again, heartbeat=QUIET
    ) as client:
        cut(client)
        await trio.sleep(1)
        await client.wait_open()
        assert faulty.asked == 3


async def be_another(server: Server, faulty: Faulty) -> None:
    async with await open_stream(server.urls[0]) as stream:
        await stream.send_all(b"\x07")
        assert not await stream.receive_some()


async def publish(server: Server, faulty: Faulty, topic: str, error: type[Exception] | None) -> None:
    if error is None:
        await server.publish(topic, "news")
        with pytest.raises(PushError, match="BOOM"):
            server.topic_state(topic)
        return
    with pytest.raises(error):
        await server.publish(topic, "news")
    assert (await server.publish(topic, "news")).offset == 1


PLACES: dict[str, Callable[[Server, Faulty], Any]] = {
    "a method": partial(call, method="inline"),
    "an async method": partial(call, method="task"),
    "a nursery in a method": partial(call, method="nursery"),
    "a method in a thread": partial(call, method="thread"),
    "middleware of a call": partial(call, method="inline"),
    "middleware of an admission": be_judged,
    "authenticate": be_judged,
    "authenticate, async": be_judged,
    "credentials": renew,
    "an observer": be_observed,
    "a dialect": be_another,
    "a fold": partial(publish, topic="folded", error=None),
    "a store": partial(publish, topic="stored", error=StoreError),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", PLACES)
async def test_it_fails_alone(
    place: str, error: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    faulty = Faulty(place, ERRORS[error])
    store = FakeStore(Disk())
    if place == "a store":
        store.planted = [ERRORS[error]()]
    settings: dict[str, Any] = {
        "services": [Methods(faulty)],
        "authenticate": faulty.authenticate_later if "async" in place else faulty.authenticate,
        "observers": [Spy(faulty)] if place == "an observer" else [],
        "middleware": [faulty.middleware] if "middleware" in place else [],
        "dialects": {7: faulty.dialect},
        "topics": {
            "folded": TopicSettings(fold=Fold(apply=faulty.apply)),
            "stored": TopicSettings(store=store),
        },
    }
    await trio.to_thread.run_sync(int)  # a worker thread, which stays
    with no_leaks():
        async with (
            heartline.open_server("memory://", heartbeat=QUIET, **settings) as server,
            heartline.open_connection(server.urls[0], heartbeat=QUIET) as bystander,
        ):
            caplog.clear()
            await PLACES[place](server, faulty)
            await settle()
            assert bystander.statistics().links == 1
            assert set(server.connections) == {bystander.id}
    told = [record for record in caplog.records if record.exc_info and record.exc_info[1]]
    assert len(told) == 1, [record.getMessage() for record in told]
    assert told[0].levelno >= logging.WARNING


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("method", ["inline", "task", "nursery"])
@pytest.mark.parametrize("side", ["client", "server"])
async def test_what_is_meant_for_the_program_leaves_the_block_with_a_goodbye(
    side: str, method: str, error: type[BaseException], autojump_clock: MockClock
) -> None:
    """It is raised bare out of the block, and every peer hears a goodbye, in the middle of an upload too."""
    places = {"inline": "a method", "task": "an async method", "nursery": "a nursery in a method"}
    faulty = Faulty(places[method], error)
    stay: dict[str, Any] = {"heartbeat": QUIET, "reconnect": Backoff(initial=1000, maximum=1000)}
    goodbyes: list[str] = []

    async def visit(url: str, spoil: bool, task_status: trio.TaskStatus[None]) -> None:
        async with heartline.open_connection(url, **stay) as client:
            events = client.events()
            task_status.started()
            if spoil:
                with pytest.raises(heartline.CallInterrupted):
                    await getattr(client.service(Methods), method)()
            goodbyes.append(await heard_of(events))

    with no_leaks():
        async with trio.open_nursery() as nursery:
            if side == "server":
                with pytest.raises(error):
                    async with heartline.open_server(
                        "memory://", services=[Methods(faulty)], heartbeat=QUIET
                    ) as server:
                        await nursery.start(visit, server.urls[0], False)
                        with trio.move_on_after(1):
                            while True:
                                await next(iter(server.connections.values())).send(bytes(1_000_000))
                        await nursery.start(visit, server.urls[0], True)
                        await trio.sleep_forever()
                assert goodbyes == ["a goodbye, GOING_AWAY"] * 2
            else:
                async with heartline.open_server("memory://", heartbeat=QUIET) as server:
                    events = server.events()
                    with pytest.raises(error):
                        async with heartline.open_connection(
                            server.urls[0], services=[Methods(faulty)], **stay
                        ) as client:
                            there = server.connections[client.id]
                            nursery.start_soon(suppressed, getattr(there.service(Methods), method))
                            await trio.sleep_forever()
                    assert await heard_of(events) == "a goodbye, NORMAL"
    assert trio.current_time() <= 1


async def suppressed(call: Any) -> None:
    with pytest.raises(heartline.CallInterrupted):
        await call()
