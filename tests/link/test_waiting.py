"""Queues at a link: in order, as many as there is room for, and nobody is woken too often, or never."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import ConnectionLost, Limits
from heartline.link._waiting import Queues
from tests.connection.helpers import cut, open_pair, run, settle
from tests.engine import link_of

CROWD = 2000


class Rooms:
    """Room of two kinds, and the tasks that want one unit of it each."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.queues = Queues()
        self.room = [0, 0]
        self.questions = 0
        self.came: list[list[int]] = [[], []]
        self.went: list[list[int]] = [[], []]
        self.scopes: list[trio.CancelScope] = []
        self._nursery = nursery

    def join(self, kind: int) -> None:
        scope = trio.CancelScope()
        self.scopes.append(scope)
        self._nursery.start_soon(self._want, len(self.scopes) - 1, kind, scope)

    async def _want(self, number: int, kind: int, scope: trio.CancelScope) -> None:
        def can_go_on() -> bool:
            self.questions += 1
            return self.room[kind] > 0

        with scope:
            self.came[kind].append(number)
            await self.queues.wait(kind, can_go_on)
            assert self.room[kind] > 0
            self.room[kind] -= 1
            self.went[kind].append(number)

    def make_room(self, kind: int, count: int) -> None:
        self.room[kind] += count
        self.queues.wake()

    def expected(self, kind: int) -> list[int]:
        """Whoever came and was not cancelled, in the order of coming."""
        return [number for number in self.came[kind] if not self.scopes[number].cancelled_caught]


steps = st.one_of(
    st.tuples(st.just("join"), st.integers(0, 1)),
    st.tuples(st.just("room"), st.integers(0, 1), st.integers(1, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("tick")),
)


@given(st.lists(steps, max_size=60))
def test_all_go_on_in_order_as_far_as_there_is_room(script: list[Any]) -> None:
    """Comers and goers of the same tick among them, whichever of them Trio runs first."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            rooms = Rooms(nursery)
            for step, *what in script:
                if step == "join":
                    rooms.join(*what)
                elif step == "room":
                    rooms.make_room(*what)
                elif step == "tick":
                    await trio.lowlevel.checkpoint()
                elif what[0] < len(rooms.scopes):
                    rooms.scopes[what[0]].cancel()
            await settle()
            for kind in (0, 1):
                expected = rooms.expected(kind)
                assert rooms.went[kind] == expected[: len(rooms.went[kind])]
                assert rooms.room[kind] == 0 or rooms.went[kind] == expected
                rooms.make_room(kind, 100)
            await settle()
            for kind in (0, 1):
                assert rooms.went[kind] == rooms.expected(kind)
            assert rooms.queues._queues == {}

    run(main)


async def open_crowd(nursery: trio.Nursery, count: int) -> Rooms:
    rooms = Rooms(nursery)
    for _ in range(count):
        rooms.join(0)
        await settle()
    return rooms


async def test_a_waiter_that_is_cancelled_as_it_is_woken_passes_it_on(autojump_clock: MockClock) -> None:
    """Woken first it goes on; cancelled first it does not, and the next one does in its place."""
    async with trio.open_nursery() as nursery:
        rooms = await open_crowd(nursery, 4)
        rooms.make_room(0, 1)
        rooms.scopes[0].cancel()
        await settle()
        assert rooms.went[0] == [0]
        rooms.scopes[1].cancel()
        rooms.make_room(0, 1)
        await settle()
        assert rooms.went[0] == [0, 2]
        assert rooms.room[0] == 0
        rooms.make_room(0, 1)
    assert rooms.went[0] == [0, 2, 3]


async def test_a_newcomer_does_not_pass_who_was_woken(autojump_clock: MockClock) -> None:
    """There is room, and whoever it is for has not run yet."""
    for _ in range(20):  # Trio draws who runs first
        async with trio.open_nursery() as nursery:
            rooms = await open_crowd(nursery, 3)
            rooms.join(0)
            rooms.make_room(0, 1)
            await settle()
            assert rooms.went[0] == [0]
            rooms.make_room(0, 3)
        assert rooms.went[0] == [0, 1, 2, 3]


async def test_a_change_costs_one_question_however_many_wait(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        rooms = await open_crowd(nursery, 100)
        before = rooms.questions
        for _ in range(50):
            rooms.queues.wake()
        assert rooms.questions == before + 50
        nursery.cancel_scope.cancel()


async def test_room_that_is_gone_again_is_waited_for_on(autojump_clock: MockClock) -> None:
    """Between waking and running: the place in front is kept."""
    async with trio.open_nursery() as nursery:
        rooms = await open_crowd(nursery, 2)
        rooms.make_room(0, 1)
        rooms.room[0] = 0
        await settle()
        assert rooms.went[0] == []
        rooms.make_room(0, 2)
    assert rooms.went[0] == [0, 1]


# On a connection


class Steps(trio.abc.Instrument):
    """Counts how often tasks of a function run."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count[task.name.rpartition(".")[2]] += 1


@pytest.mark.parametrize("end", ["read", "lost", "cancelled"])
async def test_a_crowd_of_senders_is_woken_one_by_one(end: str, autojump_clock: MockClock) -> None:
    """Whether the peer reads message by message, or the session ends, or they all give up."""
    steps = Steps()
    outcomes: list[str] = []
    async with open_pair(limits=Limits(window=1), reconnect=None) as (client, there, _):
        await client.send("the window is full")
        async with trio.open_nursery() as nursery:

            async def sender(number: int) -> None:
                try:
                    await client.send(number)
                    outcomes.append("read")
                except ConnectionLost:
                    outcomes.append("lost")
                except trio.Cancelled:
                    outcomes.append("cancelled")
                    raise

            for number in range(CROWD):
                nursery.start_soon(sender, number)
                await settle()
            assert outcomes == []
            trio.lowlevel.add_instrument(steps)
            if end == "read":
                assert await there.receive() == "the window is full"
                for number in range(CROWD):
                    await trio.sleep(0.001)
                    assert await there.receive() == number
            elif end == "lost":
                cut(client)
            else:
                nursery.cancel_scope.cancel()
    trio.lowlevel.remove_instrument(steps)
    assert outcomes == [end] * CROWD
    # Whoever goes on wakes the next before its own message takes the room: that may be in vain, once.
    assert CROWD <= steps.count["sender"] <= 2 * CROWD


async def test_a_large_read_lets_as_many_go_on_as_there_is_room_for(autojump_clock: MockClock) -> None:
    """And no more: the rest wait in their order."""
    limits = Limits(window=1 << 30, write_buffer=50_000, memory=1 << 42)
    sent: list[int] = []
    async with open_pair(limits=limits) as (client, there, _), trio.open_nursery() as nursery:
        paused = trio.Event()
        stream = link_of(client).stream
        send_all = stream.send_all

        async def paused_send_all(data: bytes | bytearray | memoryview) -> None:
            await paused.wait()
            await send_all(data)

        stream.send_all = paused_send_all  # type: ignore[method-assign]

        async def sender(number: int) -> None:
            await client.send(number.to_bytes(4, "big") + bytes(10_000))
            sent.append(number)

        for number in range(30):
            nursery.start_soon(sender, number)
            await settle()
        assert sent == list(range(5))
        paused.set()
        for number in range(30):
            assert (await there.receive())[:4] == number.to_bytes(4, "big")
        assert sent == list(range(30))
