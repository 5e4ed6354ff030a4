"""A server, links that break and followers that note what they are told, held against the rules of push.

A property is a script: any commands in any order, then everybody has time to catch up. A follower checks
each update when it comes: the next one after the last, or a gap that had to be told. At the end all are up to
date.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio
from trio.testing import MockClock

from fuzz.flaky import Flaw, cut_after, make_flaky
from fuzz.logged import no_logged_errors
from heartline import (
    Backoff,
    Connection,
    Gap,
    Heartbeat,
    History,
    Limits,
    Position,
    Receipt,
    Server,
    SlowConsumer,
    Subscription,
    Update,
    open_connection,
    open_server,
)
from heartline.push import SlowPolicy
from heartline.push._log import TopicLog
from heartline.push._served import WINDOW_SIZE
from heartline.push._types import POLICIES
from tests.engine import core_of, link_of

URL = "memory://push"
CLIENTS = ("one", "two")
TOPICS = ("a", "b")
STARTS: dict[str, Any] = {"now": None, "newest": "newest", "oldest": "oldest"}
SIZES = (10, 20_000, 200_000)
"""Bytes of updates that are encoded once for all, that are not, and that travel in fragments."""

PAUSES = (0, 0, 0, 1e-6, 0.01, 0.3, 4)
"""Seconds between two commands: nothing, a moment, a reconnect, a restart."""

QUIET = Heartbeat(interval=1e6, timeout=4e6)
BACKOFF = Backoff(initial=0.05, maximum=0.5)

Place = tuple[int, int]
"""The number of a topic's life, and an offset there."""


@dataclass(frozen=True)
class Plan:
    """What a follower does."""

    client: int
    topic: str
    policy: SlowPolicy
    start: str


class Failed(Exception):
    """A handler did not manage."""


class Follower:
    """A subscriber that begins again where it failed, and knows what may come next."""

    def __init__(self, world: World, plan: Plan, connection: Connection) -> None:
        self.world = world
        self.connection = connection
        self.topic = plan.topic
        self.policy = plan.policy
        self.since = STARTS[plan.start]
        self.delay = 0.0
        self.fails = False
        self.told: list[Update[Any]] = []
        # After the last update that was taken, and after the last one that was handled.
        self.place: Place = (-1, 0)
        self.handled: Place = (-1, 0)

    async def run(self) -> None:
        while True:
            before = self.world.newest(self.topic)
            subscription = self.connection.subscribe(self.topic, since=self.since, policy=self.policy)
            try:
                async with subscription:
                    if not isinstance(self.since, Position):
                        self._begin(subscription, before)
                    await self._follow(subscription)
            except Failed:
                assert self.world.place(self.topic, subscription.position) == self.handled
                self.since = subscription.position
                self.place = self.handled
            except SlowConsumer:
                assert self.policy == "disconnect"
                self.since = "newest"
                await trio.sleep(0.01)

    def _begin(self, subscription: Subscription[Any], before: Place) -> None:
        """Where it is right after the beginning."""
        self.place = self.handled = self.world.place(self.topic, subscription.position)
        now = self.world.newest(self.topic)
        assert before[0] <= self.place[0] <= now[0]
        if before[0] == now[0] and self.since is None:
            assert before <= self.place <= now
        elif before[0] == now[0] and self.since == "newest":
            assert max(0, before[1] - 1) <= self.place[1] <= max(0, now[1] - 1)

    async def _follow(self, subscription: Subscription[Any]) -> None:
        while True:
            update = await subscription.__anext__()
            if isinstance(update, Gap):
                self._on_gap(update)
            else:
                self._on_update(update)
            await trio.sleep(self.delay)
            if self.fails:
                self.fails = False
                raise Failed
            if subscription._taken is not None:  # otherwise the newest update follows, and stands for the gap
                self.handled = self.place

    def _on_update(self, update: Update[Any]) -> None:
        """It is the next one, or with "keep newest" a later one."""
        life, offset = self._note(update)
        if self.policy == "keep newest":
            assert (life, offset) > self.place, "a version went backwards"
        else:
            assert (life, offset) == (self.place[0], self.place[1] + 1), f"came after {self.place}"
        self.place = (life, offset)

    def _on_gap(self, gap: Gap) -> None:
        """It is told only when what was due is gone; the newest follows."""
        assert self.policy != "keep newest"
        assert gap.topic == self.topic
        assert gap.first == self.place[1] + 1
        life, offset = self.world.place(self.topic, gap.position)
        # Without an age a topic that has updates retains the newest, and its history is full before one goes.
        dropped = offset >= gap.first + self.world.history - 1
        assert life > self.place[0] if gap.anew else (life == self.place[0] and dropped)
        self.place = (life, offset)

    def _note(self, update: Update[Any]) -> Place:
        number, data = update.value
        assert update.topic == self.topic
        assert data == bytes([number % 256]) * len(data), "a part of an update"
        self.told.append(update)
        return self.world.place(self.topic, update.position)


class World:
    """Everything of one run."""

    def __init__(self, *, seed: int, history: int, plans: Sequence[Plan]) -> None:
        self.history = history
        self.followers: list[Follower] = []
        self._plans = plans
        self._rng = random.Random(seed)
        self._connections: list[Connection] = []
        self._numbers = 0
        self._flaws: list[tuple[bool, int]] = []
        self._published: dict[tuple[str, str, int], int] = {}
        self._lives: dict[str, list[str]] = {topic: [] for topic in TOPICS}
        self._logs: dict[str, TopicLog] = {}
        self._server: Server | None = None
        self._scope = trio.CancelScope()
        self._leave = trio.Event()

    # What is known

    def newest(self, topic: str) -> Place:
        """The place of the newest update."""
        return len(self._lives[topic]) - 1, self._logs[topic].last

    def place(self, topic: str, position: Position) -> Place:
        """A position in terms of the topic's lives."""
        return self._lives[topic].index(position.epoch), position.offset

    # The run

    async def run(self, script: Sequence[Callable[[World], None]]) -> None:
        """Run a whole script; to be run under a clock that jumps."""
        make_flaky(self._next_flaws())
        async with trio.open_nursery() as self.nursery:
            await self.nursery.start(self._serve)
            for name in CLIENTS:
                await self.nursery.start(self._connect, name)
            for plan in self._plans:
                follower = Follower(self, plan, self._connections[plan.client])
                self.followers.append(follower)
                self.nursery.start_soon(follower.run)
            for command in script:
                command(self)
                await trio.sleep(self._rng.choice(PAUSES))
                self._check_memory()
            await self._settle()
            self.nursery.cancel_scope.cancel()

    def _next_flaws(self) -> Iterator[Flaw | None]:
        while True:
            yield Flaw(*self._flaws.pop()) if self._flaws else None

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        history = History(count=self.history)
        with trio.CancelScope() as self._scope:
            self._leave = trio.Event()
            async with open_server(URL, heartbeat=QUIET, history=history, rng=self._rng) as server:
                for topic in TOPICS:
                    server.declare_topic(topic, policies=POLICIES)
                    log = self._logs[topic] = server._publisher.find(topic).log
                    self._lives[topic].append(log.epoch)
                self._server = server
                task_status.started()
                await self._leave.wait()

    async def _connect(self, name: str, task_status: trio.TaskStatus[None]) -> None:
        # A session ends with its link, or with a pause that is a little longer, or outlives all of them.
        limits = Limits(resume_window=self._rng.choice([0, 0.2, 60]))
        async with open_connection(
            URL, identity=name, heartbeat=QUIET, reconnect=BACKOFF, rng=self._rng, limits=limits
        ) as connection:
            self._connections.append(connection)
            task_status.started()
            await trio.sleep_forever()

    async def _settle(self) -> None:
        """Give everybody time, then look at what they have."""
        for follower in self.followers:
            follower.delay, follower.fails = 0.0, False
        self._flaws.clear()
        await trio.sleep(60)
        for topic in TOPICS:
            await self._publish(topic, SIZES[0], None, None)
        await trio.sleep(60)
        for follower in self.followers:
            assert follower.place == self.newest(follower.topic), "it was left behind"
            for update in follower.told:
                number = self._published.get((update.topic, update.epoch, update.offset), update.value[0])
                assert update.value[0] == number, "another update"

    def _check_memory(self) -> None:
        if self._server is None:
            return
        for connection in self._server.connections.values():
            count = sum(self._connections[f.client].id == connection.id for f in self._plans)
            assert connection.statistics().backlog <= count * (WINDOW_SIZE + max(SIZES) + 100_000)

    # Commands

    def publish(self, topic: str, size: int, count: int, wait: tuple[Any, float | None]) -> None:
        """Publish some updates, one after the other; ``wait`` has a timeout with it."""
        self.nursery.start_soon(self._publish_all, topic, size, count, *wait)

    async def _publish_all(self, topic: str, size: int, count: int, *wait: Any) -> None:
        for _ in range(count):
            await self._publish(topic, size, *wait)

    async def _publish(self, topic: str, size: int, wait: Any, timeout: float | None) -> None:
        server = self._server
        if server is None:
            return
        self._numbers += 1
        number = self._numbers
        value = [number, bytes([number % 256]) * size]
        receipt: Receipt = await server.publish(topic, value, wait=wait, timeout=timeout)
        self._published[topic, receipt.epoch, receipt.offset] = number
        assert not receipt.confirmed & receipt.missing
        if wait == "confirmed":
            place = self.place(topic, Position(receipt.epoch, receipt.offset))
            for name in receipt.confirmed:
                of_client = [f for f in self.followers if f.connection.id == name and f.topic == topic]
                assert any(f.handled >= place for f in of_client), "confirmed, but not handled"

    def cut(self, client: int, *, by_server: bool, after: int) -> None:
        """Break a client's link after so many more bytes of what it, or the server, sends."""
        connection: Connection | None = self._connections[client]
        if by_server:
            connection = self._server and self._server.connections.get(CLIENTS[client])
        if connection is not None and core_of(connection).link is not None:
            cut_after(link_of(connection).stream, Flaw(True, after))

    def make_flaky(self, flaws: list[tuple[bool, int]]) -> None:
        """The next links break after so many bytes that their client sends (or receives)."""
        self._flaws = flaws

    def set_delay(self, follower: int, delay: float) -> None:
        """From now on handling takes a follower so many seconds."""
        if follower < len(self.followers):
            self.followers[follower].delay = delay

    def fail(self, follower: int) -> None:
        """The next handler of a follower fails."""
        if follower < len(self.followers):
            self.followers[follower].fails = True

    def restart(self, *, gently: bool) -> None:
        """End the server, and begin another one with nothing of its memory."""
        if self._server is None:
            return
        self._server = None
        if gently:
            self._leave.set()
        else:
            self._scope.cancel()
        self.nursery.start_soon(self._start_again)

    async def _start_again(self) -> None:
        await trio.sleep(2)
        await self.nursery.start(self._serve)


def simulate(
    seed: int, history: int, plans: Sequence[Plan], script: Sequence[Callable[[World], None]]
) -> None:
    """Run a script in virtual time."""
    world = World(seed=seed, history=history, plans=plans)
    with no_logged_errors():
        trio.run(partial(world.run, script), clock=MockClock(autojump_threshold=0))
