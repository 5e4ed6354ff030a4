"""A server with a store that crashes and comes back, publishers that repeat until they have a receipt, and
followers, held against each other.

Whatever happens: every number is published once, followers have each update once and in order (or a state in
its place), nobody knows an update that a restart has forgotten, and all end with the publisher's state.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import trio
from trio.testing import MockClock

from heartline import (
    Connection,
    Fold,
    Gap,
    Heartbeat,
    History,
    Level,
    Server,
    StoreError,
    TopicSettings,
    Update,
    open_server,
)
from tests.engine import core_of
from tests.push.helpers import cut, open_client
from tests.push.stores import FakeStore, Places

URL = "memory://durable"
QUIET = Heartbeat(interval=1e6, timeout=4e6)
COMMANDS = ("publish", "publish", "burst", "crash", "before", "after", "gently", "fail", "cut")
PAUSES = (0, 0, 0.001, 0.01, 0.3)

Script = Sequence[tuple[str, int]]


def append(state: list[Any], value: Any) -> list[Any]:
    return [*state, value]


class World:
    def __init__(self, places: Places, history: int, seed: int) -> None:
        self.places = places
        self.history = History(count=history)
        self.rng = random.Random(seed)
        self.numbers = 0
        self.server: Server | None = None
        self.store: Any = None
        self.scope = trio.CancelScope()
        self.leave = trio.Event()
        self.clients: list[Connection] = []
        self.receipts: dict[int, tuple[str, int]] = {}
        self.waiting = 0
        # What the followers have: updates by offset, and states by follower.
        self.seen: dict[int, Any] = {}
        self.told: list[int] = []
        self.state: list[Any] = []
        self.place = 0

    async def run(self, script: Script) -> None:
        async with trio.open_nursery() as self.nursery:
            await self.nursery.start(self.serve)
            for follow in (self.follow_all, self.follow_state):
                client = await self.nursery.start(self.connect)
                self.nursery.start_soon(follow, client)
            for command, number in script:
                self.do(command, number)
                await trio.sleep(self.rng.choice(PAUSES))
            await self.settle()
            self.nursery.cancel_scope.cancel()

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        self.leave = trio.Event()
        with trio.CancelScope() as self.scope:
            async with self.places.open() as store:
                if isinstance(store, FakeStore):
                    store.pause = 0.005
                fold = Fold(initial=list, apply=append)
                topics = {"topic": TopicSettings(history=self.history, store=store, fold=fold)}
                async with open_server(URL, topics=topics, heartbeat=QUIET, rng=self.rng) as server:
                    self.store, self.server = store, server
                    task_status.started()
                    await self.leave.wait()

    async def connect(self, task_status: trio.TaskStatus[Connection]) -> None:
        async with open_client(URL, rng=self.rng) as client:
            self.clients.append(client)
            task_status.started(client)
            await trio.sleep_forever()

    # The followers

    def note(self, offset: int, value: Any) -> None:
        assert self.seen.setdefault(offset, value) == value, "an offset was given out again"

    async def follow_all(self, client: Connection) -> None:
        last = 0
        async with client.subscribe("topic", since="oldest") as updates:
            while True:
                update = await updates.__anext__()
                if isinstance(update, Gap):
                    self.check_gap(update, last)
                    last = update.last
                    continue
                assert update.offset == last + 1
                last = update.offset
                self.note(last, update.value)
                self.told.append(last)

    def check_gap(self, gap: Gap, last: int) -> None:
        """It is told only when what was due is gone, and what follows is the newest."""
        assert gap.first == last + 1
        assert gap.last >= last + self.history.count

    async def follow_state(self, client: Connection) -> None:
        async with client.subscribe("topic", since="snapshot") as updates:
            async for update in updates:
                assert isinstance(update, Update)
                if update.snapshot:
                    assert update.offset >= self.place
                    self.state = update.value
                else:
                    assert update.offset == self.place + 1
                    self.note(update.offset, update.value)
                    self.state = append(self.state, update.value)
                self.place = update.offset
                assert len(self.state) == self.place, "a snapshot with another offset than its state"
                await trio.sleep(self.rng.choice(PAUSES))

    # The commands

    def do(self, command: str, number: int) -> None:
        if command in ("publish", "burst"):
            for _ in range(number if command == "burst" else 1):
                self.numbers += 1
                self.nursery.start_soon(self.publish, self.numbers)
        elif command == "cut":
            client = self.clients[number % len(self.clients)]
            if core_of(client).link is not None:
                cut(client)
        elif command == "fail" and isinstance(self.store, FakeStore):
            self.store.planted.append(StoreError("planted"))
        elif self.server is not None:
            self.restart(command)

    def restart(self, command: str) -> None:
        """End the server: gently, at once, or in the middle of a write, before or after its commit."""
        self.server = None
        if command == "gently":
            self.leave.set()
        elif command in ("before", "after") and isinstance(self.store, FakeStore):
            self.store.planted.insert(0, command)
        self.nursery.start_soon(self.start_again, command)

    async def start_again(self, command: str) -> None:
        await trio.sleep(0.02 if command in ("before", "after") else 0.0)
        if command != "gently":
            self.scope.cancel()
        await trio.sleep(0.1)
        while True:
            try:
                await self.nursery.start(self.serve)
            except StoreError:  # the one before has not left the file yet
                await trio.sleep(0.1)
            else:
                return

    async def publish(self, number: int) -> None:
        """Until there is a receipt, as a program does that does not know whether it was published."""
        self.waiting += 1
        while True:
            server = self.server
            if server is not None:
                try:
                    receipt = await server.publish("topic", number, key=str(number))
                except StoreError:
                    pass
                else:
                    assert receipt.level is Level.STORED
                    self.receipts[number] = (receipt.epoch, receipt.offset)
                    self.waiting -= 1
                    return
            await trio.sleep(0.05)

    async def settle(self) -> None:
        while self.waiting or self.server is None:
            await trio.sleep(1)
        await trio.sleep(10)
        assert self.server is not None
        final: Any = self.server.topic_state("topic")
        assert sorted(final) == list(range(1, self.numbers + 1)), "a number was lost, or published twice"
        assert len({epoch for epoch, _ in self.receipts.values()}) <= 1
        for number, (_, offset) in self.receipts.items():
            assert final[offset - 1] == number
        for offset, value in self.seen.items():
            assert final[offset - 1] == value, "a follower knows what a restart has forgotten"
        assert self.state == final
        assert self.told[-1:] == ([len(final)] if final else [])
        assert self.told == sorted(set(self.told))


def simulate(places: Places, history: int, seed: int, script: Script, *, patience: float = 0.0) -> None:
    """Run a script in virtual time; ``patience`` in real seconds is for stores that really write."""
    world = World(places, history, seed)
    trio.run(partial(world.run, script), clock=MockClock(autojump_threshold=patience))
