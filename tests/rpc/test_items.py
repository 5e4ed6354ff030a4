"""The items of arguments and results: their bound, on both sides, and what is not even looked at."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import Connection, Limits, service
from heartline.errors import InvalidArguments, Outcome, RemoteError
from heartline.push._types import MAX_TOPIC_NAME
from heartline.push._wire import PUSH_HEAD
from heartline.wire import CborSerializer, Frame, FrameType
from heartline.wire.limits import LEAST_ITEMS, SMALL_CALL
from tests.engine import link_of
from tests.rpc.helpers import QUIET, open_pair, raw_client, raw_server, settle
from tests.small_middleware import Journal

MOST = 20_000
SMALL = Limits(items=MOST)
ENOUGH, MANY = [0] * (MOST - 2), [0] * (MOST + 1)
SERIALIZERS = ["cbor", "json", "msgpack"]


@service
class Rows:
    def __init__(self) -> None:
        self.calls = 0

    def count(self, rows: Any) -> int:
        self.calls += 1
        return len(rows)

    def give(self, rows: int) -> list[int]:
        return [0] * rows

    async def give_later(self, rows: int) -> list[int]:
        return [0] * rows

    def array(self, rows: int) -> Any:
        return np.zeros(rows)


def lie(connection: Connection) -> None:
    """Let a connection believe that its peer takes anything, as a peer does that does not care."""
    link = link_of(connection)
    link.peer_limits = msgspec.structs.replace(link.peer_limits, items=2**60)


@pytest.mark.parametrize("serializer", SERIALIZERS)
async def test_arguments_of_more_items_than_the_peer_takes(
    serializer: str, autojump_clock: MockClock
) -> None:
    async with open_pair(Rows(), server_limits=SMALL, limits=Limits(), serializer=serializer) as (client, _):
        rows = client.service("Rows")
        assert await rows.count(ENOUGH) == MOST - 2
        for arguments in ([MANY], [["a"] * MOST, 1]):
            with pytest.raises(InvalidArguments, match=r"not called: more than 20000 items") as info:
                await rows.count(*arguments)
            assert info.value.outcome is Outcome.NOT_SENT
        with pytest.raises(InvalidArguments, match="not called: more than 20000 items"):
            await rows.count(rows=MANY)
        assert await rows.count(np.zeros(10 * MOST)) == 10 * MOST


@pytest.mark.parametrize("serializer", SERIALIZERS)
async def test_a_peer_that_sends_them_all_the_same(serializer: str, autojump_clock: MockClock) -> None:
    instance = Rows()
    async with open_pair(instance, server_limits=SMALL, limits=Limits(), serializer=serializer) as (
        client,
        _,
    ):
        lie(client)
        rows = client.service("Rows")
        with pytest.raises(InvalidArguments, match="more than 20000 items") as info:
            await rows.count(MANY)
        assert info.value.outcome is Outcome.COMPLETED
        assert instance.calls == 0
        assert await rows.count(ENOUGH) == len(ENOUGH)


@pytest.mark.parametrize("name", ["give", "give_later"])
async def test_a_result_of_more_items_than_the_caller_takes(name: str, autojump_clock: MockClock) -> None:
    async with open_pair(Rows(), limits=SMALL, server_limits=Limits()) as (client, there):
        give = getattr(client.service(Rows), name)
        assert len(await give(MOST - 1)) == MOST - 1
        with pytest.raises(RemoteError, match="its result: more than 20000 items") as info:
            await give(MOST)
        assert info.value.type_name == "SerializationError"
        assert (await client.service(Rows).array(MOST)).shape == (MOST,)
        lie(there)
        with pytest.raises(InvalidArguments, match=r"was executed, but .* more than 20000 items") as caught:
            await give(MOST)
        assert caught.value.outcome is Outcome.COMPLETED


async def test_an_error_of_many_items_is_not_built(autojump_clock: MockClock, decoded: list[int]) -> None:
    async with raw_server() as (client, peer), trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(RemoteError, match=r"a malformed FAULT: more than 16384 items"):
                await client.service("Rows").count([])

        nursery.start_soon(call)
        call_made = await peer.receive()
        bomb = b"\x9a" + LEAST_ITEMS.to_bytes(4) + b"\x80" * LEAST_ITEMS
        await peer.send(Frame(FrameType.FAULT, id=call_made.id, payload=bomb))
    assert max(decoded) < 1000


# What is not even looked at


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of what was decoded as CBOR."""
    lengths: list[int] = []
    decode = CborSerializer.decode

    def note(self: CborSerializer, data: bytes, *arguments: Any) -> Any:
        lengths.append(len(data))
        return decode(self, data, *arguments)

    monkeypatch.setattr(CborSerializer, "decode", note)
    return lengths


LONG = b"x" * (2 * SMALL_CALL)


async def test_arguments_for_no_method_are_not_decoded(autojump_clock: MockClock, decoded: list[int]) -> None:
    async with heartline.open_server("memory://", services=[Rows()], heartbeat=QUIET) as server:
        async with raw_client(server.urls[0]) as peer:
            await peer.call(1, "Rows.none", LONG)
            assert (await peer.receive_fault())["kind"] == "unknown"
            assert max(decoded) < len(LONG)
            await peer.call(2, "Rows.count", LONG)
            assert await peer.receive_result() == len(LONG)
            assert max(decoded) > len(LONG)


@pytest.mark.parametrize("middleware", [(), (Journal(),)], ids=["plain", "with middleware"])
async def test_a_built_in_method_takes_short_arguments(
    middleware: Any, autojump_clock: MockClock, decoded: list[int]
) -> None:
    """Anybody may call one, so a long topic costs nothing; the longest that is a topic fits."""
    async with heartline.open_server("memory://", heartbeat=QUIET, middleware=middleware) as server:
        async with raw_client(server.urls[0]) as peer:
            await peer.call(1, "$push.subscribe", LONG, None, "drop oldest", 1)
            fault = await peer.receive_fault()
            assert fault["kind"] == "arguments"
            assert "a built-in method takes 4096 bytes, not 82" in fault["message"]
            assert max(decoded) < len(LONG)
            since = ["名" * 256, 2**63]
            await peer.call(2, "$push.subscribe", "名" * MAX_TOPIC_NAME, since, "drop oldest", 2**63)
            assert len(await peer.receive_result()) == 3


async def test_an_answer_for_no_call_is_not_decoded(autojump_clock: MockClock, decoded: list[int]) -> None:
    async with raw_server() as (_, peer):
        await peer.result(7, LONG)
        await peer.send(Frame(FrameType.FAULT, id=7, payload=LONG))
        await settle()
        assert max(decoded) < len(LONG)


async def test_an_update_for_no_subscription_is_not_decoded(
    autojump_clock: MockClock, decoded: list[int]
) -> None:
    async with raw_server() as (client, peer):
        for content_id in (0, 1):
            await peer.send(Frame(FrameType.PUSH, id=7, payload=PUSH_HEAD.pack(1, content_id) + LONG))
        await settle()
        assert client.state is heartline.ConnectionState.OPEN
        assert max(decoded) < 1000
