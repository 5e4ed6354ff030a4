"""One live stream and the session on it: the only place that moves bytes.

The reader task takes what the stream has, decodes all of it, lets every frame be handled, and only then
writes, once, what the handlers queued (it is *corked* meanwhile). Where the stream is a plain socket the
bytes are handed to the kernel directly, without a task switch; what the kernel does not take at once, and
everything on other streams, goes through a writer task, which exists from the first time it is needed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import trio

from heartline.errors import ConnectionLost, HeartlineError, RemoteProtocolError
from heartline.session import Session
from heartline.session.outbox import Buffer
from heartline.session.session import Event

__all__ = ["Link"]

logger = logging.getLogger("heartline")

READ_SIZE = 256 * 1024
"""Bytes per read: a whole burst of small frames, or one large frame, in one system call."""

BURST = 256 * 1024
"""Bytes of fragments per write: what a control frame has to wait for at most."""

SLICE = 16
"""Frames that are handled between two writes: while this side works on the next slice, the peer already works
on the answers to the last one."""

Handle = Callable[[list[Event]], None]


class Link:
    """Moves bytes between one stream and one session."""

    __slots__ = (
        "_drained",
        "_fd",
        "_nursery",
        "_parked",
        "_torn",
        "_unwritten",
        "_writer_scope",
        "_writing",
        "corked",
        "failure",
        "scope",
        "session",
        "stream",
        "watch",
        "write_buffer",
    )

    def __init__(
        self, stream: trio.abc.Stream, session: Session, nursery: trio.Nursery, *, write_buffer: int
    ) -> None:
        self.stream: trio.abc.Stream = stream
        self.session: Session = session
        self.write_buffer: int = write_buffer
        self.corked: bool = False
        self.failure: HeartlineError | None = None
        """Why the link ended, as far as this side knows."""
        self.scope: trio.CancelScope = trio.CancelScope()
        """The reader runs in it: moving its deadline is how a link is told to end."""
        self.watch: int = -1
        """The heartbeat timer's number for this link."""
        self._fd = stream.socket.fileno() if type(stream) is trio.SocketStream else -1
        self._nursery = nursery
        self._parked: trio.lowlevel.Task | None = None
        self._writing = False
        self._torn = False
        """A write was cancelled half way: nothing that follows would be understood."""
        self._writer_scope: trio.CancelScope | None = None
        self._unwritten: bytes | memoryview = b""
        self._drained: trio.lowlevel.ParkingLot | None = None

    # Writing

    def nudge(self) -> None:
        """Write what is queued when this tick is over, joined with whatever else it brings."""
        if self.corked or self._writing:
            return
        if self._parked is not None:
            task, self._parked = self._parked, None
            self._writing = True
            trio.lowlevel.reschedule(task)
        elif self.failure is None:
            self._writing = True
            self._nursery.start_soon(self._write_loop)

    def flush(self) -> None:
        """Write what is queued now if the stream takes it without waiting."""
        if self.corked or self._writing or not self.session.has_output:
            return
        if self._fd < 0 or self.failure is not None:
            self.nudge()
            return
        data = _join(self.session.take(BURST, trio.current_time()))
        try:
            sent = os.write(self._fd, data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.fail(ConnectionLost(f"the link broke while writing: {error}"))
            return
        if sent < len(data):
            self._unwritten = memoryview(data)[sent:]
            self.nudge()
        elif self.session.outbox.has_turns:
            self.nudge()
        else:
            self.wake_drained()

    async def _write_loop(self) -> None:
        """The writer task: waits for the stream, so that nobody else has to."""
        with trio.CancelScope() as self._writer_scope:
            try:
                while True:
                    try:
                        if self.failure is None:
                            await self._write_all()
                    finally:
                        # Only here: cancelled while it is parked, it must not speak for another writer.
                        self._writing = False
                        self.wake_drained()
                    if self.failure is not None:
                        return
                    await self._park()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.fail(ConnectionLost(f"the link broke while writing: {error.__cause__ or error}"))
            except HeartlineError as error:
                self.fail(error)
            except Exception:
                # As in Connection.run_link: a bug met on one link must not end the others.
                logger.exception("internal error while writing")
                self.fail(ConnectionLost("internal error, see the log"))

    async def _write_all(self) -> None:
        while data := self._unwritten or _join(self.session.take(BURST, trio.current_time())):
            self._unwritten = data  # it counts as waiting until the stream has it
            self._torn = True
            await self.stream.send_all(data)
            self._torn, self._unwritten = False, b""
            self.wake_drained()

    async def _park(self) -> None:
        self._parked = trio.lowlevel.current_task()

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    @property
    def backlog(self) -> int:
        """Bytes that wait for the peer to read."""
        return self.session.outbox.size + len(self._unwritten)

    @property
    def crowded(self) -> bool:
        """Whether senders should wait before they queue more.

        Long messages do not count: each sender has one at most, and small ones pass them.
        """
        return self.session.outbox.small + len(self._unwritten) >= self.write_buffer

    async def wait_drained(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` no longer holds; it is looked at after each write and each read.

        Raises :class:`ConnectionLost` when the link ends first.
        """
        while self.failure is None and condition():
            if self._drained is None:
                self._drained = trio.lowlevel.ParkingLot()
            await self._drained.park()
        if self.failure is not None:
            raise ConnectionLost("the link ended while the message waited for the peer") from self.failure

    def wake_drained(self) -> None:
        """Let who waits in :meth:`wait_drained` look again."""
        if self._drained is not None:
            self._drained.unpark_all()

    # Reading

    async def read(self, handle: Handle) -> None:
        """Read and handle until the peer ends the stream; protocol errors are raised."""
        if self.session.failed:  # behind the handshake, in the same bytes
            self.session.receive(b"", trio.current_time())
        if self._fd >= 0:
            await self._read_socket(handle)
        else:
            await self._read_stream(handle)
        self._receive_eof()

    def _receive_eof(self) -> None:
        """The stream has ended: inside a frame that is no mischief, its sender was cut off too."""
        try:
            self.session.receive_eof()
        except RemoteProtocolError as error:
            raise ConnectionLost(str(error)) from None

    async def receive(self) -> list[Event]:
        """The events of one read, for the handshake; none when the peer ended the stream."""
        events: list[Event] = []
        while not events:
            try:
                data = await self.stream.receive_some(READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionLost(
                    f"the link broke in the handshake: {error.__cause__ or error}"
                ) from error
            if not data:
                self._receive_eof()
                return []
            events = self.session.receive(bytes(data), trio.current_time())
        return events

    async def _read_socket(self, handle: Handle) -> None:
        fd = self._fd
        while True:
            try:
                await trio.lowlevel.wait_readable(fd)
                if self.failure is not None:
                    return  # the descriptor may have been closed meanwhile, and be another file's
                data = os.read(fd, READ_SIZE)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError) as error:
                raise ConnectionLost(f"the link broke while reading: {error}") from error
            if not data:
                return
            self._received(data, handle)

    async def _read_stream(self, handle: Handle) -> None:
        while True:
            try:
                data = await self.stream.receive_some(READ_SIZE)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ConnectionLost(f"the link broke while reading: {error.__cause__ or error}") from error
            if not data:
                return
            self._received(bytes(data), handle)

    def _received(self, data: bytes, handle: Handle) -> None:
        events = self.session.receive(data, trio.current_time())
        if self.session.failed:
            self._handle(events, handle)
            events = self.session.receive(b"", trio.current_time())
        for start in range(0, len(events), SLICE):
            self._handle(events[start : start + SLICE] if len(events) > SLICE else events, handle)
        self.flush()  # also what the session answers by itself, such as a PONG
        self.wake_drained()

    def _handle(self, events: list[Event], handle: Handle) -> None:
        self.corked = True
        try:
            handle(events)
        finally:
            self.corked = False
        self.flush()

    # The end

    def fail(self, error: HeartlineError) -> None:
        """End the link for this reason; the reader's scope is cancelled."""
        if self.failure is None:
            self.failure = error
        self.scope.cancel()

    def withdraw(self, frame_type: int) -> set[int]:
        """Take back the queued messages of this type of which the peer cannot have seen a byte; their ids."""
        return self.session.outbox.withdraw(frame_type)

    async def aclose(self, *, grace: float) -> None:
        """Write what is queued and close the stream, all within ``grace`` seconds, even when cancelled."""
        self.wake_drained()
        deadline = trio.current_time() + grace
        with trio.CancelScope(shield=True, deadline=deadline):
            try:
                await self.wait_drained(lambda: self._writing)
                self._writing = True  # from now on this is the writer
                if not self._torn:
                    await self._write_all()
            except (HeartlineError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # what could not be written is lost with the link; the close goes on
        if self.failure is None:
            self.failure = ConnectionLost("the link was closed")
        if self._writer_scope is not None:
            self._writer_scope.cancel()
        self.wake_drained()
        with trio.CancelScope(shield=True, deadline=deadline):
            try:
                await self.stream.aclose()
            except Exception:
                # A stream closes even when it raises, and its error must not end the other connections.
                logger.warning("the stream of a link raised while it was closed", exc_info=True)


def _join(buffers: list[Buffer]) -> bytes:
    if len(buffers) == 1 and type(buffers[0]) is bytes:
        return buffers[0]
    return b"".join(buffers)
