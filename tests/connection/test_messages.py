"""Messages on the default channel: what arrives, in which order, and who waits for whom."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import Connection, ConnectionLost, Limits, LocalProtocolError, SerializationError
from heartline.session.messages import CONFIRMATION
from heartline.session.outbox import MESSAGE_COST
from heartline.wire import CborSerializer, Flag, FrameType

from ..engine import link_of
from .helpers import SOCKETS, cut, data, open_pair, open_to_raw, pair_of_channels, run, settle, url_of

WINDOW = Limits().window

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=10,
)


@given(st.lists(values | st.binary(max_size=200_000), max_size=10))
def test_what_is_sent_arrives_in_order(messages: list[Any]) -> None:
    async def main() -> None:
        async with open_pair() as (client, there, _), trio.open_nursery() as nursery:

            @nursery.start_soon
            async def send() -> None:
                for message in messages:
                    await client.send(message)

            for message in messages:
                assert await there.receive() == message

    run(main)


@pytest.mark.parametrize("serializer", ["cbor", "json", "msgpack"])
async def test_every_serializer_and_both_directions(serializer: str) -> None:
    async with open_pair(serializer=serializer) as (client, there, server):
        await client.send({"a": [1, 2.5, None]})
        assert await there.receive() == {"a": [1, 2.5, None]}
        await server.send_to(client.id, "back")
        assert await client.receive() == "back"


async def test_bytearrays_and_empty_messages() -> None:
    async with open_pair() as (client, there, _):
        buffer = bytearray(b"mutable")
        await client.send(buffer)
        buffer[:] = b"changed"
        await client.send(b"")
        assert await there.receive() == b"mutable"
        assert await there.receive() == b""


async def test_arrays_arrive_as_arrays() -> None:
    async with open_pair() as (client, there, _):
        array = np.arange(300_000, dtype=np.float32).reshape(1000, 300)
        await client.send({"weights": array, "round": 3})
        got = await there.receive()
        assert got["round"] == 3
        np.testing.assert_array_equal(got["weights"], array)


@pytest.mark.parametrize("kind", [*SOCKETS, "memory://"])
async def test_small_messages_pass_huge_ones_and_both_are_whole(kind: str, tmp_path: object) -> None:
    huge = bytes(range(256)) * (40 * 1024)  # 10 MiB
    async with open_pair(url_of(kind, tmp_path)) as (client, there, _), trio.open_nursery() as nursery:
        channel = await client.open_channel("quick")
        other = await there.accept_channel()
        got: list[str] = []

        @nursery.start_soon
        async def receive_huge() -> None:
            for _ in range(2):
                assert await there.receive() == huge
                got.append("huge")

        @nursery.start_soon
        async def receive_small() -> None:
            for number in range(200):
                assert await other.receive() == number
                got.append("small")

        nursery.start_soon(client.send, huge)
        nursery.start_soon(client.send, huge)
        await trio.lowlevel.checkpoint()
        for number in range(200):
            await channel.send(number)
    # A socket takes megabytes in one tick, the memory stream 64 KiB.
    assert got.index("huge") > (20 if kind == "memory://" else 0)
    assert sorted(got) == ["huge"] * 2 + ["small"] * 200


# Back pressure


async def test_a_sender_waits_when_nobody_receives(autojump_clock: MockClock) -> None:
    async with open_pair() as (client, there, _):
        sent = 0
        with trio.move_on_after(10):
            for sent in itertools.count():
                await client.send(bytes(1000))
        window = WINDOW / (1000 + MESSAGE_COST)
        assert window <= sent <= window + 1
        with pytest.raises(trio.WouldBlock):
            client.send_nowait(b"x")
        # One read gives credit for one more message, and so on for ever.
        for _ in range(5):
            await there.receive()
            with trio.fail_after(1):
                await client.send(bytes(1000))
        with trio.move_on_after(1) as scope:
            await client.send(b"x")
        assert scope.cancelled_caught


async def test_empty_messages_cost_credit_too(autojump_clock: MockClock) -> None:
    async with open_pair() as (client, _there, _server):
        sent = 0
        with trio.move_on_after(10):
            for sent in itertools.count():
                await client.send(b"")
        assert sent <= WINDOW / MESSAGE_COST + 1


async def test_a_cancelled_send_sends_nothing(autojump_clock: MockClock) -> None:
    async with open_pair(limits=Limits(window=1)) as (client, there, _):
        await client.send(b"first")
        with trio.move_on_after(1):
            await client.send(b"cancelled")
        assert await there.receive() == b"first"
        await client.send(b"second")
        assert await there.receive() == b"second"


async def test_a_blocked_sender_learns_of_the_links_end(autojump_clock: MockClock) -> None:
    async with open_pair(limits=Limits(window=1), reconnect=None) as (client, there, _):
        await client.send(b"first")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def blocked() -> None:
                with pytest.raises(ConnectionLost):
                    await client.send(b"second")

            await settle()
            cut(there)
        assert trio.current_time() == 0


async def test_a_peer_that_does_not_read_holds_a_bounded_backlog(autojump_clock: MockClock) -> None:
    limits = Limits(write_buffer=200_000)
    async with open_to_raw(limits=limits, raw={"limits": Limits(window=1 << 30, memory=1 << 42)}) as (
        connection,
        _peer,
    ):
        with trio.move_on_after(5):
            while True:
                await connection.send(bytes(10_000))
        assert 200_000 <= connection.statistics().backlog < 220_000
        with pytest.raises(trio.WouldBlock):
            connection.send_nowait(b"x")


async def test_a_message_longer_than_the_peer_takes(autojump_clock: MockClock) -> None:
    small = Limits(message_size=5000, frame_size=5000)
    async with open_pair(server_limits=small) as (client, there, _):
        with pytest.raises(LocalProtocolError, match="message_size"):
            await client.send(bytes(5001))
        with pytest.raises(LocalProtocolError, match="message_size"):
            client.send_nowait(bytes(5001))
        await client.send(bytes(5000))
        assert await there.receive() == bytes(5000)


async def test_a_message_of_more_items_than_the_peer_takes(autojump_clock: MockClock) -> None:
    few = Limits(items=20_000)
    async with open_pair(server_limits=few) as (client, there, _):
        channel, accepted = await pair_of_channels(client, there)
        link = link_of(client)
        for honest in (True, False):
            for send, receive in (
                (client.send, there.receive),
                (nowait(client), there.receive),
                (channel.send, accepted.receive),
            ):
                await send([0] * 19_999)
                assert await receive() == [0] * 19_999
                with pytest.raises(SerializationError, match=r"more than 20000 items .*Limits\.items"):
                    await send([0] * 20_000)
                    assert not honest
                    await receive()
                await send(np.zeros(50_000))
                assert len(await receive()) == 50_000
            link.peer_limits = msgspec.structs.replace(link.peer_limits, items=2**60)


def nowait(connection: Connection) -> Callable[[Any], Awaitable[None]]:
    async def send(message: Any) -> None:
        await settle()  # until the credit for the last one has come
        connection.send_nowait(message)

    return send


async def test_a_servers_reader_builds_no_more_items_than_allowed(autojump_clock: MockClock) -> None:
    few = Limits(items=20_000)
    async with open_pair(server_limits=few) as (client, _, server):
        link = link_of(client)
        link.peer_limits = msgspec.structs.replace(link.peer_limits, items=2**60)
        messages = server.messages()
        await client.send([0] * 20_000)
        message = await anext(messages)
        with pytest.raises(SerializationError, match="more than 20000 items"):
            _ = message.value


# What cannot be understood


@pytest.mark.parametrize(
    ("number", "payload", "flags"),
    [
        (CborSerializer().content_id, b"\xff\xff", 0),
        (CborSerializer().content_id, b"", 0),
        (CborSerializer().content_id, b"not an envelope", int(Flag.RAW)),
        (0, b"", int(Flag.RAW)),
        (77, b"of no serializer that is known", 0),
    ],
)
async def test_a_bad_message_is_an_error_of_its_own(
    number: int, payload: bytes, flags: int, autojump_clock: MockClock
) -> None:
    async with open_to_raw() as (connection, peer):
        await peer.send(data(payload, number=number, flags=flags), data(b"good"))
        with pytest.raises(SerializationError):
            await connection.receive()
        assert await connection.receive() == b"good"
        await settle()
        with trio.move_on_after(0):
            await peer.events()
        await settle()
        with trio.move_on_after(0.01):
            await peer.events()
        told = [CONFIRMATION.unpack(f.payload)[0] for f in peer.control if f.type == FrameType.CREDIT]
        assert told[-1] == len(payload) + len(b"good") + 2 * MESSAGE_COST


async def test_what_cannot_be_sent_is_not() -> None:
    async with open_pair() as (client, there, _):
        for send in (client.send, client.send_nowait):
            with pytest.raises(SerializationError):
                await send(object())  # type: ignore[misc]
        await client.send(b"good")
        assert await there.receive() == b"good"


# What was sent arrives, though its sender leaves at once


@pytest.mark.parametrize("kind", [*SOCKETS, "memory://"])
async def test_leaving_loses_nothing_that_was_sent(kind: str, tmp_path: object) -> None:
    messages = [bytes([number]) * 900_000 for number in range(5)] + [b"small"]
    received = []
    async with open_pair(url_of(kind, tmp_path)) as (client, there, server), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            received.extend([await there.receive() for _ in messages])

        for message in messages:
            await client.send(message)
        await client.aclose()
    assert received == messages


async def test_a_server_that_ends_loses_nothing_that_was_sent() -> None:
    messages = [bytes([number]) * 700_000 for number in range(4)]
    received = []
    async with trio.open_nursery() as nursery:
        async with open_pair("tcp://127.0.0.1:0", reconnect=None) as (client, there, server):

            @nursery.start_soon
            async def receive() -> None:
                received.extend([await client.receive() for _ in messages])

            for message in messages:
                await there.send(message)
            assert await server.drain(0)
            await settle()
    assert received == messages
