"""Middleware around messages: whoever reads them, and whatever it does, none is lost and none comes twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given

import heartline
from heartline import Connection, Limits, Operation, Overloaded, SerializationError, Server
from heartline.observe import Proceed
from heartline.wire import FrameType
from tests.engine import link_of
from tests.rpc.helpers import QUIET, run, settle

WINDOW = 16 * 1024
READERS = ("connection", "channel", "server")

Read = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


@asynccontextmanager
async def open_reader(kind: str, middleware: Any) -> AsyncIterator[tuple[Send, Read, Connection, Server]]:
    """Something to send with, and what reads that behind middleware."""
    limits = Limits(window=WINDOW)
    async with (
        heartline.open_server("memory://", heartbeat=QUIET, middleware=[middleware], limits=limits) as server,
        heartline.open_connection(server.urls[0], heartbeat=QUIET) as client,
    ):
        there = server.connections[client.id]
        if kind == "channel":
            channel = await client.open_channel("side")
            yield channel.send, (await there.accept_channel()).receive, client, server
        elif kind == "server":
            messages = server.messages()

            async def read() -> Any:
                return (await anext(messages)).value

            yield client.send, read, client, server
        else:
            yield client.send, there.receive, client, server


def only_messages(look: Callable[[Any], Any]) -> Any:
    """Middleware that does something to each message."""

    async def middleware(operation: Operation, proceed: Proceed) -> Any:
        result = await proceed()
        return look(result) if operation.kind == "message" else result

    return middleware


@pytest.mark.parametrize("kind", READERS)
class TestMessages:
    async def test_it_sees_and_changes_them(self, kind: str) -> None:
        seen = []

        async def double(operation: Operation, proceed: Proceed) -> Any:
            result = await proceed()
            if operation.kind != "message":
                return result
            seen.append((operation.name, operation.peer, operation.subject))
            return result * 2

        async with open_reader(kind, double) as (send, read, client, _server):
            for message in ("a", 3):
                await send(message)
            assert [await read(), await read()] == ["aa", 6]
        name = "side" if kind == "channel" else ""
        assert seen == [(name, client.id, "a"), (name, client.id, 3)]

    @pytest.mark.parametrize("error", [PermissionError("no"), Overloaded("no")])
    async def test_one_that_is_refused_is_dropped(self, kind: str, error: Exception) -> None:
        def refuse(message: int) -> int:
            if message % 3:
                raise error
            return message

        async with open_reader(kind, only_messages(refuse)) as (send, read, _client, _server):
            for message in range(7):
                await send(message)
            assert [await read() for _ in range(3)] == [0, 3, 6]

    async def test_another_error_is_the_readers(self, kind: str) -> None:
        def fail(message: int) -> int:
            return 6 // message

        async with open_reader(kind, only_messages(fail)) as (send, read, _client, _server):
            for message in (3, 0, 2):
                await send(message)
            assert await read() == 2
            with pytest.raises(ZeroDivisionError):
                await read()
            assert await read() == 3

    async def test_it_does_not_see_what_cannot_be_decoded(self, kind: str) -> None:
        def fail(message: Any) -> Any:
            raise AssertionError

        async with open_reader(kind, only_messages(fail)) as (_send, read, client, server):
            link = link_of(client)
            link.put(FrameType.DATA, 1 if kind == "channel" else 0, 1, b"\xff")
            with pytest.raises(SerializationError):
                await read()
            assert len(server.connections) == 1

    async def test_however_many_are_refused_others_get_their_turn(self, kind: str) -> None:
        def refuse(message: int) -> int:
            if message < 50:
                raise PermissionError
            return message

        async with open_reader(kind, only_messages(refuse)) as (send, read, _client, _server):
            for message in range(51):
                await send(message)
            await settle()
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    await trio.lowlevel.checkpoint()
                    turns += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                assert await read() == 50
                nursery.cancel_scope.cancel()
            assert turns >= 49


@given(
    kind=st.sampled_from(READERS),
    delays=st.lists(st.sampled_from([0.0, 0.4, 1.0]), min_size=1, max_size=3),
    patience=st.lists(st.sampled_from([0.3, 0.7, 5.0]), min_size=1, max_size=5),
    shield=st.booleans(),
)
def test_a_reader_that_gives_up_loses_nothing(
    kind: str, delays: list[float], patience: list[float], shield: bool
) -> None:
    waits = [*delays, 0.0] * 100

    async def delay(operation: Operation, proceed: Proceed) -> Any:
        if operation.kind == "message":
            with trio.CancelScope(shield=shield):
                await trio.sleep(waits.pop())
        return await proceed()

    async def main() -> None:
        sent, got = list(range(30)), list[Any]()
        async with open_reader(kind, delay) as (send, read, client, _server):

            async def send_all() -> None:
                for message in sent:
                    await send([message, b"x" * 200] if message % 3 else message)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_all)
                turn = 0
                while len(got) < len(sent):
                    with trio.move_on_after(patience[turn % len(patience)]):
                        got.append(await read())
                    turn += 1
            assert [one if isinstance(one, int) else one[0] for one in got] == sent
            await settle()
            lane = link_of(client).session.outbox._lanes.find(1 if kind == "channel" else 0)
            assert lane is not None
            assert lane.credit == WINDOW, "what was put back was not paid for twice"

    run(main)
