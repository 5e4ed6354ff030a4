"""What heartline relies on in a transport, as checks that the author of any transport can run.

They build on Trio's own (:func:`trio.testing.check_two_way_stream`) and add what a connection that lives for
days depends on: cancelling loses nothing, there is back pressure, the end comes after the data and wakes
every task that waits, and no task outlives what it serves.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

import trio
import trio.testing

from heartline.errors import ConnectionFailed
from heartline.testing._transport_tasks import TASK_CHECKS, Make, open_context
from heartline.transports import Listener, TransportContext, describe

__all__ = ["check_listener", "check_stream"]

MakePair = Callable[[TransportContext], Awaitable[tuple[trio.abc.Stream, trio.abc.Stream]]]
MakeListener = Callable[[TransportContext], Awaitable[Listener]]
OpenStream = Callable[[str, TransportContext], Awaitable[trio.abc.Stream]]
Connect = Callable[[str], Awaitable[trio.abc.Stream]]
T = TypeVar("T")

PATIENCE = 10.0
"""Seconds for each check: many times what loopback needs, so that a hang ends with a name."""

MANY = 4 * 1024 * 1024
"""Bytes of a large transfer: more than the common buffers hold."""

UNBOUNDED = 64 * 1024 * 1024
"""Bytes after which a sender whose peer does not read counts as unbounded; systems' buffers end far below."""

CLOGGED = 0.05
"""Seconds without room after which a stream counts as full; on loopback, room is there at once or never."""

CONNECTIONS = 20
"""Connections at the same time: enough that a listener which serves them in turn would be seen."""


async def check_stream(make_pair: MakePair, make_clogged: MakePair | None = None) -> None:
    """Check a transport's streams: Trio's rules, and what heartline needs beyond them.

    ``make_pair`` is called many times, with a context whose nursery is for the tasks that the transport
    needs; ``dataclasses.replace`` adds a TLS context or options. It returns two fresh connected streams,
    opening handshakes done. If they are half-closeable, that is checked too. ``make_clogged`` returns a pair
    that has no room for a single byte in either direction; without it, Trio's rules for such streams are not
    checked. Run this on the real clock or on one that jumps by itself, while nobody else starts tasks.

    The first rule that is broken raises ``AssertionError``, or lets the stream's own error out.
    """
    async with open_context() as context:
        pair = partial(make_pair, context)
        clogged = None if make_clogged is None else partial(make_clogged, context)
        first, second = await pair()
        half_closeable = isinstance(first, trio.abc.HalfCloseableStream)
        await _close(first, second)
        if half_closeable:
            await trio.testing.check_half_closeable_stream(pair, clogged)  # type: ignore[arg-type]
        else:
            await trio.testing.check_two_way_stream(pair, clogged)
        for check in _STREAM_CHECKS:
            for swap in (False, True):
                first, second = await pair()
                try:
                    with _deadline(check):
                        await check(*((second, first) if swap else (first, second)))
                finally:
                    await _close(first, second)
    await _check_tasks(make_pair)


async def check_listener(make_listener: MakeListener, open_stream: OpenStream) -> None:
    """Check a transport's listeners.

    ``make_listener`` opens a fresh one; ``open_stream`` gets its ``url``, does the opening handshake and
    raises :class:`~heartline.errors.ConnectionFailed` if nobody listens there. Both get a context, as in
    :func:`check_stream`.

    The first rule that is broken raises ``AssertionError``, or lets the listener's own error out.
    """
    async with open_context() as context:
        for check in _LISTENER_CHECKS:
            listener = await make_listener(context)
            try:
                with _deadline(check):
                    await check(listener, lambda url: open_stream(url, context))
            finally:
                await _close(listener)

    async def make(context: TransportContext) -> list[Listener]:
        return [await make_listener(context)]

    await _check_tasks(make)


async def _check_tasks(make: Make) -> None:
    for check in TASK_CHECKS:
        with _deadline(check):
            await check(make)


async def _check_transfer(first: trio.abc.Stream, second: trio.abc.Stream) -> None:
    """Much data in both directions at once, cut anywhere, arrives unchanged."""
    dice = random.Random(1)
    there, back = dice.randbytes(MANY), dice.randbytes(MANY)

    async def send(stream: trio.abc.Stream, data: bytes) -> None:
        start = 0
        while start < len(data):
            size = dice.choice((0, 1, 100, 5_000, 300_000))
            await stream.send_all(memoryview(data)[start : start + size])
            start += size

    async def receive(stream: trio.abc.Stream, expected: bytes) -> None:
        received = bytearray()
        while len(received) < len(expected):
            received += await stream.receive_some(dice.choice((10, 1_000, 100_000, None)))
        assert received == expected, "the bytes received are not those sent"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, first, there)
        nursery.start_soon(send, second, back)
        nursery.start_soon(receive, first, back)
        nursery.start_soon(receive, second, there)


async def _check_cancelled_receive(first: trio.abc.Stream, second: trio.abc.Stream) -> None:
    """A cancelled ``receive_some`` loses nothing."""
    sent = bytes(range(256)) * 8

    async def send() -> None:
        for number in range(0, len(sent), 16):
            await first.send_all(sent[number : number + 16])
            await trio.lowlevel.checkpoint()
        await first.aclose()

    async def receive() -> bytes | bytearray:
        try:
            return await second.receive_some(7)
        except trio.BrokenResourceError:
            return b""  # a stream that was cancelled while it told its end need not tell it again

    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while data := await _cancelled_soon(receive) or await receive():
            received += data
    assert received == sent, f"cancelled receives lost data: {len(received)} of {len(sent)} bytes arrived"


async def _check_end_after_data(first: trio.abc.Stream, second: trio.abc.Stream) -> None:
    """All that was sent before closing arrives, then the end."""
    data = bytes(30_000)
    async with trio.open_nursery() as nursery:

        async def send_and_close() -> None:
            await first.send_all(data)
            await first.aclose()

        nursery.start_soon(send_and_close)
        received = 0
        while chunk := await second.receive_some():
            received += len(chunk)
        assert received == len(data), f"{received} of {len(data)} bytes arrived before the end"


async def _check_end_wakes_receiver(first: trio.abc.Stream, second: trio.abc.Stream) -> None:
    """A receiver that waits is woken by its peer's closing, and by its own."""

    async def expect_end() -> None:
        assert await second.receive_some() == b"", "bytes came out of nowhere"

    async def expect_closed() -> None:
        with _expecting(trio.ClosedResourceError, "receive_some on a stream closed meanwhile"):
            await first.receive_some()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_end)
        nursery.start_soon(expect_closed)
        await trio.testing.wait_all_tasks_blocked()
        await first.aclose()


async def _check_back_pressure(first: trio.abc.Stream, second: trio.abc.Stream) -> None:
    """A sender whose peer does not read has to wait; when the peer reads again, it goes on."""
    sent = 0
    while await _has_room(first):
        assert sent < UNBOUNDED, f"{sent} bytes were sent, and nobody reads them: there is no back pressure"
        await first.send_all(bytes(1024))
        sent += 1024
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.wait_send_all_might_not_block)
        received = 0
        while received < sent:
            received += len(await second.receive_some())


async def _check_url(listener: Listener, connect: Connect) -> None:
    """The listener's URL leads to it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve_echo, listener)
        await _ask(listener.url, connect)
        nursery.cancel_scope.cancel()


async def _check_described(listener: Listener, connect: Connect) -> None:
    """After the first bytes a stream can be described, and says at least from where its peer is."""

    async def tell() -> None:
        async with await listener.accept() as stream:
            await stream.receive_some()
            assert describe(stream).address, "describe(stream).address is empty"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        async with await connect(listener.url) as stream:
            await stream.send_all(b"who am I?")
            await stream.receive_some()


async def _check_many(listener: Listener, connect: Connect) -> None:
    """Many may connect at the same time, and each gets a stream of its own."""
    async with trio.open_nursery() as serving:
        serving.start_soon(_serve_echo, listener)
        async with trio.open_nursery() as asking:
            for _ in range(CONNECTIONS):
                asking.start_soon(_ask, listener.url, connect)
        serving.cancel_scope.cancel()


async def _check_cancelled_accept(listener: Listener, connect: Connect) -> None:
    """A cancelled ``accept`` loses no connection."""
    for _ in range(CONNECTIONS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ask, listener.url, connect)
            await trio.testing.wait_all_tasks_blocked()
            accepted = await _cancelled_soon(listener.accept)
            await _echo(accepted or await listener.accept())


async def _check_close_wakes_accept(listener: Listener, connect: Connect) -> None:
    """Closing wakes a task in ``accept``, may be repeated, and nobody can connect after it."""

    async def expect_closed() -> None:
        with _expecting(trio.ClosedResourceError, "accept on a listener closed meanwhile"):
            await listener.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
    await listener.aclose()
    await expect_closed()
    with _expecting(ConnectionFailed, "connecting to a closed listener"):
        await connect(listener.url)


async def _check_streams_live_on(listener: Listener, connect: Connect) -> None:
    """Streams that were accepted outlive their listener."""
    async with trio.open_nursery() as nursery:
        handled = trio.Event()

        async def accept_one() -> None:
            stream = await listener.accept()
            await listener.aclose()
            handled.set()
            await _echo(stream)

        nursery.start_soon(accept_one)
        stream = await connect(listener.url)
        await handled.wait()
        await _check_echo(stream)


async def _serve_echo(listener: Listener) -> None:
    with suppress(trio.ClosedResourceError):
        await trio.serve_listeners(_echo, [listener])


async def _echo(stream: trio.abc.Stream) -> None:
    async with stream:
        while data := await stream.receive_some():
            await stream.send_all(data)


async def _ask(url: str, connect: Connect) -> None:
    await _check_echo(await connect(url))


async def _check_echo(stream: trio.abc.Stream) -> None:
    async with stream:
        question = b"is it you?"
        await stream.send_all(question)
        answer = bytearray()
        while len(answer) < len(question):
            chunk = await stream.receive_some()
            assert chunk, f"the stream ended after {bytes(answer)!r}"
            answer += chunk
        assert answer == question, f"sent {question!r} to an echo, got {bytes(answer)!r}"


async def _cancelled_soon(wait: Callable[[], Awaitable[T]]) -> T | None:
    """Call ``wait`` and cancel it at the same time: what comes out is its result or, after that, nothing."""

    async def cancel() -> None:
        await trio.lowlevel.checkpoint()
        racing.cancel_scope.cancel()

    async with trio.open_nursery() as racing:
        racing.start_soon(cancel)
        return await wait()
    return None


async def _has_room(stream: trio.abc.SendStream) -> bool:
    with trio.move_on_after(CLOGGED) as waiting:
        await stream.wait_send_all_might_not_block()
    return not waiting.cancelled_caught


async def _close(*streams: trio.abc.AsyncResource) -> None:
    for stream in streams:
        await trio.aclose_forcefully(stream)


@contextmanager
def _deadline(check: Callable[..., object]) -> Iterator[None]:
    """Make a hang an error that says what hung."""
    with trio.move_on_after(PATIENCE) as scope:
        yield
    assert not scope.cancelled_caught, f"hung for {PATIENCE} s: {check.__doc__}"


@contextmanager
def _expecting(error: type[Exception], what: str) -> Iterator[None]:
    try:
        yield
    except error:
        return
    raise AssertionError(f"{what} did not raise {error.__name__}")


_STREAM_CHECKS = (
    _check_transfer,
    _check_cancelled_receive,
    _check_end_after_data,
    _check_end_wakes_receiver,
    _check_back_pressure,
)
_LISTENER_CHECKS = (
    _check_url,
    _check_described,
    _check_many,
    _check_cancelled_accept,
    _check_close_wakes_accept,
    _check_streams_live_on,
)
