"""Whatever a stream or a listener raises, whenever: it ends that stream, and never the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline import Backoff, HeartlineError, Limits, Server
from heartline.testing import MemoryNetwork
from heartline.transports import Listener
from heartline.transports.memory import use_network
from tests.engine import core_of, link_of
from tests.opening import open_stream

from ..connection.helpers import QUIET, run, settle


@heartline.service
class Echo:
    """A service that an honest client uses meanwhile."""

    def echo(self, value: str) -> str:
        return value


class Panic(BaseException):
    """As extensions written in Rust raise it."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("a bug of the stream"),
    "OSError": lambda: OSError(5, "an error of the system"),
    "BrokenResourceError": lambda: trio.BrokenResourceError("as it should be"),
    "EndOfChannel": lambda: trio.EndOfChannel(),
    "a group": lambda: ExceptionGroup("two", [ValueError("one"), OSError("other")]),
    "HeartlineError": lambda: HeartlineError("one of ours"),
    "CancelledError": lambda: asyncio.CancelledError("of another event loop"),
    "a panic": lambda: Panic("of an extension"),
    "a group with a panic": lambda: BaseExceptionGroup("two", [Panic("one"), OSError("other")]),
}


class FaultyStream(trio.abc.Stream):
    """A stream whose calls raise ``make_error()`` from the ``first`` on, ``count`` times."""

    def __init__(
        self, inner: trio.abc.Stream, make_error: Callable[[], BaseException], first: int, count: float
    ) -> None:
        self._inner = inner
        self._make_error = make_error
        self._first = first
        self._end = first + count
        self._calls = 0

    async def _call(self) -> None:
        number, self._calls = self._calls, self._calls + 1
        if self._first <= number < self._end:
            await trio.lowlevel.checkpoint()
            raise self._make_error()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        await self._call()
        return await self._inner.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._call()
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._call()
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        try:
            await self._call()
        finally:
            await self._inner.aclose()


class FaultyListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener that spoils what it accepts while it is told to."""

    def __init__(self, inner: Listener) -> None:
        self._inner = inner
        self.spoil: Callable[[trio.abc.Stream], trio.abc.Stream] | None = None

    async def accept(self) -> trio.abc.Stream:
        stream = await self._inner.accept()
        return stream if self.spoil is None else self.spoil(stream)

    async def aclose(self) -> None:
        await self._inner.aclose()


class FaultyNetwork:
    """A network in memory with a :class:`FaultyListener`."""

    def __init__(self) -> None:
        self._network = MemoryNetwork()
        self.listener: FaultyListener

    def listen(self, name: str = "", *, backlog: int = 128) -> Listener:
        inner = self._network.listen(name, backlog=backlog)
        self.listener = FaultyListener(inner)
        return Listener(self.listener, inner.url)

    async def connect(self, name: str) -> trio.abc.Stream:
        return await self._network.connect(name)


async def talk(server: Server, *, cut: bool) -> None:
    """A client like any other, which loses its link in the middle or says goodbye."""
    again = Backoff(initial=0.01, maximum=0.1, attempts=3)
    async with heartline.open_connection(server.urls[0], heartbeat=QUIET, reconnect=again) as connection:
        assert await heartline.remote(connection.service(Echo).echo)("a") == "a"
        if cut and core_of(connection).link is not None:
            await link_of(connection).stream.aclose()
        assert await heartline.remote(connection.service(Echo).echo)("b") == "b"


async def babble(server: Server, words: bytes) -> None:
    """A peer that speaks another protocol, and waits for an answer."""
    async with await open_stream(server.urls[0]) as stream:
        await stream.send_all(words)
        while await stream.receive_some():
            pass


PEERS: dict[str, Callable[[Server], object]] = {
    "a client": partial(talk, cut=False),
    "a client that is cut off": partial(talk, cut=True),
    "garbage": partial(babble, words=b"HEAD / HTTP/1.1\r\n\r\n"),
    "half a frame": partial(babble, words=b"\0\0"),
    "nothing": partial(babble, words=b""),
}


async def visit(server: Server, name: str) -> None:
    """Let one of ``PEERS`` try, whatever becomes of it."""
    with trio.move_on_after(30):
        try:
            await PEERS[name](server)  # type: ignore[misc]
        except (HeartlineError, trio.BrokenResourceError):
            pass  # its stream was spoilt


async def check_alive(server: Server) -> None:
    """An honest client gets in and is served."""
    async with heartline.open_connection(server.urls[0], heartbeat=QUIET) as connection:
        assert await heartline.remote(connection.service(Echo).echo)("fine") == "fine"


@given(
    error=st.sampled_from(sorted(ERRORS)),
    peers=st.lists(st.sampled_from(sorted(PEERS)), min_size=1, max_size=3),
    first=st.integers(0, 12),
    count=st.sampled_from([1, 2, float("inf")]),
    handshakes=st.integers(0, 4),
    resume_window=st.sampled_from([0.0, 5.0]),
)
def test_a_stream_that_raises_ends_alone(
    error: str, peers: list[str], first: int, count: float, handshakes: int, resume_window: float
) -> None:
    async def main() -> None:
        network = FaultyNetwork()
        use_network(network)
        limits = Limits(handshakes=max(1, handshakes), resume_window=resume_window)
        async with heartline.open_server(
            "memory://", services=[Echo()], limits=limits, heartbeat=QUIET
        ) as server:
            async with heartline.open_connection(server.urls[0], heartbeat=QUIET) as bystander:
                network.listener.spoil = lambda stream: FaultyStream(stream, ERRORS[error], first, count)
                async with trio.open_nursery() as nursery:
                    for name in peers:
                        nursery.start_soon(visit, server, name)
                network.listener.spoil = None
                await check_alive(server)
                assert await heartline.remote(bystander.service(Echo).echo)("fine") == "fine"
                assert bystander.statistics().links == 1
            await trio.sleep(10)  # whoever was lost is given up
            assert server.statistics().handshaking == 0
            assert not server.connections

    run(main)


@pytest.mark.parametrize("error", ERRORS)
async def test_a_listener_that_raises_goes_on(error: str, autojump_clock: MockClock) -> None:
    """As one does that shakes hands inside of ``accept``: what fails there is one stream."""
    network = FaultyNetwork()
    use_network(network)

    def fail(stream: trio.abc.Stream) -> trio.abc.Stream:
        stream.close()  # type: ignore[attr-defined]
        raise ERRORS[error]()

    async with heartline.open_server("memory://", services=[Echo()]) as server:
        network.listener.spoil = fail
        await visit(server, "a client")
        await visit(server, "nothing")
        network.listener.spoil = None
        await check_alive(server)


async def test_a_listener_that_is_closed_outside_ends_the_server(autojump_clock: MockClock) -> None:
    """Nobody could ever connect again: that is nothing to be quiet about."""
    network = FaultyNetwork()
    use_network(network)
    with pytest.raises(trio.ClosedResourceError):
        async with heartline.open_server("memory://"):
            await network.listener.aclose()
            await trio.sleep(10)


@pytest.mark.parametrize("passing", [KeyboardInterrupt, SystemExit])
async def test_what_is_meant_for_the_program_passes(
    passing: type[BaseException], autojump_clock: MockClock
) -> None:
    network = FaultyNetwork()
    use_network(network)
    with pytest.raises(passing):
        async with heartline.open_server("memory://") as server:
            network.listener.spoil = lambda stream: FaultyStream(stream, passing, 0, 1)
            await visit(server, "nothing")
            await trio.sleep(10)


async def test_a_write_that_fails_while_it_is_cancelled_ends_alone(autojump_clock: MockClock) -> None:
    """A stream with tasks of its own may raise an error beside the cancellation."""

    class Group(FaultyStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            if self._calls < self._first:
                await super().send_all(data)
                return
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def fail() -> None:
                    try:
                        await trio.sleep_forever()
                    finally:
                        raise ValueError("a bug of the stream")

                await trio.sleep_forever()

    network = FaultyNetwork()
    use_network(network)
    async with heartline.open_server("memory://", services=[Echo()], heartbeat=QUIET) as server:
        network.listener.spoil = lambda stream: Group(stream, ValueError, 3, 0)
        with trio.move_on_after(5):
            async with heartline.open_connection(server.urls[0], reconnect=None, heartbeat=QUIET) as client:
                await heartline.remote(client.service(Echo).echo)("a")
        network.listener.spoil = None
        await settle()
        await check_alive(server)


async def test_a_listener_that_fails_while_it_is_cancelled(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error stands beside the cancellation of the server: it is logged, and the end is no failure."""
    network = FaultyNetwork()
    use_network(network)

    async def accept() -> trio.abc.Stream:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            raise BaseExceptionGroup("both", [ValueError("a bug of the listener"), cancelled]) from None
        raise AssertionError

    with trio.move_on_after(5) as scope:
        async with heartline.open_server("memory://") as server:
            network.listener.accept = accept  # type: ignore[method-assign]
            async with await open_stream(server.urls[0]):  # the present accept returns, the next one is ours
                await trio.sleep_forever()
    assert scope.cancelled_caught
    assert "a bug of the listener" in caplog.text
