"""Runs: what they return, what they tell when they fail, and whether everything settles."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import trio

import heartline
import heartline.testing._story
from heartline.testing import Node, NotConverged, World
from heartline.testing._story import LAST
from heartline.testing._trace import TRACE_SIZE, Trace
from heartline.transports import TransportOptions
from tests.opening import open_listeners, open_stream

from .helpers import Adder, count, exact, nothing, serve


def test_calls_across_a_world() -> None:
    async def main(world: World) -> list[int]:
        world.node("server").start(serve)
        async with heartline.open_connection("memory://server") as connection:
            return [await connection.service(Adder).add(number, 1) for number in range(3)]

    world = World(1)
    assert world.time() == 0
    assert world.run(main) == [1, 2, 3]
    took = world.time()
    assert 0.03 < took < 3
    world.log("afterwards")
    assert world.trace[-1].time == took
    texts = [entry.text for entry in world.trace]
    assert texts[:2] == ["starts", "listens on memory://server"]
    assert "connects to memory://server" in texts
    assert {entry.node for entry in world.trace} == {"server", "world"}


def test_a_world_runs_once() -> None:
    world = World(1)
    with pytest.raises(ValueError, match="nodes start within a run"):
        world.node("a").start(serve)
    assert world.run(nothing) is None
    with pytest.raises(ValueError, match=r"World\(1\) has run already"):
        world.run(nothing)


def test_wrong_names() -> None:
    world = World(1)
    with pytest.raises(ValueError, match="no node is called 'a'"):
        world.link("a", "world")
    with pytest.raises(ValueError, match="'world' is what is not on any node"):
        world.node("world")
    a, b = world.node("a"), world.node("b")
    assert world.link(a, b) is world.link("b", "a")
    assert world.links == (world.link(a, b),)


def test_the_trace() -> None:
    async def main(world: World) -> None:
        async def program(node: object) -> None:
            world.log("did", 1, "thing")

        await trio.sleep(1.5)
        world.node("a").start(program)
        await trio.sleep(1)
        world.log("and so did I")

    world = World(1)
    world.run(main)
    assert [str(entry).strip() for entry in world.trace] == [
        "1.500000  a: starts",
        "1.500000  a: did 1 thing",
        "1.500000  a: ends",
        "2.500000  world: and so did I",
    ]


@pytest.mark.slow
def test_the_trace_is_bounded_and_its_digest_is_not() -> None:
    first, second = Trace(), Trace()
    for trace in (first, second):
        for number in range(TRACE_SIZE + 1):
            trace.add(number, "a", "x" if trace is first or number else "y")
    assert list(first.entries) == list(second.entries)
    assert len(first.entries) == TRACE_SIZE
    assert first.digest() != second.digest()


def test_the_digest_covers_the_bytes() -> None:
    def digest(word: bytes) -> str:
        async def main(world: World) -> None:
            (listener,) = await open_listeners("memory://x")
            await (await open_stream("memory://x")).send_all(word)

        world = World(1)
        world.run(main)
        return world.digest()

    assert digest(b"a") == digest(b"a") != digest(b"b")


async def fail(world: World) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 100)
        world.log("about to fail")
        raise ZeroDivisionError


def test_a_failure_tells_how_to_see_it_again() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        World(77).run(fail)
    (note,) = caught.value.__notes__
    root = Path(__file__).parents[2]
    known = f"heartline {version('heartline')}"
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
        known = f"commit {subprocess.run(command, capture_output=True, text=True).stdout.strip()}"
    assert note.startswith(f"seed 77, {known}")
    assert "World(77) with the same programs fails in the same way again" in note
    assert note.endswith("what happened:\n     0.000  world  about to fail")


def test_a_failure_tells_what_happened_last() -> None:
    async def main(world: World) -> None:
        for number in range(LAST + 5):
            world.log("step", number)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        World(1).run(main)
    first, *last = caught.value.__notes__[0].partition("what happened:\n")[2].splitlines()
    assert first.split() == ["…", "5", "lines"]
    assert [line.split()[-1] for line in last] == [str(number) for number in range(5, LAST + 5)]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_does_not_follow_from_the_seed_has_no_note(kind: type[BaseException]) -> None:
    async def program(node: Node) -> None:
        raise kind

    async def main(world: World) -> None:
        world.node("a").start(program)
        await trio.sleep_forever()

    with pytest.raises(kind) as caught:
        World(1).run(main)
    assert not hasattr(caught.value, "__notes__")


def test_without_a_checkout_the_version_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(heartline.testing._story, "__file__", str(tmp_path / "a" / "b" / "c" / "d.py"))
    with pytest.raises(ZeroDivisionError) as caught:
        World(77).run(fail)
    assert caught.value.__notes__[0].startswith(f"seed 77, heartline {version('heartline')}:")


def test_without_git_the_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ZeroDivisionError) as caught:
        World(77).run(fail)
    assert caught.value.__notes__[0].startswith(f"seed 77, heartline {version('heartline')}:")


def test_several_errors_stay_a_group() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def main(world: World) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(fail)

    with pytest.raises(ExceptionGroup) as caught:
        World(1).run(main)
    assert len(caught.value.exceptions) == 2


def test_a_hang_ends_at_the_limit() -> None:
    async def main(world: World) -> None:
        world.node("server").start(serve)
        await trio.sleep_forever()

    with pytest.raises(NotConverged, match="had not ended after 3600 s"):
        World(1).run(main)
    with pytest.raises(NotConverged, match="had not ended after 5 s"):
        World(1).run(main, limit=5)


def test_everything_settles() -> None:
    async def main(world: World) -> None:
        server, client = world.node("server"), world.node("client")
        server.start(serve)
        client.start(count, world, 10)
        await trio.sleep(1)
        world.link(server, client).partition()
        server.crash()
        await world.heal_and_settle(lambda: not client.alive, within=60)
        assert world.time() < 30
        assert server.alive
        assert world.link(server, client).healthy

    World(1).run(main)


def test_what_does_not_settle_is_told() -> None:
    def with_assertion() -> bool:
        assert 1 + 1 == 3, "arithmetic has not settled"
        return True

    async def main(world: World) -> None:
        begin = world.time()
        with pytest.raises(NotConverged, match="not within 7 s after the last fault: the condition was 0"):
            await world.heal_and_settle(lambda: 0, within=7)
        assert world.time() == pytest.approx(begin + 7)
        with pytest.raises(NotConverged, match="arithmetic has not settled"):
            await world.heal_and_settle(with_assertion, within=7)
        begin = world.time()
        await world.heal_and_settle(lambda: world.time() >= begin + 7, within=7)
        await world.heal_and_settle(lambda: True, within=0)
        assert isinstance(NotConverged(), AssertionError)

    World(1).run(main)


def test_names_of_listeners() -> None:
    async def main(world: World) -> None:
        exact(world.link("world", world.node("a")))
        (first,), (second,) = await open_listeners("memory://"), await open_listeners("memory://")
        assert first.url != second.url
        with pytest.raises(heartline.ConnectionFailed, match="the name is in use"):
            await open_listeners(first.url)
        await first.aclose()
        await open_listeners(first.url)

    World(1).run(main)


def test_the_backlog_is_bounded() -> None:
    async def main(world: World) -> None:
        (listener,) = await open_listeners("memory://x", options=TransportOptions(backlog=5))
        waiting = [await open_stream("memory://x") for _ in range(5)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_stream, "memory://x")
            await trio.sleep(1.5)
            assert len(nursery.child_tasks) == 1
            await listener.accept()
        assert world.time() == 2
        await listener.aclose()
        assert await waiting[-1].receive_some() == b""

    World(1).run(main)
