"""``Limits.memory``: what a peer makes this side hold is counted, bounded, and no reason to stand still."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline import Backoff, Connection, Limits, Server
from heartline.errors import CallTimeout, Outcome, Overloaded
from heartline.rpc import Calls
from heartline.wire import Flag, Frame, FrameType

from ..engine import core_of, link_of
from ..rpc.helpers import RawPeer, call_frame, raw_client
from .helpers import QUIET, SOCKETS, cut, data, run, settle

KIB = 1024
MIB = 1024 * KIB

LIMITS = Limits(
    frame_size=64 * KIB,
    message_size=MIB,
    memory=5 * MIB,
    window=32 * KIB,
    channels=8,
    calls=32,
    replay_buffer=200 * KIB,
    write_buffer=300 * KIB,
)
SHARE = LIMITS.share
READ = 512 * KIB
"""Bytes that a read, or a write, may hold beside the rest."""


@heartline.service
class Store:
    def __init__(self, other: Any = None) -> None:
        self.begun = 0
        self.open = trio.Event()
        self.other = other

    async def keep(self, value: bytes) -> int:
        """Holds its argument until it is told to go on."""
        self.begun += 1
        await self.open.wait()
        return len(value)

    @heartline.method(timeout=1)
    async def keep_a_second(self, value: bytes) -> None:
        await trio.sleep_forever()

    def give(self, size: int) -> bytes:
        self.begun += 1
        return bytes(size)

    async def give_later(self, size: int) -> bytes:
        self.begun += 1
        return bytes(size)

    async def bounce(self, value: bytes, depth: int) -> int:
        """Calls back, which is called back."""
        connection = heartline.current_connection()
        if depth:
            deeper: int = await connection.service("Store").bounce(value, depth - 1)
            return deeper + 1
        return 0


def held(connection: Connection) -> int:
    return connection.statistics().held


@asynccontextmanager
async def attacked(url: str = "memory://") -> AsyncIterator[tuple[Server, Store, RawPeer, Connection]]:
    """A server of little memory, and a peer by hand that keeps to nothing."""
    store = Store()
    async with (
        heartline.open_server(url, services=[store], limits=LIMITS, heartbeat=QUIET) as server,
        raw_client(server.urls[0]) as peer,
    ):
        (connection,) = server.connections.values()
        yield server, store, peer, connection


async def send(peer: RawPeer, frame: Frame, size: int = 64 * KIB) -> None:
    """A message, in fragments."""
    parts = [frame.payload[start : start + size] for start in range(0, len(frame.payload), size)]
    for place, part in enumerate(parts):
        more = Flag.MORE if place + 1 < len(parts) else 0
        await peer.send(Frame(frame.type, frame.flags | more, frame.channel, frame.id, part))


class TestArguments:
    async def test_what_is_too_much_is_refused(self, autojump_clock: MockClock) -> None:
        async with attacked() as (_, store, peer, connection):
            for number in range(10):
                await send(peer, call_frame(number, "Store.keep", bytes(300 * KIB)))
            await settle()
            assert store.begun == 3
            assert core_of(connection).part(Calls).held <= SHARE
            assert 900 * KIB < held(connection) <= SHARE + KIB
            for _ in range(7):
                assert (await peer.receive_fault())["kind"] == "overloaded"
            store.open.set()
            await settle()
            assert core_of(connection).part(Calls).held == 0
            await send(peer, call_frame(11, "Store.keep", bytes(MIB - KIB)))
            assert {(await peer.receive()).id for _ in range(4)} == {0, 1, 2, 11}

    async def test_cancelled_calls_count_until_they_end(self, autojump_clock: MockClock) -> None:
        async with attacked() as (_, store, peer, connection):
            for number in range(3):
                await send(peer, call_frame(number, "Store.keep", bytes(300 * KIB)))
                await peer.send(Frame(FrameType.CANCEL, id=number))
            await settle()
            assert store.begun == 3
            assert core_of(connection).part(Calls).held == 0

    async def test_small_ones_do_not_count(self, autojump_clock: MockClock) -> None:
        async with attacked() as (_, _store, peer, connection):
            await peer.send(*(call_frame(number, "Store.keep", bytes(4000)) for number in range(32)))
            await settle()
            assert core_of(connection).part(Calls).held == 0
            assert len(core_of(connection).part(Calls)._running) == 32

    async def test_an_honest_caller_waits_in_order(self, autojump_clock: MockClock) -> None:
        async with open_both() as (client, _, here, there):
            done: list[int] = []

            async def call(number: int, size: int) -> None:
                await client.service("Store").keep(bytes(size))
                done.append(number)

            async with trio.open_nursery() as nursery:
                for number, size in enumerate([200, 200, 900, 100, 1]):
                    nursery.start_soon(call, number, size * KIB)
                    await settle()
                assert there.begun == 3, (
                    "a small one is not held up, and a short one does not pass a long one"
                )
                there.open.set()
            assert sorted(done) == [0, 1, 2, 3, 4]
            assert done.index(2) < done.index(3)
            del here

    async def test_calls_that_wait_are_not_sent(self, autojump_clock: MockClock) -> None:
        async with open_both() as (client, server, _, there):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.service("Store").keep, bytes(900 * KIB))
                await settle()
                with trio.move_on_after(1) as scope:
                    await client.service("Store").keep(bytes(900 * KIB))
                assert scope.cancelled_caught
                with pytest.raises(CallTimeout) as caught:
                    await client.service(Store).keep_a_second(bytes(900 * KIB))
                assert caught.value.outcome is Outcome.NOT_SENT
                await settle()
                assert there.begun == 1
                there.open.set()
            assert core_of(client).part(Calls)._sent == 0
            del server


class TestAnswers:
    @pytest.mark.parametrize("name", ["give", "give_later"])
    @pytest.mark.parametrize("url", ["memory://", SOCKETS[0]])
    async def test_of_a_peer_that_does_not_read(self, name: str, url: str) -> None:
        size = 300 * KIB
        async with attacked(url) as (server, store, peer, connection):
            tracemalloc.start()
            try:
                for number in range(200):
                    await peer.send(call_frame(number, f"Store.{name}", size))
                for _ in range(50):
                    await trio.lowlevel.checkpoint()
                await settle()
                used, most = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert store.begun <= SHARE // size + 3
            assert held(connection) <= SHARE + 2 * size + READ
            assert server.statistics().held == held(connection)
            assert used < SHARE + 3 * size + 2 * READ
            assert most < SHARE + 3 * size + 4 * READ


class TestMessages:
    async def test_of_channels_that_nobody_reads(self, autojump_clock: MockClock) -> None:
        """An honest sender waits, and everything arrives when somebody reads."""
        async with open_both() as (client, there, _, _store), trio.open_nursery() as nursery:

            async def fill(number: int) -> None:
                channel = await client.open_channel(str(number))
                for _ in range(3):
                    await channel.send(bytes(500 * KIB))
                await channel.send("end")

            for number in range(8):
                nursery.start_soon(fill, number)
            await trio.sleep(10)
            assert SHARE // 2 < held(there) <= SHARE + 9 * LIMITS.window + READ
            assert held(client) < 9 * MIB
            for _ in range(8):
                nursery.start_soon(_read, await there.accept_channel())

    async def test_of_a_peer_that_takes_no_notice(self, autojump_clock: MockClock) -> None:
        async with attacked() as (server, _, peer, connection):
            for number in range(8):
                await peer.send(Frame(FrameType.OPEN, channel=2 * number + 1, payload=b"x"))
            most = 0
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                for number in range(1000):
                    await send(peer, data(bytes(300 * KIB), channel=2 * (number % 8) + 1))
                    most = max(most, held(connection))
                    await settle()
            assert SHARE // 2 < most <= SHARE + 9 * LIMITS.window + READ
            assert not server.connections

    async def test_of_halves_without_end(self, autojump_clock: MockClock) -> None:
        async with attacked() as (server, _, peer, connection):
            most = 0
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
                for number in range(10_000):
                    await peer.send(Frame(FrameType.CALL, Flag.MORE, 0, number, bytes(10_000)))
                    most = max(most, held(connection))
                    await settle()
            assert SHARE // 2 < most <= SHARE + READ
            assert not server.connections


async def _read(channel: heartline.Channel) -> None:
    while await channel.receive() != "end":
        pass
    await channel.aclose()


@asynccontextmanager
async def open_both(
    limits: Limits = LIMITS,
) -> AsyncIterator[tuple[Connection, Connection, Store, Store]]:
    """Two that call each other; a loss is followed by another link at once."""
    here, there = Store(), Store()
    settings: dict[str, Any] = {"limits": limits, "heartbeat": QUIET}
    async with (
        heartline.open_server("memory://", services=[there], **settings) as server,
        heartline.open_connection(
            server.urls[0], services=[here], reconnect=Backoff(initial=0.01, maximum=0.01), **settings
        ) as client,
    ):
        yield client, server.connections[client.id], here, there


jobs = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from(["keep", "give", "give_later", "bounce", "send", "stream"]),
        st.integers(0, 1000),
    ),
    max_size=30,
)


@given(jobs=jobs, cuts=st.lists(st.floats(0.001, 0.5), max_size=3))
def test_two_at_their_limits_never_stand_still(jobs: list[tuple[bool, str, int]], cuts: list[float]) -> None:
    """Whatever they ask of each other at a time, and however often the link is lost meanwhile."""

    async def main() -> None:
        async with open_both() as (client, there, *stores):
            with trio.fail_after(100):
                async with trio.open_nursery() as nursery:
                    for side in (client, there):
                        nursery.start_soon(_serve_messages, side, nursery.cancel_scope)
                    async with trio.open_nursery() as working:
                        for of_server, name, size in jobs:
                            working.start_soon(_work, there if of_server else client, name, size * KIB)
                        for seconds in cuts:
                            await trio.sleep(seconds)
                            for side in (client, there):
                                _check_shares(side)
                            cut(client)
                        for store in stores:
                            store.open.set()
                    await trio.sleep(5)  # for what is under way
                    nursery.cancel_scope.cancel()
            assert core_of(client).part(Calls)._sent == core_of(there).part(Calls)._sent == 0
            assert core_of(client).part(Calls).held == core_of(there).part(Calls).held == 0
            assert link_of(client).session._assembly.size == link_of(there).session._assembly.size == 0

    run(main)


def _check_shares(side: Connection) -> None:
    session, calls = link_of(side).session, core_of(side).part(Calls)
    assert session._assembly.size <= SHARE
    assert calls.held <= SHARE
    assert session._lanes.unread <= SHARE + (1 + 2 * LIMITS.channels) * LIMITS.window
    assert session.outbox.asked_for <= SHARE + LIMITS.message_size
    assert session.replay.size <= LIMITS.replay_buffer + LIMITS.write_buffer + READ


async def _work(side: Connection, name: str, size: int) -> None:
    store = side.service("Store")
    try:
        if name == "keep":
            assert await store.keep(bytes(size)) == size
        elif name == "bounce":
            assert await store.bounce(bytes(size), 4) == 4
        elif name == "send":
            await side.send(bytes(size))
        elif name == "stream":
            async with await side.open_channel("x") as channel:
                for _ in range(3):
                    await channel.send(bytes(size // 3))
        else:
            assert len(await getattr(store, name)(size)) == size
    except Overloaded:
        pass  # calls in calls do not wait, and may take the place of those that do
    except heartline.RemoteError:
        if name != "bounce":
            raise
    except heartline.LocalProtocolError:
        if name != "stream":  # as many channels are open as there may be
            raise


async def _serve_messages(side: Connection, _scope: trio.CancelScope) -> None:
    async def accept() -> None:
        while True:
            nursery.start_soon(_drain, await side.accept_channel())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        while True:
            await side.receive()


async def _drain(channel: heartline.Channel) -> None:
    async with channel:
        async for _ in channel:
            pass
