"""The conformance checks can fail: each is shown a transport that breaks just its rule."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from heartline.testing import MemoryNetwork, check_listener, check_stream, memory_pair
from heartline.testing import _conformance as conformance
from heartline.transports import Listener


class Wrapped(trio.abc.Stream):
    """A memory stream, not half-closeable, whose faults are in the subclasses."""

    def __init__(self, inner: trio.abc.HalfCloseableStream) -> None:
        self.inner = inner

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self.inner.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.inner.aclose()


class LosesOnCancel(Wrapped):
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await super().receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        return data


class Corrupts(Wrapped):
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await super().receive_some(max_bytes)
        return data if len(data) < 50_000 else data[::-1]


class EndsEarly(Wrapped):
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data if len(data) != 30_000 else data[:-1])


class Unbounded(Wrapped):
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) != 1024:
            await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()


class ConfusesClosedWithEnded(Wrapped):
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            return await super().receive_some(max_bytes)
        except trio.ClosedResourceError:
            return b""


class EndsNever(Wrapped):
    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def raises(kind: type[Exception], words: str | None = None) -> Any:
    """The one error of a check, whether nurseries have wrapped it or not."""
    return pytest.RaisesGroup(
        pytest.RaisesExc(kind, match=words), allow_unwrapped=True, flatten_subgroups=True
    )


async def check_with(faulty: type[Wrapped], check: Callable[..., Awaitable[None]]) -> None:
    first, second = memory_pair()
    with conformance._deadline(check):
        await check(faulty(first), faulty(second))


@pytest.mark.parametrize(
    ("faulty", "check", "words"),
    [
        (LosesOnCancel, conformance._check_cancelled_receive, "lost data"),
        (Corrupts, conformance._check_transfer, "not those sent"),
        (EndsEarly, conformance._check_end_after_data, "29999 of 30000"),
        (EndsNever, conformance._check_end_wakes_receiver, "hung for"),
        (ConfusesClosedWithEnded, conformance._check_end_wakes_receiver, "did not raise ClosedResource"),
        (EndsNever, conformance._check_end_after_data, "hung for"),
        pytest.param(Unbounded, conformance._check_back_pressure, "no back pressure", marks=pytest.mark.slow),
    ],
)
async def test_faulty_streams(
    faulty: type[Wrapped], check: Any, words: str, autojump_clock: trio.testing.MockClock
) -> None:
    await check_with(Wrapped, check)
    with raises(AssertionError, words):
        await check_with(faulty, check)


async def test_check_stream_runs_all(autojump_clock: trio.testing.MockClock) -> None:
    async def make_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        first, second = memory_pair()
        return EndsEarly(first), EndsEarly(second)

    with raises(AssertionError, "29999 of 30000"):
        await check_stream(make_pair)


class FaultyListener(trio.abc.Listener[trio.abc.Stream]):
    def __init__(self, inner: Listener) -> None:
        self.inner = inner

    async def accept(self) -> trio.abc.Stream:
        return await self.inner.accept()

    async def aclose(self) -> None:
        await self.inner.aclose()


class ServesOnlyOne(FaultyListener):
    served = 0

    async def accept(self) -> trio.abc.Stream:
        if self.served:
            await trio.sleep_forever()
        self.served += 1
        return await super().accept()


class LosesAccepted(FaultyListener):
    async def accept(self) -> trio.abc.Stream:
        stream = await super().accept()
        await trio.lowlevel.checkpoint()
        return stream


class StaysOpen(FaultyListener):
    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class TakesAllDown(FaultyListener):
    def __init__(self, inner: Listener) -> None:
        super().__init__(inner)
        self.streams: list[trio.abc.Stream] = []

    async def accept(self) -> trio.abc.Stream:
        self.streams.append(await super().accept())
        return self.streams[-1]

    async def aclose(self) -> None:
        await super().aclose()
        for stream in self.streams:
            await stream.aclose()


@pytest.mark.parametrize(
    ("faulty", "expected"),
    [
        (ServesOnlyOne, AssertionError),
        (LosesAccepted, AssertionError),
        (StaysOpen, AssertionError),
        (TakesAllDown, trio.ClosedResourceError),
    ],
)
async def test_faulty_listeners(
    faulty: type[FaultyListener], expected: type[Exception], autojump_clock: trio.testing.MockClock
) -> None:
    network = MemoryNetwork()

    async def make(kind: type[FaultyListener]) -> Listener:
        inner = network.listen()
        return Listener(kind(inner), inner.url)

    async def connect(url: str) -> trio.abc.Stream:
        return await network.connect(url.removeprefix("memory://"))

    await check_listener(lambda: make(FaultyListener), connect)
    with raises(expected):
        await check_listener(lambda: make(faulty), connect)
