"""Functions in threads: called in place, in virtual time, and not by the dead."""

from __future__ import annotations

import errno
import threading

import trio

import heartline
from heartline.testing import Node, World
from heartline.testing._threads import THREAD_TIME


def test_no_thread_is_used_and_others_go_on() -> None:
    async def main(world: World) -> None:
        steps = []

        def work(word: str) -> threading.Thread:
            steps.append(word)
            return threading.current_thread()

        async def meanwhile() -> None:
            steps.append("others")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(meanwhile)
            assert await trio.to_thread.run_sync(work, "work", limiter=None) is threading.main_thread()
        assert steps == ["others", "work"]
        assert 0 < world.time() <= THREAD_TIME

    real = trio.to_thread.run_sync
    World(1).run(main)
    assert trio.to_thread.run_sync is real


def test_cancellation_waits_for_the_function_unless_it_is_abandoned() -> None:
    async def main(world: World) -> None:
        done: list[str] = []
        for abandon in (True, False):
            with trio.move_on_after(1e-6):
                await trio.to_thread.run_sync(done.append, str(abandon), abandon_on_cancel=abandon)
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.to_thread.run_sync(done.append, "cancelled before")
        assert done == ["False"]

    World(1).run(main)


def test_a_dead_node_calls_nothing() -> None:
    errors = []
    called: list[int] = []

    async def program(node: Node) -> None:
        try:
            await trio.to_thread.run_sync(called.append, 1)
        except OSError as error:
            errors.append(error.errno)

    async def main(world: World) -> None:
        world.node("a").start(program)
        await trio.sleep(1e-6)
        world.node("a").crash()
        await trio.sleep(1)

    World(1).run(main)
    assert errors == [errno.EIO]
    assert called == []


@heartline.service
class Slow:
    @heartline.method(thread=True)
    def double(self, number: int) -> int:
        return 2 * number


def test_methods_in_threads_work() -> None:
    async def serve(node: Node) -> None:
        async with heartline.open_server("memory://slow", services=[Slow()]):
            await trio.sleep_forever()

    async def main(world: World) -> list[int]:
        world.node("slow").start(serve)
        async with heartline.open_connection("memory://slow") as connection:
            return [await heartline.remote(connection.service(Slow).double)(number) for number in range(3)]

    first, second = World(1), World(1)
    assert first.run(main) == second.run(main) == [0, 2, 4]
    assert first.digest() == second.digest()
