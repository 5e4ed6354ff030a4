"""Bounds: calls in progress on both sides, lengths of messages, and what small calls need not wait for."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline import Limits, service
from heartline.errors import ConnectionLost, Overloaded
from heartline.link import GOODBYE_GRACE
from heartline.rpc import Calls
from heartline.rpc._faults import Fault, encode_fault
from heartline.wire import Frame, FrameType
from tests.engine import core_of, link_of
from tests.rpc.helpers import QUIET, call_frame, open_pair, raw_client, raw_server, run, settle

KIB = 1024
MIB = 1024 * KIB


@service
class Busy:
    def __init__(self) -> None:
        self.now = self.most = self.begun = 0

    async def work(self, seconds: float) -> None:
        self.begun += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await trio.sleep(seconds)
        finally:
            self.now -= 1

    async def clean_up(self, seconds: float) -> None:
        """Takes its time to end when it is cancelled."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)
            self.now -= 1

    def give(self, size: int) -> bytes:
        self.begun += 1
        return bytes(size)

    async def give_later(self, size: int) -> bytes:
        self.begun += 1
        await trio.lowlevel.checkpoint()
        return bytes(size)

    def take(self, data: bytes) -> int:
        return len(data)

    def double(self, array: Any) -> Any:
        array *= 2
        return array

    def quick(self) -> int:
        self.begun += 1
        return 1


class TestCallsInProgress:
    @given(limit=st.integers(1, 5), calls=st.integers(0, 12), both=st.booleans())
    def test_the_caller_waits_at_the_peers_limit(self, limit: int, calls: int, both: bool) -> None:
        """Everything is done in the end, never more than the limit at a time, in the time that this takes."""

        async def main() -> None:
            here, there = Busy(), Busy()
            async with open_pair(there, client_services=[here], limits=Limits(calls=limit)) as (
                client,
                server,
            ):
                async with trio.open_nursery() as nursery:
                    for _ in range(calls):
                        nursery.start_soon(client.service("Busy").work, 1)
                        if both:
                            nursery.start_soon(server.service("Busy").work, 1)
                assert there.most == min(limit, calls)
                assert here.most == (there.most if both else 0)
                assert trio.current_time() == pytest.approx(-(-calls // limit), abs=0.01)

        run(main)

    async def test_a_peer_that_ignores_the_limit(self, autojump_clock: MockClock) -> None:
        busy = Busy()
        async with (
            heartline.open_server(
                "memory://", services=[busy], limits=Limits(calls=3), heartbeat=QUIET
            ) as server,
            raw_client(server.urls[0]) as peer,
        ):
            await peer.send(*(call_frame(number, "Busy.work", 1) for number in range(10)))
            faults = [await peer.receive() for _ in range(7)]
            assert [frame.type for frame in faults] == [FrameType.FAULT] * 7
            assert [frame.id for frame in faults] == list(range(3, 10)), "the first ones are served"
            results = [await peer.receive() for _ in range(3)]
            assert {frame.type for frame in results} == {FrameType.RESULT}
            assert busy.begun == busy.most == 3
            await peer.call(99, "Busy.quick")
            assert await peer.receive_result() == 1

    async def test_what_the_caller_is_told(self, autojump_clock: MockClock) -> None:
        async with raw_server() as (client, peer), trio.open_nursery() as nursery:
            nursery.start_soon(expect_overloaded, client)
            frame = await peer.receive()
            fault = encode_fault(Fault("overloaded", "3 calls are in progress (Limits.calls)"))
            await peer.send(Frame(FrameType.FAULT, id=frame.id, payload=fault))

    async def test_cancelled_calls_whose_handlers_clean_up_are_bounded(
        self, autojump_clock: MockClock
    ) -> None:
        """CALL, CANCEL, CALL, CANCEL…: a peer must not pile up handlers that way."""
        busy = Busy()
        async with (
            heartline.open_server(
                "memory://", services=[busy], limits=Limits(calls=5), heartbeat=QUIET
            ) as server,
            raw_client(server.urls[0]) as peer,
        ):
            overloaded = 0
            for number in range(100):
                await peer.call(number, "Busy.clean_up", 60)
                await settle()
                await peer.send(Frame(FrameType.CANCEL, id=number))
                await settle()
            assert busy.most == 10, "as many again as may be in progress"
            for _ in range(90):
                overloaded += (await peer.receive_fault())["kind"] == "overloaded"
            assert overloaded == 90
            await trio.sleep(100)
            await peer.call(1000, "Busy.quick")
            assert await peer.receive_result() == 1, "when they have ended there is room again"

    async def test_one_cancelled_call_leaves_its_place_at_once(self, autojump_clock: MockClock) -> None:
        """With room for one, the next call need not wait for the cleanup of the last, nor is it refused."""
        busy = Busy()
        async with open_pair(busy, limits=Limits(calls=1)) as (client, _):
            with trio.move_on_after(1):
                await client.service("Busy").clean_up(0.5)
            assert await client.service("Busy").quick() == 1
            assert trio.current_time() == 1

    async def test_an_honest_peer_is_never_refused_because_of_other_traffic(
        self, autojump_clock: MockClock
    ) -> None:
        """What waits to be sent counts against nobody's calls, unless it answers them."""
        limits = Limits(calls=2)
        busy = Busy()
        async with open_pair(busy, client_services=[Busy()], limits=limits) as (client, server):
            async with trio.open_nursery() as nursery:
                for size in (1, 100_000):
                    for _ in range(200):
                        with suppress(trio.WouldBlock):
                            server.send_nowait(bytes(size))
                for _ in range(20):
                    nursery.start_soon(client.service("Busy").quick)
                    nursery.start_soon(client.service("Busy").give, 100_000)
                    nursery.start_soon(server.service("Busy").take, bytes(100_000))
            assert busy.begun == 40


async def expect_overloaded(client: heartline.Connection) -> None:
    with pytest.raises(Overloaded, match=r"Busy\.quick: 3 calls are in progress \(Limits\.calls\)"):
        await client.service("Busy").quick()


class TestAPeerThatDoesNotRead:
    @pytest.mark.parametrize("name", ["give", "give_later"])
    @pytest.mark.parametrize("size", [100, 60 * KIB, MIB], ids=["small", "frame", "long"])
    async def test_is_not_served_without_end(
        self, name: str, size: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It asks and asks: a bounded number of answers is made for it, and others are served meanwhile."""
        busy = Busy()
        limits = Limits(calls=20, write_buffer=100 * KIB)
        async with (
            heartline.open_server("memory://", services=[busy], limits=limits, heartbeat=QUIET) as server,
            heartline.open_connection(server.urls[0], heartbeat=QUIET) as good,
            raw_client(server.urls[0]) as bad,
        ):
            served = next(c for c in server.connections.values() if c.id != good.id)
            numbers = iter(range(100_000))
            for _ in range(40):
                await bad.send(*(call_frame(next(numbers), f"Busy.{name}", size) for _ in range(200)))
                await settle()
                backlog = served.statistics().backlog
                assert backlog < 8.5 * MIB + 20 * (size + KIB)
            enough = 20 + 20 + (64 + 100 + 100) * KIB // size
            assert busy.begun <= enough < 40 * 200
            assert await good.service("Busy").quick() == 1
        assert "internal error" not in caplog.text

    async def test_its_waiting_calls_end_with_the_link(self, autojump_clock: MockClock) -> None:
        """They are not executed any more, although the link would have room for them now."""
        busy = Busy()
        limits = Limits(write_buffer=100 * KIB)
        async with (
            heartline.open_server("memory://", services=[busy], limits=limits, heartbeat=QUIET) as server,
            raw_client(server.urls[0]) as bad,
        ):
            (served,) = server.connections.values()
            await bad.send(*(call_frame(number, "Busy.give", 60 * KIB) for number in range(50)))
            await settle()
            begun = busy.begun
            assert begun < 10
            assert core_of(served).part(Calls)._tasks == 50 - begun
            link = link_of(served)
            link.fail(ConnectionLost("broken"))
            link.wake()  # before the reader has ended: nothing was cancelled yet
            await trio.sleep(5)
            assert busy.begun == begun
            assert core_of(served).part(Calls)._tasks == 0

    async def test_a_call_that_waited_and_was_cancelled_is_not_executed(
        self, autojump_clock: MockClock
    ) -> None:
        busy = Busy()
        limits = Limits(write_buffer=100 * KIB)
        async with (
            heartline.open_server("memory://", services=[busy], limits=limits, heartbeat=QUIET) as server,
            raw_client(server.urls[0]) as peer,
        ):
            numbers = range(50)
            calls = [call_frame(number, "Busy.give", 60 * KIB) for number in numbers]
            await peer.send(*calls, *(Frame(FrameType.CANCEL, id=number) for number in numbers))
            await settle()
            at_once = busy.begun
            assert at_once < 10
            for number in range(at_once):
                assert (await peer.receive()).id == number
            await settle()
            assert busy.begun == at_once

    @pytest.mark.slow
    async def test_is_given_up_in_the_end(self, autojump_clock: MockClock) -> None:
        """Even refusals add up; it has a second to take the goodbye."""
        async with (
            heartline.open_server("memory://", limits=Limits(calls=1), heartbeat=QUIET) as server,
            raw_client(server.urls[0]) as bad,
        ):
            (served,) = server.connections.values()
            frames = [call_frame(number, "No.such") for number in range(1000)]
            for _ in range(1000):
                with trio.move_on_after(GOODBYE_GRACE + 1) as stuck:
                    try:
                        await bad.send(*frames)
                    except trio.BrokenResourceError:
                        break
                assert not stuck.cancelled_caught, "it is read, or given up"
                await settle()
            await trio.sleep(5)
            assert core_of(served).link is None
            assert not server.connections

    async def test_a_cancellation_at_such_a_peer(self, autojump_clock: MockClock) -> None:
        """The CANCEL finds no room: that ends the link, not the program."""
        async with raw_server() as (client, peer):
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()

                async def call() -> None:
                    with scope:
                        await client.service("Busy").quick()

                nursery.start_soon(call)
                await peer.receive()
                link = link_of(client)
                link.session.outbox.size += 100 * MIB  # as if so much waited already
                scope.cancel()
                await trio.sleep(3)
                assert core_of(client).link is None

    async def test_many_answers_at_once_for_a_peer_that_reads(self, autojump_clock: MockClock) -> None:
        """All calls of the limit, all answered with the longest frame, all within the rules."""
        busy = Busy()
        for name in ("give", "give_later"):
            async with open_pair(busy, limits=Limits(calls=400)) as (client, _):
                results: list[bytes] = []

                async def call(method: Any, results: list[bytes] = results) -> None:
                    results.append(await method(60 * KIB))

                async with trio.open_nursery() as nursery:
                    for _ in range(400):
                        nursery.start_soon(call, getattr(client.service("Busy"), name))
                assert list(map(len, results)) == [60 * KIB] * 400
                assert client.statistics().links == 1
