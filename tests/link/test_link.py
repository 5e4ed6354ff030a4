"""The link: bytes in order through any stream, and nothing after its end, least of all to another file."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import ConnectionLost, Limits
from heartline.link import Link
from heartline.link._reading import read as read_link
from heartline.session import Role, Session
from heartline.session.session import Event
from heartline.testing import memory_pair
from heartline.wire import FrameType
from tests.connection.helpers import QUIET, settle

CALL = FrameType.CALL
LARGE = Limits(resume_window=0, write_buffer=1 << 26, memory=1 << 30)


def sessions() -> tuple[Session, Session]:
    """A client's and a server's session, hands shaken."""
    client, server = (Session(role, limits=LARGE, heartbeat=QUIET, now=0.0) for role in Role)
    client.hello()
    server.receive(b"".join(client.take(1 << 20, 0.0)), 0.0)
    server.welcome("x")
    client.receive(b"".join(server.take(1 << 20, 0.0)), 0.0)
    return client, server


def socket_pair(buffer: int = 4096) -> tuple[trio.SocketStream, trio.SocketStream]:
    pair = trio.socket.socketpair()
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    return trio.SocketStream(pair[0]), trio.SocketStream(pair[1])


def links(streams: tuple[trio.abc.Stream, trio.abc.Stream], nursery: trio.Nursery) -> tuple[Link, Link]:
    one, two = (
        Link(stream, session, nursery, write_buffer=1 << 26)
        for stream, session in zip(streams, sessions(), strict=True)
    )
    return one, two


class Odd(trio.abc.HalfCloseableStream):
    """A stream whose ``send_all`` does what the test says."""

    def __init__(self, inner: trio.abc.HalfCloseableStream) -> None:
        self.inner = inner
        self.error: BaseException | None = None
        self.sends = 0
        self.closed = False

    async def send_all(self, data: Any) -> None:
        assert not self.closed, "a write after the end"
        self.sends += 1
        if self.error is not None:
            raise self.error
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> Any:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.closed = True
        await self.inner.aclose()


# Bytes


@given(
    plan=st.lists(st.tuples(st.integers(4, 100_000), st.sampled_from(["flush", "nudge", "wait", "-"]))),
    kind=st.sampled_from(["socket", "memory"]),
)
def test_everything_arrives_in_order_whatever_the_stream_takes(plan: list[Any], kind: str) -> None:
    """Long and short messages of one key, through buffers that take a part of a write at a time."""

    async def main() -> None:
        messages = [number.to_bytes(4, "big") + bytes(size - 4) for number, (size, _) in enumerate(plan)]
        got: list[bytes] = []

        def handle(events: list[Event]) -> None:
            got.extend(bytes(event.payload) for event in events)  # type: ignore[union-attr]

        async def read(link: Link) -> None:
            try:
                await read_link(link, handle)
            except ConnectionLost:
                assert link.failure is not None  # it was closed here, below

        async with trio.open_nursery() as nursery:
            streams = socket_pair() if kind == "socket" else memory_pair(buffer_size=1000)
            sender, receiver = links(streams, nursery)
            nursery.start_soon(read, receiver)
            for message, (_, then) in zip(messages, plan, strict=True):
                sender.session.send(FrameType.PUSH, 0, 7, message)
                if then == "flush":
                    sender.flush()
                elif then == "nudge":
                    sender.nudge()
                elif then == "wait":
                    sender.nudge()
                    await trio.lowlevel.checkpoint()
            await sender.aclose(grace=10)
            while len(got) < len(messages):
                await trio.lowlevel.checkpoint()
            await receiver.aclose(grace=1)
        assert got == messages

    trio.run(main)


async def test_one_tick_is_one_write() -> None:
    async with trio.open_nursery() as nursery:
        here, there = memory_pair()
        odd = Odd(here)
        link, _ = links((odd, there), nursery)
        for number in range(50):
            link.session.send(CALL, 0, number, b"x")
            link.nudge()
        await settle()
        assert odd.sends == 1
        link.corked = True
        link.session.send(CALL, 0, 0, b"x")
        link.flush()
        link.nudge()
        await settle()
        assert odd.sends == 1
        await link.aclose(grace=1)


# Ends


@pytest.fixture
def another_file(tmp_path: Path) -> Iterator[Any]:
    """Opens files until one has the number of a closed socket; says what was written to it."""
    opened: list[int] = []
    path = tmp_path / "another"

    def take(number: int) -> Path:
        while number not in opened:
            opened.append(os.open(path, os.O_RDWR | os.O_CREAT))
        return path

    yield take
    for descriptor in opened:
        os.close(descriptor)


async def test_nothing_is_written_to_a_descriptor_that_was_given_back(another_file: Any) -> None:
    async with trio.open_nursery() as nursery:
        pair = socket_pair()
        number = pair[0].socket.fileno()
        link, _ = links(pair, nursery)
        link.session.send(CALL, 0, 1, b"before")
        link.flush()
        assert b"before" in await pair[1].receive_some()
        await link.aclose(grace=1)
        path = another_file(number)
        for _ in range(3):
            link.session.send(CALL, 0, 1, b"secret")
            link.flush()
            link.nudge()
            await settle()
        await link.aclose(grace=1)
        assert path.read_bytes() == b""
        assert await pair[1].receive_some() == b""
        await pair[1].aclose()


async def test_nor_while_the_rest_of_a_write_waits(another_file: Any) -> None:
    """The kernel took a part; the writer has the rest when the link ends."""
    async with trio.open_nursery() as nursery:
        pair = socket_pair()
        number = pair[0].socket.fileno()
        link, _ = links(pair, nursery)
        for call in range(1000):
            link.session.send(CALL, 0, call, bytes(1000))
        link.flush()
        await settle()
        assert link.backlog > 500_000
        link.fail(ConnectionLost("over"))
        await link.aclose(grace=1)
        path = another_file(number)
        link.flush()
        link.nudge()
        await settle()
        assert path.read_bytes() == b""
        await pair[1].aclose()


async def test_nothing_is_read_from_a_descriptor_that_was_given_back(
    another_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer's bytes have woken the reader, and the link is closed before it can run."""
    got: list[Any] = []
    wait_readable = trio.lowlevel.wait_readable
    async with trio.open_nursery() as nursery:
        pair = socket_pair()
        number = pair[0].socket.fileno()
        link, _ = links(pair, nursery)

        async def close_just_before_it_runs(fd: int) -> None:
            await wait_readable(fd)
            await link.aclose(grace=1)
            another_file(number).write_bytes(b"\0\0\0\0\x20\0\0\0\0\0\0\1")

        monkeypatch.setattr(trio.lowlevel, "wait_readable", close_just_before_it_runs)
        await pair[1].send_all(b"\0\0\0\0\x20\0\0\0\0\0\0\2")
        await read_link(link, got.extend)
        await pair[1].aclose()
    assert got == []


async def test_a_stream_that_is_closed_outside_ends_the_link(another_file: Any) -> None:
    async with trio.open_nursery() as nursery:
        pair = socket_pair()
        link, _ = links(pair, nursery)
        async with trio.open_nursery() as inner:

            @inner.start_soon
            async def read() -> None:
                with pytest.raises(ConnectionLost, match="broke while reading"):
                    await read_link(link, lambda events: None)

            await settle()
            await pair[0].aclose()
        await link.aclose(grace=1)
        await pair[1].aclose()


@pytest.mark.parametrize("when", ["never written", "not started", "parked", "sending"])
async def test_no_writer_is_left(when: str, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        here, there = memory_pair(buffer_size=100)
        link, _ = links((here, there), nursery)
        if when == "not started":
            link.session.send(CALL, 0, 1, b"x")
            link.nudge()
        elif when != "never written":
            link.session.send(CALL, 0, 1, bytes(10 if when == "parked" else 1000))
            link.nudge()
            await settle()
            assert len(nursery.child_tasks) == 1
        link.fail(ConnectionLost("over"))
        await link.aclose(grace=1)
        link.nudge()
        await settle()
        assert not nursery.child_tasks
    assert trio.current_time() == 0


@pytest.mark.parametrize("cancelled", [False, True])
async def test_closing_waits_for_a_stuck_peer_no_longer_than_the_grace(
    cancelled: bool, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        here, there = memory_pair(buffer_size=100)
        link, _ = links((here, there), nursery)
        link.session.send(CALL, 0, 1, bytes(1000))
        link.nudge()
        await settle()
        with trio.CancelScope() as scope:
            if cancelled:
                scope.cancel()
            await link.aclose(grace=2)
        assert trio.current_time() == 2
        await settle()
        assert not nursery.child_tasks
        with pytest.raises(trio.ClosedResourceError):
            await here.send_all(b"x")


async def test_closing_writes_what_is_queued(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        here, there = memory_pair(buffer_size=100)
        link, _ = links((here, there), nursery)
        for number in range(20):
            link.session.send(CALL, 0, number, bytes(100))
        received = bytearray()

        @nursery.start_soon
        async def slow() -> None:
            while data := await there.receive_some(200):
                received.extend(data)
                await trio.sleep(0.01)

        await link.aclose(grace=1)
        await settle()
        await trio.sleep(1)
        assert len(received) == 20 * 112


async def test_a_write_that_breaks_ends_the_link() -> None:
    async with trio.open_nursery() as nursery:
        here, there = memory_pair()
        link, _ = links((here, there), nursery)
        there.close()
        link.session.send(CALL, 0, 1, b"x")
        link.nudge()
        await settle()
        assert isinstance(link.loss, ConnectionLost)
        assert link.scope.cancel_called
        await link.aclose(grace=1)
        with pytest.raises(ConnectionLost):
            await link.wait(0, lambda: True)


async def test_a_socket_that_breaks_ends_the_link() -> None:
    async with trio.open_nursery() as nursery:
        pair = socket_pair()
        link, _ = links(pair, nursery)
        await pair[1].aclose()
        for _ in range(3):
            link.session.send(CALL, 0, 1, b"x")
            link.flush()
        assert isinstance(link.loss, ConnectionLost)
        assert "Broken pipe" in str(link.loss)
        await link.aclose(grace=1)


async def test_a_stream_with_a_bug_ends_only_its_link(caplog: pytest.LogCaptureFixture) -> None:
    async with trio.open_nursery() as nursery:
        here, there = memory_pair()
        odd = Odd(here)
        link, _ = links((odd, there), nursery)
        odd.error = ZeroDivisionError()
        link.session.send(CALL, 0, 1, b"x")
        link.nudge()
        await settle()
        assert isinstance(link.failure, ConnectionLost)
        await link.aclose(grace=1)
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize(
    ("error", "level"), [(ZeroDivisionError, logging.ERROR), (trio.BrokenResourceError, logging.DEBUG)]
)
async def test_a_stream_that_raises_while_it_closes(
    error: type[Exception], level: int, caplog: pytest.LogCaptureFixture
) -> None:
    class Sore(Odd):
        async def aclose(self) -> None:
            await super().aclose()
            raise error

    caplog.set_level(logging.DEBUG)

    async with trio.open_nursery() as nursery:
        here, there = memory_pair()
        link, _ = links((Sore(here), there), nursery)
        await link.aclose(grace=1)
        assert await there.receive_some() == b""
    (record,) = caplog.records
    assert record.levelno == level
    assert (record.exc_info is not None) == (level == logging.ERROR), "no traceback for what a peer did"


async def test_an_end_inside_a_frame_is_a_loss_and_no_mischief() -> None:
    async with trio.open_nursery() as nursery:
        here, there = memory_pair()
        link, _ = links((here, there), nursery)
        await there.send_all(b"\0\0\0\5\x20")
        there.close()
        with pytest.raises(ConnectionLost, match="inside a frame"):
            await read_link(link, lambda events: None)
        await link.aclose(grace=1)
