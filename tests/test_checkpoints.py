"""Every public await is a checkpoint: others run meanwhile, and in a cancelled scope it is cancelled."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints

import heartline
from heartline import Channel, Connection, Server, Subscription
from heartline.connection import Events, Messages, ReceivedMessages

from .connection.helpers import QUIET, cut, pair_of_channels, settle


@heartline.service
class Echo:
    def echo(self, value: Any) -> Any:
        return value


@dataclass
class World:
    """Everything is there already, so that no await has to wait for it."""

    server: Server
    client: Connection
    there: Connection
    ours: Channel
    theirs: Channel
    subscription: Subscription[Any]
    entered: Subscription[Any]
    events: Events[Any]
    server_events: Events[Any]


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    async with (
        heartline.open_server("memory://", services=[Echo()], heartbeat=QUIET) as server,
        heartline.open_connection(
            server.urls[0], heartbeat=QUIET, reconnect=heartline.Backoff(initial=0.1)
        ) as client,
    ):
        there = server.connections[client.id]
        events, server_events = client.events(), server.events()
        cut(client)
        await settle()
        await trio.sleep(1)
        ours, theirs = await pair_of_channels(client, there)
        await ours.send("on the channel")
        await there.open_channel("to be accepted")
        await client.send("for all")
        await there.send("for the client")
        await server.publish("topic", "an update")
        entered = client.subscribe("topic", since="oldest")
        await entered.__aenter__()
        await settle()
        subscription = client.subscribe("topic")
        yield World(server, client, there, ours, theirs, subscription, entered, events, server_events)


Case = Callable[[World], Awaitable[Any]]

CASES: dict[tuple[type, str], Case] = {
    (Connection, "send"): lambda w: w.client.send("x"),
    (Connection, "receive"): lambda w: w.client.receive(),
    (Connection, "open_channel"): lambda w: w.client.open_channel("another"),
    (Connection, "accept_channel"): lambda w: w.client.accept_channel(),
    (Connection, "publish"): lambda w: w.client.publish("topic", 1),
    (Connection, "delete_topic"): lambda w: w.client.delete_topic("topic"),
    (Connection, "wait_open"): lambda w: w.client.wait_open(),
    (Connection, "aclose"): lambda w: w.client.aclose(),
    (ReceivedMessages, "__anext__"): lambda w: anext(w.client.messages()),
    (Events, "__anext__"): lambda w: anext(w.events),
    (Channel, "send"): lambda w: w.theirs.send("x"),
    (Channel, "receive"): lambda w: w.theirs.receive(),
    (Channel, "aclose"): lambda w: w.ours.aclose(),
    (Subscription, "__aenter__"): lambda w: w.subscription.__aenter__(),
    (Subscription, "__anext__"): lambda w: anext(w.entered),
    (Subscription, "__aexit__"): lambda w: w.entered.__aexit__(None, None, None),
    (Server, "send_to"): lambda w: w.server.send_to(w.client.id, "x"),
    (Server, "broadcast"): lambda w: w.server.broadcast("x"),
    (Server, "publish"): lambda w: w.server.publish("topic", 1),
    (Server, "delete_topic"): lambda w: w.server.delete_topic("topic"),
    (Server, "close_connection"): lambda w: w.server.close_connection(w.client.id),
    (Server, "drain"): lambda w: w.server.drain(1),
    (Messages, "__anext__"): lambda w: anext(w.server.messages()),
}
"""By the class and the method: a call that can go on at once."""

MORE: dict[str, Case] = {
    "a call": lambda w: w.client.service(Echo).echo(1),
    "events of a server": lambda w: anext(w.server_events),
    "closing twice": lambda w: twice(w.client.aclose),
    "closing a channel twice": lambda w: twice(w.ours.aclose),
    "a broadcast to nobody": lambda w: after(w.client.aclose, lambda: w.server.broadcast("x")),
    "a drain of nobody": lambda w: after(w.client.aclose, lambda: w.server.drain(0)),
}

ALL = {f"{owner.__name__}.{name}": case for (owner, name), case in CASES.items()} | MORE


async def after(before: Callable[[], Awaitable[Any]], then: Callable[[], Awaitable[Any]]) -> None:
    """Only the second one counts."""
    with trio.CancelScope(shield=True):
        await before()
        await settle()
    with assert_checkpoints():
        await then()


async def twice(function: Callable[[], Awaitable[Any]]) -> None:
    await after(function, function)


@pytest.mark.parametrize(
    "owner", [Channel, Connection, Events, Messages, ReceivedMessages, Server, Subscription]
)
def test_nothing_is_forgotten_here(owner: type) -> None:
    named = {name for known, name in CASES if known is owner}
    awaited = {
        name
        for name, method in vars(owner).items()
        if inspect.iscoroutinefunction(method) and (not name.startswith("_") or name.startswith("__"))
    }
    assert named == awaited


@pytest.mark.parametrize("name", ALL)
async def test_it_lets_others_run(name: str, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        with assert_checkpoints():
            await ALL[name](world)


@pytest.mark.parametrize("name", ALL)
async def test_it_is_cancelled_with_its_scope(name: str, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        start = trio.current_time()
        with trio.CancelScope() as scope:
            scope.cancel()
            await ALL[name](world)
        assert scope.cancelled_caught
        assert trio.current_time() == start
