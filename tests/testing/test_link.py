"""Every fault of a link, with its times and what each end sees."""

from __future__ import annotations

import hashlib
import itertools
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from heartline.errors import ConnectionFailed
from heartline.testing import Link, Node, World
from heartline.testing._flow import CAPACITY
from tests.few_examples import few_examples
from tests.opening import open_listeners, open_stream

from .helpers import across, exact, open_pair, read


async def silent(stream: trio.abc.ReceiveStream, seconds: float = 100) -> bool:
    """Whether nothing comes for so long."""
    with trio.move_on_after(seconds) as waiting:
        await stream.receive_some()
    return waiting.cancelled_caught


def test_a_partition_delays_and_loses_nothing() -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        begin = world.time()
        await ours.send_all(b"under way;")
        await trio.sleep(0.25)
        assert link.healthy
        link.partition()
        assert not link.healthy
        await ours.send_all(b"sent meanwhile")
        await theirs.send_all(b"and back")
        assert await silent(theirs)
        assert await silent(ours)
        link.heal()
        healed = world.time()
        assert healed == begin + 200.25
        assert await read(theirs, 10) == b"under way;"
        assert world.time() == healed + 0.25  # it had gone half of the way
        assert await read(theirs, 14) == b"sent meanwhile"
        assert await read(ours, 8) == b"and back"
        assert world.time() == healed + 0.5

    across(main)


@pytest.mark.parametrize("direction", [("world", "a"), ("a", "world")])
def test_a_partition_can_be_one_way(direction: tuple[str, str]) -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        link.partition(direction)
        for source, sink, way in ((ours, theirs, ("world", "a")), (theirs, ours, ("a", "world"))):
            await source.send_all(b"x")
            assert await silent(sink) == (way == direction)
        world.heal_all()
        await read(theirs if direction[1] == "a" else ours, 1)

    across(main)


def test_what_had_arrived_is_readable_in_a_partition() -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        await ours.send_all(b"there already")
        await trio.sleep(0.5)
        link.partition()
        assert await read(theirs, 13) == b"there already"
        await theirs.aclose()
        await ours.send_all(b"how should I know?")
        assert await silent(ours)
        link.heal()
        assert await ours.receive_some() == b""

    across(main)


def test_a_clog_ends_by_itself() -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        begin = world.time()
        await ours.send_all(b"x")
        link.clog(7)
        link.clog(3)  # the longer one counts
        await read(theirs, 1)
        assert world.time() == begin + 7.5
        await ours.send_all(b"x")
        link.clog(1000)
        link.heal()
        await read(theirs, 1)
        assert world.time() == begin + 8

    across(main)


def test_a_reset_breaks_both_ends_at_once() -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        begin = world.time()
        broken = []

        async def expect_broken(stream: trio.abc.Stream) -> None:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")
            broken.append(world.time())
            await stream.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_broken, ours)
            nursery.start_soon(expect_broken, theirs)
            await trio.sleep(2)
            link.reset()
        assert broken == [begin + 2] * 2
        assert link.connections == 0

    across(main)


def test_a_sender_that_waits_for_room_hears_of_a_reset() -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:

            async def fill() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await ours.send_all(bytes(CAPACITY + 1))

            nursery.start_soon(fill)
            await trio.sleep(1)
            link.reset()

    across(main)


def test_a_reset_leaves_a_prefix() -> None:
    kept = set()

    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        await ours.send_all(bytes(range(100)))
        link.reset()
        received = b""
        with pytest.raises(trio.BrokenResourceError):
            while True:
                received += await theirs.receive_some()
        assert bytes(range(100)).startswith(received)
        kept.add(len(received))

    for seed in range(30):
        across(main, seed=seed)
    assert len(kept) > 10


@pytest.mark.parametrize("believer", ["world", "a"])
def test_half_open(believer: str) -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        link.half_open(believer)
        alive, gone = (ours, theirs) if believer == "world" else (theirs, ours)
        with pytest.raises(trio.BrokenResourceError):
            await gone.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await gone.send_all(b"x")
        await gone.aclose()
        await alive.send_all(bytes(CAPACITY))  # vanishes
        assert await silent(alive)
        with trio.move_on_after(100) as waiting:
            await alive.send_all(b"x")
        assert waiting.cancelled_caught
        await alive.aclose()
        assert link.connections == 0

    across(main)


def test_what_is_under_way_to_a_believer_is_lost_but_for_a_prefix() -> None:
    kept = set()

    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        await theirs.send_all(bytes(range(100)))
        await ours.send_all(bytes(range(100)))
        link.half_open("world")
        received = bytearray()
        with trio.move_on_after(100):
            while True:
                received += await ours.receive_some()
        assert bytes(range(100)).startswith(received)
        kept.add(len(received))
        await ours.send_all(b"never to arrive")
        await trio.sleep(1)
        with pytest.raises(trio.BrokenResourceError):
            while True:
                assert b"never" not in await theirs.receive_some()

    for seed in range(30):
        across(main, seed=seed)
    assert len(kept) > 10


def test_nothing_is_left_of_a_connection() -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        await ours.aclose()
        assert link.connections == 1
        await theirs.aclose()
        assert link.connections == 0
        ours, theirs = await open_pair(world)
        world.node("a").crash(silent=True)
        await ours.aclose()
        assert link.connections == 0
        assert not any(wire.users for wire in link._route.wires.values())

    across(main)


def test_who_gives_up_connecting_is_heard() -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        (listener,) = await open_listeners("memory://here")
        exact(world.link("world", "world"))
        with trio.move_on_after(0.75):
            await open_stream("memory://here")
        assert await (await listener.accept()).receive_some() == b""

    across(main)


def test_who_believes_is_drawn() -> None:
    def believers(seed: int) -> str:
        world = World(seed)
        world.link("world", world.node("a")).half_open()
        return world.trace[-1].text

    assert {believers(seed) for seed in range(20)} == {
        "a - world: half open, a believes",
        "a - world: half open, world believes",
    }
    world = World(1)
    with pytest.raises(ValueError, match="believer must be one of"):
        world.link("world", world.node("a")).half_open("b")


def test_a_fault_that_is_refused_leaves_no_trace() -> None:
    world = World(1)
    link = world.link("world", world.node("a"))
    for fault in (link.partition, partial(link.clog, 1)):
        with pytest.raises(ValueError, match="direction must be"):
            fault(direction=("a", "b"))
    assert world.trace == []
    assert link.healthy


def test_a_connection_in_a_partition_fails_in_time() -> None:
    took = set()

    async def main(world: World) -> None:
        link = exact(world.link("world", world.node("a")))
        await open_pair(world)
        link.partition(world.rng.choice([None, ("world", "a"), ("a", "world")]))
        begin = world.time()
        with pytest.raises(ConnectionFailed, match="cannot connect to memory://a: no answer within"):
            await open_stream("memory://a")
        took.add(world.time() - begin)

    for seed in range(20):
        World(seed).run(main)
    assert took == {3.0, 30.0}


def test_a_connection_waits_for_a_short_partition_to_end() -> None:
    async def main(world: World) -> None:
        link = exact(world.link("world", world.node("a")))
        link.partition()
        begin = world.time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_pair, world)
            await trio.sleep(1)
            link.heal()
        assert world.time() == begin + 2

    World(1).run(main)


FAULTS = st.sampled_from(["partition", "one way", "heal", "clog", "reset", "half open", "restart", "crash"])


def bytes_of(number: int) -> bytes:
    """What connection ``number`` carries: enough to fill it, and like no other."""
    return hashlib.shake_128(str(number).encode()).digest(CAPACITY + 1000)


@pytest.mark.slow
@given(seed=st.integers(0, 1000), faults=st.lists(st.tuples(FAULTS, st.floats(0, 0.5)), max_size=10))
@few_examples
def test_faults_lose_only_ends_and_never_mix(seed: int, faults: list[tuple[str, float]]) -> None:
    """Whatever happens, a reader gets a prefix of what was sent to it; without an error it gets all."""
    whole = []

    async def serve(node: Node) -> None:
        (listener,) = await open_listeners("memory://server")
        await trio.serve_listeners(receive, [listener])

    async def receive(stream: trio.abc.Stream) -> None:
        received = bytearray()
        try:
            async for data in stream:
                received += data
        except trio.BrokenResourceError:
            ended = False
        else:
            ended = True
        if len(received) > 1:
            expected = bytes_of(received[0])
            assert expected.startswith(received[1:])
            if ended:
                assert len(received) == 1 + len(expected)
                whole.append(received[0])

    async def send(node: Node) -> None:
        for number in itertools.count():
            # Who believes in a half-open connection waits for ever, unless it looks at the time.
            with trio.move_on_after(20):
                try:
                    async with await open_stream("memory://server") as stream:
                        await stream.send_all(bytes([number % 256]) + bytes_of(number % 256))
                        await stream.send_eof()  # type: ignore[attr-defined]
                        await stream.receive_some()
                except (ConnectionFailed, trio.BrokenResourceError):
                    pass
            await trio.sleep(0.5)

    async def main(world: World) -> None:
        server, client = world.node("server"), world.node("client")
        server.start(serve)
        client.start(send)
        link = world.link(server, client)
        acts = {
            "partition": link.partition,
            "one way": lambda: link.partition(("client", "server")),
            "heal": link.heal,
            "clog": lambda: link.clog(1),
            "reset": link.reset,
            "half open": link.half_open,
            "restart": server.restart,
            "crash": server.crash,
        }
        for fault, pause in faults:
            await trio.sleep(pause)
            acts[fault]()
        before = len(whole)
        await world.heal_and_settle(lambda: len(whole) >= before + 2, within=600)

    World(seed).run(main)
