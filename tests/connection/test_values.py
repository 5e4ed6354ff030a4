"""What one side accepts the other can read: the rest is refused before anything is queued or stored."""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import Fold, LocalProtocolError, SerializationError, SqliteStore, TopicSettings, service
from heartline.errors import InvalidArguments

from .helpers import settle


def deep(levels: int) -> Any:
    value: Any = None
    for _ in range(levels):
        value = [value]
    return value


def cyclic() -> Any:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


UNREADABLE: dict[str, tuple[Any, str]] = {
    "a key that is a number": ({"rate": {1: 0.1}}, r"\['rate'\]: a map's keys are text.*: make them text"),
    "a number beyond 64 bits": ([0, 2**64], r"\[1\]: an integer beyond 64 bits.*: make it text"),
    "33 levels": (deep(33), r"(\[0\])+: more than 32 levels of nesting"),
    "100,000 levels": (deep(100_000), r"(\[0\])+: more than 32 levels of nesting"),
    "itself": (cyclic(), r"(\['self'\]|\[0\])+: more than 32 levels of nesting"),
    "two keys in one": ({1: "one", "1": "uno"}, ": a map's keys are text"),
}
unreadable = pytest.mark.parametrize(("value", "why"), UNREADABLE.values(), ids=UNREADABLE)


@service
class Echo:
    def echo(self, value: Any) -> Any:
        return value

    def give(self, name: str) -> Any:
        return UNREADABLE[name][0]


@pytest.mark.parametrize("serializer", ["cbor", "json", "msgpack"])
@unreadable
async def test_what_cannot_be_read_is_not_sent(
    serializer: str, value: Any, why: str, autojump_clock: MockClock
) -> None:
    async with (
        heartline.open_server("memory://", services=[Echo()], serializer=serializer) as server,
        heartline.open_connection(server.urls[0], serializer=serializer) as client,
        client.subscribe("topic") as topic,
    ):
        channel = await client.open_channel("channel")
        sends: list[Callable[[Any], Awaitable[object]]] = [
            client.send,
            channel.send,
            server.broadcast,
            lambda message: server.send_to(client.id, message),
            lambda update: server.publish("topic", update),
            lambda update: client.publish("topic", update),
        ]
        for send in sends:
            with pytest.raises(SerializationError, match=rf"^value{why}"):
                await send(value)
        with pytest.raises(SerializationError, match=rf"^value{why}"):
            client.send_nowait(value)
        with pytest.raises(InvalidArguments, match=rf"Echo\.echo was not called: value\[0\]{why}"):
            await client.service(Echo).echo(value)
        # Nothing of it has left: what comes next is what arrives first.
        for send in sends[:-1]:
            await send("next")
        there = server.connections[client.id]
        assert (await there.receive(), await client.receive()) == ("next", "next")
        update = await topic.__anext__()
        assert isinstance(update, heartline.Update)
        assert (update.position.offset, update.value) == (1, "next")


@pytest.mark.parametrize("name", UNREADABLE)
async def test_a_result_that_cannot_be_read_is_an_error(name: str, autojump_clock: MockClock) -> None:
    async with (
        heartline.open_server("memory://", services=[Echo()]) as server,
        heartline.open_connection(server.urls[0]) as client,
    ):
        with pytest.raises(heartline.RemoteError, match=rf"its result: value{UNREADABLE[name][1]}"):
            await client.service(Echo).give(name)
        assert await client.service(Echo).echo(1) == 1


@unreadable
async def test_credentials_that_cannot_be_read_are_refused(
    value: Any, why: str, autojump_clock: MockClock
) -> None:
    async with heartline.open_server("memory://") as server:
        with pytest.raises(SerializationError, match=rf"^value\.credentials{why}"):
            async with heartline.open_connection(server.urls[0], credentials=value):
                pass


async def test_a_state_is_never_lost_to_an_update(autojump_clock: MockClock, tmp_path: Any) -> None:
    async def life(*updates: Any) -> Any:
        async with SqliteStore(tmp_path / "topics.db") as store:
            fold = Fold(apply=lambda state, value: state | value)
            topics = {"topic": TopicSettings(store=store, fold=fold)}
            async with heartline.open_server("memory://", topics=topics) as server:
                for update in updates:
                    try:
                        await server.publish("topic", update)
                    except SerializationError:
                        assert 7 in update
                return server.topic_state("topic")

    assert await life({"a": 1}, {7: "seven"}, {"b": 2}) == {"a": 1, "b": 2}
    assert await life({"c": 3}) == {"a": 1, "b": 2, "c": 3}


LARGE: dict[str, Callable[[int], Any]] = {
    "an array": lambda size: np.zeros(size, np.uint8),
    "arrays inside": lambda size: {"layers": [np.zeros(size // 2 + 1, np.uint8)] * 2},
    "a memoryview": lambda size: memoryview(bytes(size)),
    "bytes": lambda size: [bytes(size)],
    "a bytearray": lambda size: {"data": bytearray(size)},
}


@pytest.mark.parametrize("make", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("serializer", ["cbor", "json", "msgpack"])
async def test_what_is_too_long_is_refused_before_it_is_copied(
    serializer: str, make: Callable[[int], Any], autojump_clock: MockClock
) -> None:
    limits = heartline.Limits(message_size=2**20)
    async with (
        heartline.open_server("memory://", services=[Echo()], serializer=serializer, limits=limits) as server,
        heartline.open_connection(server.urls[0], serializer=serializer) as client,
    ):
        channel = await client.open_channel("channel")
        await settle()
        value = make(2**22)
        tracemalloc.start()
        try:
            sends: list[Callable[[Any], Awaitable[object]]] = [
                client.send,
                channel.send,
                server.broadcast,
                lambda update: server.publish("topic", update),
            ]
            for send in sends:
                with pytest.raises(
                    LocalProtocolError, match=r"it may have 1048576 bytes .Limits\.message_size"
                ):
                    await send(value)
            with pytest.raises(
                InvalidArguments, match=r"Echo.echo was not called: .*it may have 1048576 bytes"
            ):
                await client.service(Echo).echo(value)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 2**20
        await trio.lowlevel.checkpoint()
