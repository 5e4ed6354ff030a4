"""Long arguments and results: their bounds, and what need not wait for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import Limits, service
from heartline.errors import (
    InvalidArguments,
    Outcome,
    RemoteError,
)
from heartline.server import Acceptor
from heartline.testing import memory_pair
from tests.engine import core_of
from tests.rpc.helpers import QUIET, open_pair, raw_client

KIB = 1024
MIB = 1024 * KIB


@service
class Busy:
    def give(self, size: int) -> bytes:
        return bytes(size)

    async def give_later(self, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(size)

    def take(self, data: bytes) -> int:
        return len(data)

    def double(self, array: Any) -> Any:
        array *= 2
        return array

    def quick(self) -> int:
        return 1


class TestLengths:
    async def test_arguments_longer_than_the_peer_accepts(self) -> None:
        limits = Limits(message_size=300 * KIB)
        async with open_pair(Busy(), server_limits=limits) as (client, _):
            busy = client.service("Busy")
            assert await busy.take(bytes(200 * KIB)) == 200 * KIB
            with pytest.raises(
                InvalidArguments,
                match=r"^Busy\.take .*the peer accepts 307200 bytes \(Limits\.message_size\)",
            ) as info:
                await busy.take(bytes(300 * KIB))
            assert info.value.outcome is Outcome.NOT_SENT
            assert core_of(client).idle
            assert await busy.quick() == 1

    @pytest.mark.parametrize("name", ["give", "give_later"])
    async def test_a_result_longer_than_the_caller_accepts(self, name: str) -> None:
        async with open_pair(Busy(), limits=Limits(message_size=300 * KIB), server_limits=Limits()) as (
            client,
            _,
        ):
            busy = client.service("Busy")
            with pytest.raises(RemoteError, match=r"its result: .*Limits\.message_size") as info:
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
            await Acceptor(server._table, None, {}).serve(stream, "memory://")


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
