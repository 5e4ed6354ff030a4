"""Calls made inside of calls, in both directions and over several hops, at ``Limits.calls``."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline import CallError, Limits, RemoteError
from tests.rpc.helpers import QUIET, open_pair, run, settle


@heartline.service
class Hop:
    """Goes on to the peer that called, ``depth`` times."""

    def __init__(self) -> None:
        self.peers: dict[str, Any] = {}

    async def back(self, depth: int) -> int:
        if not depth:
            return 0
        there = heartline.current_connection().service(Hop)
        return 1 + await there.back(depth - 1)

    async def through(self, names: list[str]) -> int:
        """Go on to the first of these, which has to go through the rest."""
        if not names:
            return 0
        there = self.peers.get(names[0]) or heartline.current_connection()
        return 1 + await there.service(Hop).through(names[1:])

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


@given(
    limits=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    depth=st.integers(0, 8),
    callers=st.integers(1, 4),
)
def test_nested_calls_never_wait_for_each_other(limits: tuple[int, int], depth: int, callers: int) -> None:
    """There and back over one connection: each chain ends at once, with its answer or with ``Overloaded``."""

    async def main() -> None:
        ours, theirs = (Limits(calls=count) for count in limits)
        ended: list[str] = []
        async with open_pair(Hop(), client_services=[Hop()], limits=ours, server_limits=theirs) as (
            client,
            _,
        ):

            async def go() -> None:
                try:
                    assert await client.service(Hop).back(depth) == depth
                    ended.append("an answer")
                except RemoteError as error:
                    ended.append("Overloaded" if "Overloaded" in str(error) else repr(error))

            async with trio.open_nursery() as nursery:
                for _ in range(callers):
                    nursery.start_soon(go)
            assert trio.current_time() == 0
            assert await client.service(Hop).back(0) == 0
        assert len(ended) == callers
        assert set(ended) <= {"an answer", "Overloaded"}
        if callers == 1:
            # Each hop takes one more place, on the sides in turn.
            fits = depth // 2 + 1 <= limits[1] and (depth + 1) // 2 <= limits[0]
            assert ended == ["an answer" if fits else "Overloaded"]

    run(main)


@pytest.mark.parametrize("hops", [["a", "", "b", "", "a"], ["b", "", "a", "", "b", "", "a"]])
async def test_a_chain_through_several_clients(hops: list[str], autojump_clock: MockClock) -> None:
    """The server has room, and its clients have one place each, which the chain itself holds."""
    hop = Hop()
    one: dict[str, Any] = {"limits": Limits(calls=1), "services": [Hop()], "heartbeat": QUIET}
    async with (
        heartline.open_server("memory://", services=[hop], heartbeat=QUIET) as server,
        heartline.open_connection(server.urls[0], identity="a", **one) as a,
        heartline.open_connection(server.urls[0], identity="b", **one),
        heartline.open_connection(server.urls[0], identity="caller", heartbeat=QUIET) as caller,
    ):
        hop.peers = dict(server.connections)
        with pytest.raises(RemoteError, match="Overloaded"):
            await caller.service(Hop).through(hops)
        assert trio.current_time() == 0
        assert await caller.service(Hop).through(["a", ""]) == 2
        assert a.statistics().links == 1


async def test_other_calls_wait_for_a_place(autojump_clock: MockClock) -> None:
    """Those of no method, and those that nothing in progress at the peer can be waiting for."""
    hop = Hop()
    one: dict[str, Any] = {"limits": Limits(calls=1), "services": [Hop()], "heartbeat": QUIET}
    async with (
        heartline.open_server("memory://", services=[hop], heartbeat=QUIET) as server,
        heartline.open_connection(server.urls[0], identity="a", **one),
        heartline.open_connection(server.urls[0], identity="caller", heartbeat=QUIET) as caller,
        trio.open_nursery() as nursery,
    ):
        hop.peers = dict(server.connections)
        there = server.connections["a"].service(Hop)
        nursery.start_soon(there.sleep, 10)
        await settle()
        nursery.start_soon(there.sleep, 10)
        await settle()
        assert await caller.service(Hop).through(["a"]) == 1
        assert trio.current_time() == 20


async def test_a_method_does_not_queue_behind_those_who_wait(autojump_clock: MockClock) -> None:
    """Plain callers wait for the place of the very call that makes this one."""
    limits = Limits(calls=1)
    async with open_pair(Hop(), client_services=[Hop()], limits=limits) as (client, _):
        ended: list[str] = []

        async def go() -> None:
            try:
                await client.service(Hop).back(2)
            except CallError as error:
                ended.append(type(error).__name__)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(go)
        assert ended == ["RemoteError"] * 3
        assert trio.current_time() == 0
