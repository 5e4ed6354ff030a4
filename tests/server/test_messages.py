"""Messages to one and to all, messages and events of all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import (
    Broadcast,
    Closed,
    ConnectionClosed,
    Limits,
    LocalProtocolError,
    Lost,
    Message,
    Opened,
    Reconnected,
    SerializationError,
)
from heartline.connection import Messages
from heartline.link import Link
from heartline.server import _server
from heartline.wire import CborSerializer

from ..connection.helpers import QUIET, SOCKETS, RawPeer, counted_turns, cut, data, settle, url_of
from .helpers import open_clients


async def test_send_to_one(autojump_clock: MockClock) -> None:
    async with open_clients("a", "b") as (server, (a, b)):
        await server.send_to("a", {"for": "a"})
        await server.send_to("b", b"for b")
        assert await a.receive() == {"for": "a"}
        assert await b.receive() == b"for b"
        with pytest.raises(LocalProtocolError, match="'nobody'"):
            await server.send_to("nobody", b"x")


@pytest.mark.parametrize("size", [0, 100, 60_000, 70_000, 3_000_000])
async def test_broadcast_reaches_everybody_in_order(size: int, autojump_clock: MockClock) -> None:
    async with open_clients("a", "b", "c") as (server, clients):
        for number in range(3):
            message = bytes([number]) * size
            assert await server.broadcast(message) == Broadcast(3, ())
            for client in clients:
                assert await client.receive() == message
            await settle()  # their credit comes back


@pytest.mark.parametrize("kind", SOCKETS)
async def test_broadcast_on_sockets(kind: str, tmp_path: object) -> None:
    array = np.arange(50_000)
    async with (
        heartline.open_server(url_of(kind, tmp_path)) as server,
        heartline.open_connection(server.urls[0]) as one,
        heartline.open_connection(server.urls[0]) as two,
    ):
        await server.broadcast("small")
        await server.broadcast(array)
        for client in (one, two):
            assert await client.receive() == "small"
            np.testing.assert_array_equal(await client.receive(), array)


@pytest.mark.parametrize("size", [10, 200_000])
async def test_broadcast_encodes_once(
    size: int, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    encode = CborSerializer.encode

    def counting(self: CborSerializer, value: Any, *args: Any) -> bytes:
        nonlocal count
        count += 1
        return encode(self, value, *args)

    async with open_clients("a", "b", "c") as (server, clients):
        monkeypatch.setattr(CborSerializer, "encode", counting)
        await server.broadcast("x" * size)
        assert count == 1
        monkeypatch.undo()
        for client in clients:
            assert await client.receive() == "x" * size


async def test_broadcast_of_what_cannot_be_encoded(autojump_clock: MockClock) -> None:
    async with open_clients("a") as (server, (a,)):
        with pytest.raises(SerializationError):
            await server.broadcast(object())
        await server.broadcast("fine")
        assert await a.receive() == "fine"
    async with heartline.open_server("memory://") as server:
        assert await server.broadcast("to nobody") == Broadcast(0, ())


@pytest.mark.parametrize("size", [1000, 100_000])
async def test_a_slow_peer_is_passed_by_and_named(size: int, autojump_clock: MockClock) -> None:
    """It does not receive, so its credit runs out; the others get everything."""
    async with open_clients("quick", "slow", limits=Limits(window=500_000, channels=10)) as (
        server,
        (quick, slow),
    ):
        skipped = 0
        for number in range(1000):
            message = number.to_bytes(4, "big") + bytes(size)
            told = await server.broadcast(message)
            assert await quick.receive() == message
            assert told.sent + len(told.skipped) == 2
            if told.skipped:
                assert told == Broadcast(1, ("slow",))
                skipped += 1
            if skipped > 5:
                break
        taken = number + 1 - skipped
        assert 500_000 <= taken * (size + 36) < 500_000 + 2 * (size + 36)
        for expected in range(taken):
            assert (await slow.receive())[:4] == expected.to_bytes(4, "big")
        await settle()
        assert await server.broadcast(b"again") == Broadcast(2, ())
        assert await slow.receive() == b"again"


async def test_a_peer_that_does_not_read_is_passed_by(autojump_clock: MockClock) -> None:
    """Endless credit, but its link is full: memory is bounded by the write buffer."""
    async with open_clients("fine", server={"limits": Limits(write_buffer=100_000)}) as (server, (fine,)):
        await RawPeer.join(server.urls[0], identity="stuck", limits=Limits(window=1 << 30, memory=1 << 42))
        for _ in range(100):
            told = await server.broadcast(bytes(20_000))
            assert len(await fine.receive()) == 20_000
            await trio.lowlevel.checkpoint()
        assert told == Broadcast(1, ("stuck",))
        assert server.statistics().backlog <= 100_000 + 21_000


async def test_others_run_in_the_middle_of_a_broadcast(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And two of them at once come in the same order everywhere."""
    monkeypatch.setattr(_server, "TURN", 10)
    put_broadcast = Link.put_broadcast

    def counting(link: Link, frame: bytes) -> bool:
        turns.count()
        return put_broadcast(link, frame)

    async with open_clients(*map(str, range(100))) as (server, clients):
        monkeypatch.setattr(Link, "put_broadcast", counting)
        with counted_turns() as turns:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.broadcast, "one")
                nursery.start_soon(server.broadcast, "another")
        assert sum(turns.counts) == 200
        assert max(turns.counts) == 10
        told = {(await client.receive(), await client.receive()) for client in clients}
        assert told in [{("one", "another")}, {("another", "one")}]


async def test_a_peer_with_small_limits_spoils_it_for_nobody(autojump_clock: MockClock) -> None:
    async with open_clients("z") as (server, (z,)):
        small = Limits(frame_size=4096, message_size=4096)
        await RawPeer.join(server.urls[0], identity="small", limits=small)
        async with heartline.open_connection(server.urls[0], identity="a") as a:
            told = await server.broadcast(bytes(5000))
            assert told == Broadcast(2, ("small",))
            for client in (z, a):
                assert await client.receive() == bytes(5000)
            assert await server.broadcast(bytes(4000)) == Broadcast(3, ())


async def test_a_peer_that_takes_few_items_spoils_it_for_nobody(autojump_clock: MockClock) -> None:
    async with open_clients("z") as (server, (z,)):
        few = Limits(items=20_000)
        async with heartline.open_connection(server.urls[0], identity="few", limits=few) as small:
            for size in (20_000, 100_000):  # in one frame, and in several
                assert await server.broadcast([0] * size) == Broadcast(1, ("few",))
                assert await z.receive() == [0] * size
            for message in (bytes(100_000), np.zeros(100_000)):
                assert await server.broadcast(message) == Broadcast(2, ())
                assert len(await z.receive()) == len(await small.receive()) == 100_000
                await settle()


# Messages of all


async def next_of(messages: Messages, count: int) -> list[tuple[str, Any]]:
    """The next ones: from whom, and what."""
    told = [await anext(messages) for _ in range(count)]
    return [(message.connection.id, message.value) for message in told]


async def test_messages_of_all_connections(autojump_clock: MockClock) -> None:
    """Each with its connection, which can be answered; the iterator ends with the server."""
    async with open_clients("a", "b") as (server, clients):
        messages = server.messages()
        for client in clients:
            await client.send([client.id])
            message = await anext(messages)
            assert isinstance(message, Message)
            assert message.connection is server.connections[client.id]
            assert message.value == [client.id]
            await message.connection.send("answer")
            assert await client.receive() == "answer"
    assert [message async for message in messages] == []
    assert [message async for message in server.messages()] == []


async def test_messages_from_before_the_first_reader_are_not_lost(autojump_clock: MockClock) -> None:
    """They hold their senders' credit until they are read."""
    limits = Limits(window=100)
    async with open_clients("a", "b", limits=limits, server={"limits": limits}) as (server, (a, b)):
        for client in (a, b):
            await client.send(bytes(100))
        await settle()
        with pytest.raises(trio.WouldBlock):
            a.send_nowait(b"no room")
        messages = server.messages()
        assert await next_of(messages, 2) == [("a", bytes(100)), ("b", bytes(100))]
        await settle()
        a.send_nowait(b"room")
        assert await next_of(messages, 1) == [("a", b"room")]


async def test_connections_take_turns(autojump_clock: MockClock) -> None:
    """One that sends a lot is not before one that sends a little."""
    async with open_clients("a", "b", "c") as (server, (a, b, c)):
        for number in range(100):
            await a.send(number)
        for client in (b, c):
            await client.send("one")
            await client.send("two")
        await settle()
        told = await next_of(server.messages(), 104)
        assert told[:6] == [("a", 0), ("b", "one"), ("c", "one"), ("a", 1), ("b", "two"), ("c", "two")]
        assert told[6:] == [("a", number) for number in range(2, 100)]


async def test_each_message_goes_to_one_of_several_readers(autojump_clock: MockClock) -> None:
    """Whoever asks first gets it: those that wait, in the order in which they began to."""
    async with open_clients("a", "b") as (server, clients), trio.open_nursery() as nursery:
        got: list[tuple[int, Any]] = []

        async def read(reader: int) -> None:
            messages = server.messages()
            while True:
                got.append((reader, (await anext(messages)).value))

        for reader in range(3):
            nursery.start_soon(read, reader)
            await settle()
        for number in range(30):
            await clients[number % 2].send(number)
            await settle()
        assert got == [(number % 3, number) for number in range(30)]
        nursery.cancel_scope.cancel()


async def test_from_its_first_reader_on_a_connections_messages_are_its_own(autojump_clock: MockClock) -> None:
    """Also those that had come before; and also when that reader has given up."""
    async with open_clients("a", "b") as (server, (a, b)):
        messages, own = server.messages(), server.connections["a"]
        await a.send("for all")
        await a.send("for its own")
        await b.send("for all")
        await settle()
        assert await next_of(messages, 1) == [("a", "for all")]
        assert await own.receive() == "for its own"
        with trio.move_on_after(1):
            await own.receive()
        await a.send("when it is back")
        await settle()
        assert await next_of(messages, 1) == [("b", "for all")]
        with trio.move_on_after(1) as scope:
            await anext(messages)
        assert scope.cancelled_caught
        assert await own.receive() == "when it is back"


async def test_cancelling_loses_no_message(autojump_clock: MockClock) -> None:
    """Cancelled while it waits, or in the tick in which the message comes."""
    async with open_clients("a") as (server, (a,)):
        messages, got = server.messages(), []

        async def read() -> None:
            got.append((await anext(messages)).value)

        for number in range(50):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await settle()
                await a.send(number)
                for _ in range(number % 10):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await settle()
        await a.send("last")
        while "last" not in got:
            await read()
        assert got == [*range(50), "last"]


@pytest.mark.parametrize("read", [False, True])
async def test_what_a_connection_leaves_behind(read: bool, autojump_clock: MockClock) -> None:
    """It is there for the server's reader if there is one; otherwise nothing of it is kept."""
    async with open_clients("a", "b") as (server, (a, b)):
        messages = server.messages() if read else None
        await a.send("left behind")
        await a.aclose()
        await settle()
        assert set(server.connections) == {"b"}
        await b.send("of the living")
        await settle()
        told = await next_of(messages or server.messages(), 1 + read)
        assert told == [("a", "left behind")] * read + [("b", "of the living")]


async def test_what_all_connections_leave_behind_is_bounded(autojump_clock: MockClock) -> None:
    """Those that ended first lose it; reading makes room."""
    limits = Limits(lost_buffer=3000)
    names = [f"c{number}" for number in range(6)]
    async with open_clients(*names, server={"limits": limits}) as (server, clients):
        messages = server.messages()

        async def leave(*numbers: int) -> None:
            for number in numbers:
                await clients[number].send(bytes(800))
                await clients[number].aclose()
                await settle()

        await leave(0, 1, 2, 3)
        assert await next_of(messages, 2) == [("c1", bytes(800)), ("c2", bytes(800))]
        await leave(4, 5)
        assert await next_of(messages, 3) == [(f"c{number}", bytes(800)) for number in (3, 4, 5)]


async def test_a_message_that_cannot_be_decoded_ends_nothing(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        peer = await RawPeer.join(server.urls[0], identity="p")
        await peer.send(data(b"\xff", number=1), data(b"good"))
        messages = server.messages()
        bad = await anext(messages)
        with pytest.raises(SerializationError):
            _ = bad.value
        assert await next_of(messages, 1) == [("p", b"good")]


# Events


async def test_events_tell_of_every_connection(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        events = server.events()
        async with heartline.open_connection(server.urls[0], identity="a", heartbeat=QUIET) as a:
            opened = await anext(events)
            assert isinstance(opened, Opened)
            assert opened.connection is server.connections["a"]
            await a.send("a message is no event")
            cut(a)
            lost, again = await anext(events), await anext(events)
            assert isinstance(lost, Lost)
            assert isinstance(again, Reconnected)
            assert again.resumed
            await a.wait_open()
        # By a goodbye, and nobody waits for another link.
        closed = await anext(events)
        assert isinstance(closed, Closed)
        assert isinstance(closed.reason, ConnectionClosed)
        assert closed.connection is opened.connection
    assert [event async for event in events] == []
    assert [event async for event in server.events()] == []


async def test_dropped_events_are_counted(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", limits=Limits(events=4)) as server:
        events = server.events()
        for _ in range(5):
            async with heartline.open_connection(server.urls[0]):
                pass
            await settle()
        assert events.dropped == server.statistics().events_dropped == 10 - 4
        told = [type(await anext(events)) for _ in range(4)]
        assert told == [Opened, Closed, Opened, Closed]


# Statistics


async def test_statistics_are_snapshots(autojump_clock: MockClock) -> None:
    async with open_clients("a", "b") as (server, (a, b)):
        before = server.statistics()
        assert (before.connections, before.accepted, before.refused, before.handshaking) == (2, 2, 0, 0)
        assert before.backlog == 0
        await a.send(b"x")
        await a.open_channel("c")
        await settle()
        there = server.connections["a"].statistics()
        mine = a.statistics()
        assert (mine.frames_sent, mine.frames_received, mine.links, mine.channels) == (2, 0, 1, 1)
        assert (there.frames_sent, there.frames_received, there.links, there.channels) == (0, 2, 1, 1)
        await b.aclose()
        await settle()
        assert (server.statistics().connections, server.statistics().accepted) == (1, 2)
        assert before.connections == 2
        with pytest.raises(AttributeError):
            before.connections = 3  # type: ignore[misc]
        with pytest.raises(AttributeError):
            mine.links = 3  # type: ignore[misc]
        closed = b.statistics()
        assert closed.state is heartline.ConnectionState.CLOSED
        assert closed.silence == float("inf")
        with pytest.raises(TypeError):
            server.connections["x"] = a  # type: ignore[index]


async def test_the_backlog_is_what_waits(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        peer = await RawPeer.join(server.urls[0], identity="p", limits=Limits(window=1 << 30, memory=1 << 42))
        connection = server.connections["p"]
        for _ in range(8):
            await connection.send(bytes(50_000))
        await settle()
        # What the stream has not taken counts, also while the writer has it in its hands.
        assert connection.statistics().backlog == server.statistics().backlog
        assert 8 * 50_012 - 64 * 1024 <= server.statistics().backlog <= 8 * 50_012
        assert sum(len(event.payload) for event in await received(peer, 8)) == 400_000
        await settle()
        assert server.statistics().backlog == 0


async def received(peer: RawPeer, count: int) -> list[Any]:
    events: list[Any] = []
    while len(events) < count:
        events += await peer.events()
    return events
