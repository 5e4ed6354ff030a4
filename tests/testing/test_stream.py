"""Streams across a healthy link: Trio's rules, exact times, and bounds."""

from __future__ import annotations

import math

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from heartline import transports
from heartline.testing import Link, Node, World, check_listener, check_stream
from heartline.testing._flow import ANNOUNCED, CAPACITY, PIECE_SIZE
from heartline.transports import Listener, TransportContext
from tests.few_examples import few_examples
from tests.opening import open_listeners, open_stream

from .helpers import Pair, across, exact, open_pair, read


@pytest.mark.slow
def test_it_keeps_the_rules_of_streams() -> None:
    async def main(world: World) -> None:
        world.link("world", world.node("a")).configure(latency=0.001, jitter=0.0005, bandwidth=1e8)
        put, accepted = trio.open_memory_channel[trio.abc.Stream](1)

        async def serve(_node: Node) -> None:
            (listener,) = await open_listeners("memory://a")
            while True:
                await put.send(await listener.accept())

        async def make_pair(context: TransportContext) -> Pair:
            return await transports.open_stream("memory://a", context), await accepted.receive()

        async def make_clogged(context: TransportContext) -> Pair:
            pair = await make_pair(context)
            for stream in pair:
                with trio.move_on_after(1):
                    while True:
                        await stream.send_all(bytes(10_000))
            return pair

        world.node("a").start(serve)
        await check_stream(make_pair, make_clogged)

    World(1).run(main)


def test_it_keeps_the_rules_of_listeners() -> None:
    async def listen(context: TransportContext) -> Listener:
        return (await transports.open_listeners("memory://", context))[0]

    async def main(world: World) -> None:
        await check_listener(listen, transports.open_stream)

    World(1).run(main)


def test_latency_is_exact() -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        assert world.time() == 1.0  # there and back, to connect
        await ours.send_all(b"ping")
        assert world.time() == 1.0
        assert await read(theirs, 4) == b"ping"
        assert world.time() == 1.5
        link.configure(latency=3, direction=("a", "world"))
        await theirs.send_all(b"pong")
        assert await read(ours, 4) == b"pong"
        assert world.time() == 4.5
        await ours.aclose()
        assert await theirs.receive_some() == b""
        assert world.time() == 5.0

    across(main)


def test_bandwidth_is_exact_and_shared() -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        exact(world.link("world", world.node("b")))
        more, their_more = await open_pair(world, "b")  # another link: not in the way
        link.configure(bandwidth=1024)
        begin = world.time()
        await ours.send_all(bytes(4096))
        await more.send_all(bytes(4096))
        await read(their_more, 4096)
        await read(theirs, 4096)
        assert world.time() == begin + 4 + 0.5

    async def shared(world: World) -> None:
        (listener,) = await open_listeners("memory://here")
        ends = [(await open_stream("memory://here"), await listener.accept()) for _ in range(2)]
        world.link("world", "world").configure(bandwidth=1024)
        begin = world.time()
        for there, _ in ends:
            await there.send_all(bytes(2048))
        for _, here in ends:
            await read(here, 2048)
        assert world.time() == begin + 4

    across(main)
    World(0).run(shared)


@pytest.mark.slow
@given(
    seed=st.integers(0, 99),
    sizes=st.lists(st.integers(0, 40_000), max_size=8),
    limits=st.lists(st.integers(1, 3000) | st.none(), min_size=1, max_size=5),
)
@few_examples
def test_all_arrives_in_order_within_the_times_of_the_link(
    seed: int, sizes: list[int], limits: list[int | None]
) -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        link.configure(latency=0.25, jitter=0.5)
        data = [world.rng.randbytes(size) for size in sizes]
        sent: list[float] = []
        received = bytearray()

        async def send() -> None:
            for part in data:
                await ours.send_all(part)
                sent.extend([world.time()] * len(part))
            await ours.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for number in range(1_000_000):
                limit = limits[number % len(limits)]
                piece = await theirs.receive_some(limit)
                if not piece:
                    break
                assert len(piece) <= min(limit or PIECE_SIZE, PIECE_SIZE)
                received += piece
                if len(sent) >= len(received):
                    assert world.time() <= sent[len(received) - 1] + 0.75
                assert world.time() >= 1.25
        assert received == b"".join(data)

    across(main, seed=seed)


def test_a_message_is_cut_to_pieces() -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        await ours.send_all(bytes(CAPACITY))
        await trio.sleep(1)
        pieces: list[int] = []
        while sum(pieces) < CAPACITY:
            pieces.append(len(await theirs.receive_some()))
        assert len(pieces) > 4
        assert min(pieces) <= 16

    across(main, seed=3)


def test_what_is_under_way_or_unread_is_bounded() -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        await ours.send_all(bytes(CAPACITY))
        with trio.move_on_after(100) as waiting:
            await ours.send_all(b"x")
        assert waiting.cancelled_caught
        with trio.move_on_after(100) as waiting:
            await ours.wait_send_all_might_not_block()
        assert waiting.cancelled_caught
        await read(theirs, ANNOUNCED)
        await ours.send_all(bytes(ANNOUNCED))
        with trio.move_on_after(100) as waiting:
            await ours.send_all(b"x")
        assert waiting.cancelled_caught
        await read(theirs, CAPACITY)
        await ours.wait_send_all_might_not_block()

    across(main)


def test_closing_is_heard_when_it_has_travelled() -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        begin = world.time()
        await theirs.aclose()
        await ours.send_all(b"too early to know")
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await ours.send_all(bytes(1000))
        assert world.time() == begin + 0.5
        assert await ours.receive_some() == b""
        assert link.connections == 1
        await ours.aclose()
        await ours.aclose()
        assert link.connections == 0

    across(main)


def test_parameters_are_drawn_from_the_seed() -> None:
    async def travel(world: World) -> float:
        await open_pair(world)
        return world.time()

    times = [World(seed).run(travel) for seed in range(20)]
    assert times == [World(seed).run(travel) for seed in range(20)]
    assert len(set(times)) == 20
    assert min(times) > 0.001
    assert max(times) < 0.31


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latency": -1}, "latency must be seconds of at least 0, not -1"),
        ({"jitter": math.inf}, "jitter must be"),
        ({"bandwidth": 0}, "bandwidth must be bytes per second above 0"),
        ({"direction": ("a", "b")}, "direction must be .* not"),
    ],
)
def test_bad_parameters_are_named(settings: dict[str, object], message: str) -> None:
    world = World(1)
    with pytest.raises(ValueError, match=message):
        world.link(world.node("a"), "world").configure(**settings)  # type: ignore[arg-type]
