"""Nodes: programs that start, crash and start again, with clocks of their own."""

from __future__ import annotations

import pytest
import trio

import heartline
from heartline.errors import ConnectionFailed
from heartline.testing import Link, Node, World
from heartline.testing._clock import DRIFT, EPOCH, OFFSET
from tests.opening import open_listeners, open_stream

from .helpers import across, exact, nothing, open_pair, read, serve


def test_a_program_lives_and_dies_and_lives_again() -> None:
    lives: list[str] = []

    async def program(node: Node, word: str) -> None:
        lives.append(f"{word} begins")
        try:
            await trio.sleep(10)
            lives.append(f"{word} is done")
        finally:
            lives.append(f"{word} cleans up")

    async def main(world: World) -> None:
        node = world.node("a")
        assert world.node("a") is node
        with pytest.raises(ValueError, match="has no program to restart"):
            node.restart()
        node.crash()
        assert not node.alive
        assert not node.crashed
        node.start(program, "this")
        with pytest.raises(ValueError, match="has a program already"):
            node.start(program, "that")
        await trio.sleep(5)
        assert node.alive
        node.crash()
        assert node.crashed
        assert not node.alive
        await trio.sleep(1)
        node.restart()
        assert node.alive
        assert not node.crashed
        await trio.sleep(5)
        node.restart()
        await trio.sleep(11)
        assert not node.alive
        assert not node.crashed

    World(1).run(main)
    begin, clean = "this begins", "this cleans up"
    assert lives == [begin, clean, begin, begin, clean, "this is done", clean]


@pytest.mark.parametrize("silent", [True, False])
def test_nothing_said_after_the_crash_leaves_the_node(silent: bool) -> None:
    tried = []

    async def program(node: Node) -> None:
        (listener,) = await open_listeners("memory://a")
        stream = await listener.accept()
        await stream.send_all(b"hello")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for act in (
                    lambda: stream.send_all(b"goodbye"),
                    lambda: open_stream("memory://a"),
                    lambda: open_listeners("memory://elsewhere"),
                ):
                    with pytest.raises((trio.BrokenResourceError, ConnectionFailed)) as caught:
                        await act()
                    tried.append(type(caught.value))
                await stream.aclose()

    async def main(world: World) -> None:
        exact(world.link("world", world.node("a")))
        node = world.node("a")
        node.start(program)
        stream = await open_stream("memory://a")
        assert await read(stream, 5) == b"hello"
        node.crash(silent=silent)
        crashed = world.time()
        if silent:
            with trio.move_on_after(100) as waiting:
                await stream.receive_some()
            assert waiting.cancelled_caught
            await stream.send_all(b"anybody?")
            node.restart()
            crashed = world.time()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
        assert world.time() == crashed + 0.5  # it takes its time to get here
        await stream.aclose()
        await trio.sleep(1)

    World(1).run(main)
    assert tried[:3] == [trio.BrokenResourceError, ConnectionFailed, ConnectionFailed]


def test_the_news_of_a_crash_does_not_pass_a_partition() -> None:
    async def main(world: World, link: Link, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> None:
        link.partition()
        world.node("a").crash(silent=False)
        with trio.move_on_after(100) as waiting:
            await ours.receive_some()
        assert waiting.cancelled_caught
        link.heal()
        with pytest.raises(trio.BrokenResourceError):
            await ours.receive_some()

    across(main)


def test_who_calls_a_dead_node() -> None:
    async def main(world: World) -> None:
        exact(world.link("world", world.node("a")))
        await open_pair(world)
        node = world.node("a")
        node.crash(silent=False)
        begin = world.time()
        with pytest.raises(ConnectionFailed, match="nobody listens there"):
            await open_stream("memory://a")
        assert world.time() == begin + 1
        node.restart()
        await trio.sleep(0.1)
        node.crash(silent=True)
        begin = world.time()
        with pytest.raises(ConnectionFailed, match="no answer within"):
            await open_stream("memory://a")
        assert world.time() - begin == pytest.approx(3)
        with pytest.raises(ConnectionFailed, match="nobody listens there"):
            await open_stream("memory://unheard-of")

    World(1).run(main)


def test_a_call_is_put_through_when_the_node_is_back() -> None:
    async def main(world: World) -> None:
        exact(world.link("world", world.node("a")))
        await open_pair(world)
        world.node("a").crash(silent=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_stream, "memory://a")
            await trio.sleep(0.75)
            world.node("a").restart()
        assert world.time() > 2

    World(1).run(main)


def test_both_ways_to_crash_are_drawn() -> None:
    def fate(seed: int) -> str:
        async def main(world: World) -> None:
            world.node("a").start(nothing)
            world.node("a").crash()

        world = World(seed)
        world.run(main)
        return world.trace[1].text

    assert {fate(seed) for seed in range(20)} == {"crashes", "crashes silently"}


def test_a_dead_program_cannot_end_the_run_and_a_living_one_does() -> None:
    async def program(node: Node) -> None:
        try:
            await trio.sleep(1)
        finally:
            raise ZeroDivisionError("in cleaning up")

    async def crashed(world: World) -> None:
        world.node("a").start(program)
        await trio.sleep(0.5)
        world.node("a").crash()
        await trio.sleep(2)

    async def alive(world: World) -> None:
        world.node("a").start(program)
        await trio.sleep(2)

    World(1).run(crashed)
    with pytest.raises(ZeroDivisionError):
        World(1).run(alive)


def test_a_program_that_ends_leaves_nothing_behind() -> None:
    async def program(node: Node) -> None:
        (listener,) = await open_listeners("memory://a")
        await listener.accept()

    async def main(world: World) -> None:
        exact(world.link("world", world.node("a")))
        world.node("a").start(program)
        stream = await open_stream("memory://a")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(ConnectionFailed, match="nobody listens there"):
            await open_stream("memory://a")

    World(1).run(main)


def test_clocks_are_wrong_and_within_bounds() -> None:
    async def main(world: World) -> None:
        for number in range(50):
            node = world.node(f"n{number}")
            assert abs(node.clock.offset) <= OFFSET
            assert abs(node.clock.rate - 1) <= DRIFT
            assert node.time() == EPOCH + node.clock.offset
        rates = {node.clock.rate for node in world.nodes.values()}
        assert len(rates) == 50
        node = world.node("n0")
        before = node.time()
        begin = world.time()
        await node.sleep(10)
        assert world.time() - begin == pytest.approx(node.stretch(10))
        assert world.time() - begin != pytest.approx(10)
        assert node.time() - before == pytest.approx(10)

    World(1).run(main)


def test_chance_of_a_node_follows_from_its_name_alone() -> None:
    alone, together = World(1), World(1)
    together.node("other")
    assert alone.node("a").clock == together.node("a").clock
    assert alone.node("a").rng.random() == together.node("a").rng.random()
    assert alone.node("a").rng.random() != alone.node("b").rng.random()


@pytest.mark.parametrize("silent", [True, False])
def test_a_heartline_client_sees_a_loss_and_no_goodbye(silent: bool) -> None:
    async def main(world: World) -> None:
        server = world.node("server")
        server.start(serve)
        await trio.sleep(0.1)
        async with heartline.open_connection("memory://server") as connection:
            events = connection.events()
            server.crash(silent=silent)
            await trio.sleep(20)
            server.restart()
            async for event in events:
                if isinstance(event, heartline.Lost):
                    assert isinstance(event.reason, heartline.ConnectionLost)
                    break
            await connection.wait_open()

    World(1).run(main)


def test_the_dead_open_no_connection() -> None:
    async def program(node: Node) -> None:
        with trio.CancelScope(shield=True):
            await open_stream("memory://here")

    async def main(world: World) -> None:
        (listener,) = await open_listeners("memory://here")
        exact(world.link("world", world.node("a")))
        world.node("a").start(program)
        await trio.sleep(0.25)
        world.node("a").crash()
        with trio.move_on_after(100) as waiting:
            await listener.accept()
        assert waiting.cancelled_caught

    World(1).run(main)


def test_programs_that_start_together_find_each_other() -> None:
    async def listen(node: Node) -> None:
        (listener,) = await open_listeners("memory://a-name-of-its-own")

        async def greet(stream: trio.abc.Stream) -> None:
            await stream.send_all(b"hello")

        await trio.serve_listeners(greet, [listener])

    async def main(world: World) -> None:
        world.node("a").start(listen)
        assert await (await open_stream("memory://a-name-of-its-own")).receive_some(5)

    for seed in range(10):
        World(seed).run(main)


def test_a_program_can_pull_its_own_plug() -> None:
    lived = []

    async def program(node: Node) -> None:
        node.crash()
        lived.append("to the next checkpoint")
        await trio.lowlevel.checkpoint()
        lived.append("beyond")

    async def main(world: World) -> None:
        world.node("a").start(program)
        await trio.sleep(1)
        assert world.node("a").crashed

    World(1).run(main)
    assert lived == ["to the next checkpoint"]


def test_who_was_not_accepted_hears_nothing_of_a_silent_crash() -> None:
    async def program(node: Node) -> None:
        await open_listeners("memory://a")
        await trio.sleep_forever()

    async def main(world: World) -> None:
        exact(world.link("world", world.node("a")))
        world.node("a").start(program)
        stream = await open_stream("memory://a")
        world.node("a").crash(silent=True)
        with trio.move_on_after(100) as waiting:
            await stream.receive_some()
        assert waiting.cancelled_caught
        world.node("a").restart()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()

    World(1).run(main)
