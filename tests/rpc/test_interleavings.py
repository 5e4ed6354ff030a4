"""Calls, cancellations and broken links in any order: every call ends once, with its answer or the truth."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import heartline
from heartline import Backoff, CallError, Connection, Limits, Retry, Server, service
from heartline.errors import Outcome, Overloaded
from heartline.rpc import Calls
from tests.engine import core_of
from tests.rpc.helpers import QUIET, cut, run


class Diary:
    """What happened to each call, by its tag, on both sides."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.made: Counter[int] = Counter()
        self.results: dict[int, Any] = {}
        self.errors: dict[int, CallError] = {}
        self.cancelled: set[int] = set()


@service
class Peer:
    def __init__(self, diary: Diary) -> None:
        self.diary = diary

    def inline(self, tag: int, _seconds: float, payload: bytes) -> list[Any]:
        self.diary.begun[tag] += 1
        self.diary.ended[tag] += 1
        return [tag, payload]

    async def task(self, tag: int, seconds: float, payload: bytes) -> list[Any]:
        self.diary.begun[tag] += 1
        try:
            await trio.sleep(seconds)
            return [tag, payload]
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.1)
            self.diary.ended[tag] += 1


@dataclass(frozen=True)
class Call:
    by: str
    method: str
    seconds: float
    size: int
    retry: bool
    patience: float | None
    by_deadline: bool

    async def make(self, connection: Connection, tag: int, diary: Diary) -> None:
        retry = Retry(attempts=3) if self.retry else None
        method = getattr(connection.service("Peer", retry=retry), self.method)
        payload = bytes([tag % 256]) * self.size
        diary.made[tag] += 1
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            if self.patience is not None and self.by_deadline:
                scope.deadline = trio.current_time() + self.patience
            elif self.patience is not None:
                nursery.start_soon(self._cancel, scope, self.patience)
            with scope:
                try:
                    diary.results[tag] = await method(tag, self.seconds, payload)
                    assert diary.results[tag] == [tag, payload], "the answer of another call"
                except CallError as error:
                    diary.errors[tag] = error
            if scope.cancelled_caught:
                diary.cancelled.add(tag)
            nursery.cancel_scope.cancel()

    @staticmethod
    async def _cancel(scope: trio.CancelScope, patience: float) -> None:
        await trio.sleep(patience)
        scope.cancel()


@dataclass(frozen=True)
class Cut:
    side: str


@dataclass(frozen=True)
class Wait:
    seconds: float


times = st.sampled_from([0.0, 0.05, 0.1, 0.5, 2.0])
sides = st.sampled_from(["client", "server"])
calls = st.builds(
    Call,
    by=sides,
    method=st.sampled_from(["inline", "task"]),
    seconds=times,
    size=st.sampled_from([0, 10, 70_000, 200_000]),
    retry=st.booleans(),
    patience=st.none() | times,
    by_deadline=st.booleans(),
)
waits = st.builds(Wait, times)
bursts = st.lists(calls, min_size=1, max_size=6)
cuts = st.tuples(waits, st.builds(Cut, sides), waits)
plans = st.lists(bursts | bursts | cuts, min_size=2, max_size=8).map(lambda parts: [*chain(*parts)])


async def play(plan: list[Call | Cut | Wait], client: Connection, server: Server, diary: Diary) -> None:
    def connection(side: str) -> Connection | None:
        return client if side == "client" else server.connections.get(client.id)

    async with trio.open_nursery() as nursery:
        for tag, step in enumerate(plan):
            if isinstance(step, Wait):
                await trio.sleep(step.seconds)
            elif isinstance(step, Cut):
                end = connection(step.side)
                if end is not None and core_of(end).link is not None:
                    cut(end)
            elif (end := connection(step.by)) is not None:
                nursery.start_soon(step.make, end, tag, diary)


def judge(diary: Diary) -> None:
    ends = Counter([*diary.results, *diary.errors, *diary.cancelled])
    assert ends == diary.made, "every call ends, and once"
    assert diary.begun == diary.ended, "every handler's cleanup has run"
    assert not diary.begun or max(diary.begun.values()) == 1, "nothing is executed twice"
    for tag in diary.results:
        assert diary.begun[tag] == 1
    for tag, error in diary.errors.items():
        if error.outcome is Outcome.NOT_SENT or isinstance(error, Overloaded):
            assert diary.begun[tag] == 0, error


@pytest.mark.slow
@given(plan=plans, limit=st.sampled_from([1, 2, 5, 1000]), seed=st.integers(0, 9))
def test_every_call_ends_once_with_its_own_answer_or_the_truth(
    plan: list[Call | Cut | Wait], limit: int, seed: int
) -> None:
    async def main() -> None:
        diary = Diary()
        limits = Limits(calls=limit)
        connections: list[Connection] = []
        async with (
            heartline.open_server(
                "memory://", services=[Peer(diary)], limits=limits, heartbeat=QUIET
            ) as server,
            heartline.open_connection(
                server.urls[0],
                services=[Peer(diary)],
                limits=limits,
                heartbeat=QUIET,
                reconnect=Backoff(initial=0.2, maximum=1),
                rng=random.Random(seed),
            ) as client,
        ):
            connections += [client, *server.connections.values()]
            with trio.fail_after(1000):
                await play(plan, client, server, diary)
                await trio.sleep(5)
            connections += server.connections.values()
            for connection in connections:
                assert core_of(connection).idle
                assert core_of(connection).part(Calls)._tasks == 0
            judge(diary)

    run(main)
