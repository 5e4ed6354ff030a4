"""Bounds: calls in progress on both sides, lengths of messages, and what small calls need not wait for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline import Limits, service
from heartline.errors import (
    InvalidArguments,
    LocalProtocolError,
    Overloaded,
    RemoteError,
)
from heartline.rpc._wire import Fault, encode_fault
from heartline.server import serve_stream
from heartline.testing import memory_pair
from heartline.wire import Frame, FrameType
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

    async def test_is_given_up_in_the_end(self, autojump_clock: MockClock) -> None:
        """Even refusals add up."""
        async with (
            heartline.open_server("memory://", limits=Limits(calls=1), heartbeat=QUIET) as server,
            raw_client(server.urls[0]) as bad,
        ):
            (served,) = server.connections.values()
            frames = [call_frame(number, "No.such") for number in range(1000)]
            for _ in range(1000):
                with trio.move_on_after(1) as stuck:
                    try:
                        await bad.send(*frames)
                    except trio.BrokenResourceError:
                        break
                assert not stuck.cancelled_caught, "it is read, or given up"
                await settle()
            await trio.sleep(5)
            assert served.link is None
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
                link = client.link
                assert link is not None
                link.session.outbox.size += 100 * MIB  # as if so much waited already
                scope.cancel()
                await trio.sleep(3)
                assert client.link is None

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


class TestLengths:
    async def test_arguments_longer_than_the_peer_accepts(self) -> None:
        limits = Limits(message_size=300 * KIB)
        async with open_pair(Busy(), server_limits=limits) as (client, _):
            busy = client.service("Busy")
            assert await busy.take(bytes(200 * KIB)) == 200 * KIB
            with pytest.raises(
                LocalProtocolError, match=r"the peer accepts 307200 bytes \(Limits\.message_size\)"
            ):
                await busy.take(bytes(300 * KIB))
            assert client.calls.idle
            assert await busy.quick() == 1

    @pytest.mark.parametrize("name", ["give", "give_later"])
    async def test_a_result_longer_than_the_caller_accepts(self, name: str) -> None:
        async with open_pair(Busy(), limits=Limits(message_size=300 * KIB), server_limits=Limits()) as (
            client,
            _,
        ):
            busy = client.service("Busy")
            with pytest.raises(RemoteError, match=r"Limits\.message_size") as info:
                await getattr(busy, name)(300 * KIB)
            assert info.value.type_name == "LocalProtocolError"
            assert await busy.quick() == 1

    @pytest.mark.parametrize("name", ["fail", "fail_later"])
    async def test_an_error_always_fits(self, name: str) -> None:
        """Into the smallest message that anybody may ask for."""

        class Error(Exception):
            pass

        Error.__name__ = "名" * 100_000

        @service
        class Fails:
            def fail(self) -> None:
                raise Error("字" * 100_000)

            async def fail_later(self) -> None:
                self.fail()

        async with open_pair(
            Fails(), limits=Limits(frame_size=2 * KIB, message_size=2 * KIB), server_limits=Limits()
        ) as (client, _):
            with pytest.raises(RemoteError) as info:
                await getattr(client.service("Fails"), name)()
            assert info.value.type_name == "名" * (256 // 3)
            assert str(info.value).endswith("字" * (1024 // 3))
            assert client.statistics().links == 1

    @pytest.mark.parametrize("name", ["quick", "give_later", "no_such"])
    async def test_a_peer_that_cannot_be_answered_loses_its_link(
        self, name: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And only that: the server goes on."""
        tiny = Limits()
        object.__setattr__(tiny, "message_size", 1)
        async with (
            heartline.open_server("memory://", services=[Busy()], heartbeat=QUIET) as server,
            raw_client(server.urls[0], limits=tiny) as bad,
        ):
            await bad.call(0, f"Busy.{name}", *([1] if name == "give_later" else []))
            await trio.sleep(5)
            assert not server.connections
            async with heartline.open_connection(server.urls[0], heartbeat=QUIET) as good:
                assert await good.service("Busy").quick() == 1
        assert "internal error" not in caplog.text

    @pytest.mark.slow
    @pytest.mark.parametrize("url", ["memory://", "tcp://127.0.0.1:0"])
    async def test_long_arrays_and_small_calls_at_once(self, url: str) -> None:
        async with open_pair(Busy(), url=url) as (client, _):
            busy = client.service("Busy")
            arrays = [np.arange(n, dtype=np.float64) for n in (10, 500_000, 1_000_000)]

            async def send(array: Any) -> None:
                result = await busy.double(array)
                np.testing.assert_array_equal(result, array * 2)
                result += 1

            async with trio.open_nursery() as nursery:
                for array in arrays:
                    nursery.start_soon(send, array)
                for _ in range(100):
                    assert await busy.quick() == 1


class Slowly(trio.abc.Stream):
    """A stream on a line of so many bytes a second."""

    def __init__(self, stream: trio.abc.Stream, rate: float) -> None:
        self._stream = stream
        self._rate = rate

    async def send_all(self, data: Any) -> None:
        for start in range(0, len(data), 16 * KIB):
            part = data[start : start + 16 * KIB]
            await trio.sleep(len(part) / self._rate)
            await self._stream.send_all(part)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self._stream.aclose()


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_small_calls_overtake_long_ones(direction: str, autojump_clock: MockClock) -> None:
    """On a line of 1 MB/s, 20 MB take 20 s; a small call in the middle of it takes a fraction of one."""
    here, there = memory_pair()
    line = Slowly(here, MIB) if direction == "up" else here
    async with trio.open_nursery() as nursery:
        url = await nursery.start(serve_one, Slowly(there, MIB) if direction == "down" else there)
        async with heartline.open_connection(line, heartbeat=QUIET) as client:
            busy = client.service("Busy")
            long = (busy.take, bytes(20 * MIB)) if direction == "up" else (busy.give, 20 * MIB)
            async with trio.open_nursery() as calls:
                calls.start_soon(*long)
                await trio.sleep(3)
                for _ in range(10):
                    start = trio.current_time()
                    assert await busy.quick() == 1
                    assert trio.current_time() - start < 1
            assert trio.current_time() == pytest.approx(20, rel=0.05)
        url.cancel()


async def serve_one(stream: trio.abc.Stream, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    """A server for one stream that is open already."""
    async with heartline.open_server("memory://", services=[Busy()], heartbeat=QUIET) as server:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await serve_stream(server, None, stream)


@service
class Checked:
    def number(self, value: int) -> int:
        return value


async def test_wrong_arguments_of_any_length_are_answered() -> None:
    """The text of the answer is bounded, whatever is in it."""
    async with open_pair(Checked()) as (client, _):
        with pytest.raises(InvalidArguments) as info:
            await client.service("Checked").number(**{"x" * 100_000: 1})
        assert len(str(info.value)) < 5000
