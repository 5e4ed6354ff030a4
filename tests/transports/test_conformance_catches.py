"""The conformance checks can fail: each is shown a transport that breaks just its rule."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio

from heartline.testing import MemoryNetwork, check_listener, check_stream, memory_pair
from heartline.testing import _conformance as conformance
from heartline.transports import Listener, StreamInfo, TransportContext


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
        (Unbounded, conformance._check_back_pressure, "no back pressure"),
    ],
)
async def test_faulty_streams(
    faulty: type[Wrapped], check: Any, words: str, autojump_clock: trio.testing.MockClock
) -> None:
    await check_with(Wrapped, check)
    with raises(AssertionError, words):
        await check_with(faulty, check)


async def test_check_stream_runs_all(autojump_clock: trio.testing.MockClock) -> None:
    async def make_pair(_: TransportContext) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        first, second = memory_pair()
        return EndsEarly(first), EndsEarly(second)

    with raises(AssertionError, "29999 of 30000"):
        await check_stream(make_pair)


class WithTask(Wrapped):
    """A task serves it, and ends with it."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, context: TransportContext) -> None:
        super().__init__(inner)
        self.scope = trio.CancelScope()
        self.start(context)

    def start(self, context: TransportContext) -> None:
        context.nursery.start_soon(self.serve)

    async def serve(self) -> None:
        with self.scope:
            await trio.sleep_forever()

    async def aclose(self) -> None:
        self.scope.cancel()
        await super().aclose()


class HasItsTaskElsewhere(WithTask):
    def start(self, context: TransportContext) -> None:
        trio.lowlevel.spawn_system_task(self.serve)


class LeavesItsTask(WithTask):
    async def aclose(self) -> None:
        await self.inner.aclose()


class ClingsToItsTask(WithTask):
    async def serve(self) -> None:
        with trio.move_on_after(60, shield=True):
            await trio.sleep_forever()


async def pair_of(kind: type[WithTask], context: TransportContext) -> tuple[WithTask, WithTask]:
    first, second = memory_pair()
    return kind(first, context), kind(second, context)


@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        (HasItsTaskElsewhere, r"not in the context's nursery: .*serve, .*serve$"),
        (LeavesItsTask, "they live on when all is closed: .*serve"),
        (ClingsToItsTask, "hung for"),
    ],
)
async def test_faulty_tasks(
    faulty: type[WithTask], words: str, autojump_clock: trio.testing.MockClock
) -> None:
    await check_stream(partial(pair_of, WithTask))
    with pytest.raises(AssertionError, match=words):
        await check_stream(partial(pair_of, faulty))


async def test_faulty_tasks_of_listeners(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()

    async def make(start: Callable[[TransportContext], Any], context: TransportContext) -> Listener:
        start(context)
        return network.listen()

    async def connect(url: str, _: TransportContext) -> trio.abc.Stream:
        return await network.connect(url.removeprefix("memory://"))

    def leave_a_task(context: TransportContext) -> None:
        context.nursery.start_soon(trio.sleep_forever)

    def hide_a_task(_: TransportContext) -> None:
        trio.lowlevel.spawn_system_task(trio.sleep, 1)

    await check_listener(partial(make, lambda _: None), connect)
    with pytest.raises(AssertionError, match=r"live on when all is closed: .*sleep_forever"):
        await check_listener(partial(make, leave_a_task), connect)
    with pytest.raises(AssertionError, match=r"not in the context's nursery: .*sleep"):
        await check_listener(partial(make, hide_a_task), connect)


async def test_a_task_that_all_streams_share_is_no_leak(autojump_clock: trio.testing.MockClock) -> None:
    shared: list[trio.Nursery] = []

    async def make_pair(context: TransportContext) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        if context.nursery not in shared:
            shared.append(context.nursery)
            context.nursery.start_soon(trio.sleep_forever)
        return memory_pair()

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


class Mystery(Wrapped):
    def describe_peer(self) -> StreamInfo:
        return StreamInfo(address="")


class AcceptsMysteries(FaultyListener):
    async def accept(self) -> trio.abc.Stream:
        stream = await super().accept()
        assert isinstance(stream, trio.abc.HalfCloseableStream)
        return Mystery(stream)


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
        (AcceptsMysteries, AssertionError),
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

    async def connect(url: str, _: TransportContext) -> trio.abc.Stream:
        return await network.connect(url.removeprefix("memory://"))

    await check_listener(lambda _: make(FaultyListener), connect)
    with raises(expected):
        await check_listener(lambda _: make(faulty), connect)
