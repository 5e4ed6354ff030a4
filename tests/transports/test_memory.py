"""The memory network: bounded, and gone with its run."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline.errors import ConfigurationError, ConnectionFailed
from heartline.testing import MemoryNetwork, memory_pair
from heartline.transports import TransportOptions
from heartline.transports.memory import BUFFER_SIZE
from tests.opening import open_listeners, open_stream

BACKLOG = 5


@given(
    pieces=st.lists(st.binary(max_size=50)),
    buffer_size=st.integers(1, 40),
    sizes=st.lists(st.integers(1, 60) | st.none(), min_size=1),
)
def test_bytes_arrive_in_order_within_the_bound(
    pieces: list[bytes], buffer_size: int, sizes: list[int | None]
) -> None:
    async def main() -> None:
        here, there = memory_pair(buffer_size=buffer_size)

        async def send() -> None:
            for piece in pieces:
                await here.send_all(piece)
            await here.send_eof()

        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for number in range(10_000):
                size = sizes[number % len(sizes)]
                chunk = await there.receive_some(size)
                assert len(chunk) <= min(size or buffer_size, buffer_size)
                received += chunk
                if not chunk:
                    break
        assert received == b"".join(pieces)

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_the_default_bound_holds() -> None:
    here, there = memory_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send_all, bytes(BUFFER_SIZE + 1))
        await trio.testing.wait_all_tasks_blocked()
        assert len(await there.receive_some()) == BUFFER_SIZE
        assert len(await there.receive_some()) == 1


def test_a_pair_needs_a_buffer() -> None:
    with pytest.raises(ConfigurationError, match="buffer_size: 0"):
        memory_pair(buffer_size=0)


async def test_a_cancelled_send_may_leave_a_part_but_never_mixes() -> None:
    here, there = memory_pair(buffer_size=4)
    with trio.move_on_after(0):
        await here.send_all(b"abcdefgh")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send_all, b"XY")
        received = bytearray()
        while not received.endswith(b"XY"):
            received += await there.receive_some()
    assert b"abcdefgh".startswith(received[:-2])


async def test_after_the_end_of_sending() -> None:
    here, there = memory_pair()
    await here.send_eof()
    await here.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        await here.send_all(b"x")
    await there.send_all(b"still open this way")
    assert await here.receive_some() == b"still open this way"
    await here.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await here.send_eof()


async def test_fresh_names_avoid_taken_ones() -> None:
    network = MemoryNetwork()
    taken = network.listen("auto-2")
    assert [network.listen().url for _ in range(2)] == ["memory://auto-1", "memory://auto-3"]
    await taken.aclose()


async def test_networks_are_apart() -> None:
    first, second = MemoryNetwork(), MemoryNetwork()
    async with first.listen("a"), second.listen("a"):
        with pytest.raises(ConnectionFailed, match="cannot listen on memory://a: the name is in use"):
            first.listen("a")
    with pytest.raises(ConnectionFailed, match="cannot connect to memory://a: nobody listens there"):
        await first.connect("a")


def test_runs_are_apart() -> None:
    async def main() -> None:
        with pytest.raises(ConnectionFailed):
            await open_stream("memory://left-over")
        await open_listeners("memory://left-over")  # left behind on purpose

    trio.run(main)
    trio.run(main)


async def test_the_network_sets_the_buffer() -> None:
    network = MemoryNetwork(buffer_size=3)
    async with network.listen("a") as listener:
        here, there = await network.connect("a"), await listener.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.send_all, b"1234")
            await trio.testing.wait_all_tasks_blocked()
            assert await there.receive_some() == b"123"
            assert await there.receive_some() == b"4"


async def test_the_backlog_is_bounded() -> None:
    (listener,) = await open_listeners("memory://busy", options=TransportOptions(backlog=BACKLOG))
    connected = []

    async def connect() -> None:
        connected.append(await open_stream("memory://busy"))

    async with trio.open_nursery() as nursery:
        for _ in range(BACKLOG + 1):
            nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        assert len(connected) == BACKLOG
        await listener.accept()
    assert len(connected) == BACKLOG + 1
    await listener.aclose()


async def test_closing_hangs_up_on_those_not_accepted() -> None:
    (listener,) = await open_listeners("memory://closing", options=TransportOptions(backlog=BACKLOG))
    waiting = [await open_stream("memory://closing") for _ in range(BACKLOG)]
    async with trio.open_nursery() as nursery:

        async def late() -> None:
            assert await (await open_stream("memory://closing")).receive_some() == b""

        nursery.start_soon(late)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
    for stream in waiting:
        assert await stream.receive_some() == b""
