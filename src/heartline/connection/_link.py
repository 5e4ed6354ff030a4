"""A session and the stream that it has at the moment: the only place that moves bytes.

A link lives as long as its session. It is *up* while it has a stream; when that is lost it goes down, and
with another one it comes up again. Whoever queues messages need not know: they wait in the session meanwhile.

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

__all__ = ["Link", "Turn", "close_stream"]

logger = logging.getLogger("heartline")

READ_SIZE = 256 * 1024
"""Bytes per read: a whole burst of small frames, or one large frame, in one system call."""

BURST = 256 * 1024
"""Bytes of fragments per write: what a control frame has to wait for at most."""

SLICE = 16
"""Frames that are handled between two writes: while this side works on the next slice, the peer already works
on the answers to the last one."""

Handle = Callable[[list[Event]], None]


class Turn:
    """A new stream's wait for the one before it to be given up."""

    __slots__ = ("_ended", "granted")

    def __init__(self) -> None:
        self._ended = trio.Event()
        self.granted: bool = False
        """Whether the link is now for the new stream's task to serve."""

    def end(self, *, granted: bool) -> None:
        """The wait is over."""
        self.granted = granted
        self._ended.set()

    async def wait(self) -> bool:
        """Wait for the end of it; tells whether the turn was granted."""
        await self._ended.wait()
        return self.granted


class Link:
    """Moves bytes between one session and its stream."""

    __slots__ = (
        "_drained",
        "_fd",
        "_nursery",
        "_parked",
        "_torn",
        "_turn",
        "_unwritten",
        "_writer_scope",
        "_writing",
        "corked",
        "failure",
        "loss",
        "on_room",
        "scope",
        "session",
        "stream",
        "up",
        "watch",
        "write_buffer",
    )

    def __init__(
        self, stream: trio.abc.Stream, session: Session, nursery: trio.Nursery, *, write_buffer: int
    ) -> None:
        self.session: Session = session
        self.write_buffer: int = write_buffer
        self.corked: bool = False
        self.failure: HeartlineError | None = None
        """Why the session cannot go on, as far as this side knows."""
        self.watch: int = -1
        """The heartbeat timer's number for this link."""
        self.on_room: Callable[[Link], None] | None = None
        """Called once when there is room again, for whoever gives the link only what it has room for."""
        self._nursery = nursery
        self._turn: Turn | None = None
        self._parked: trio.lowlevel.Task | None = None
        self._writing = False
        self._writer_scope: trio.CancelScope | None = None
        self._drained: trio.lowlevel.ParkingLot | None = None
        self.come_up(stream)

    def come_up(self, stream: trio.abc.Stream) -> None:
        """Use this stream from now on."""
        self.stream: trio.abc.Stream = stream
        self.up: bool = True
        self.loss: HeartlineError | None = None
        """Why the stream is not used any more."""
        self.scope: trio.CancelScope = trio.CancelScope()
        """The reader runs in it: moving its deadline is how a link is told to end."""
        self._fd = stream.socket.fileno() if type(stream) is trio.SocketStream else -1
        self._torn = False
        """A write was cancelled half way: nothing that follows would be understood."""
        self._unwritten: bytes | memoryview = b""
        self.wake_drained()

    # Writing

    @trio.lowlevel.enable_ki_protection
    def nudge(self) -> None:
        """Write what is queued when this tick is over, joined with whatever else it brings."""
        if self.corked or self._writing or not self.up:
            return
        if self._parked is not None:
            task, self._parked = self._parked, None
            self._writing = True
            trio.lowlevel.reschedule(task)
        else:
            self._writing = True
            self._nursery.start_soon(self._write_loop)

    @trio.lowlevel.enable_ki_protection
    def flush(self) -> None:
        """Write what is queued now if the stream takes it without waiting."""
        if self.corked or self._writing or not self.up or not self.session.has_output:
            return
        if self._fd < 0:
            self.nudge()
            return
        data = _join(self.session.take(BURST, trio.current_time()))
        try:
            sent = os.write(self._fd, data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.lose(ConnectionLost(f"the link broke while writing: {error}"))
            return
        if sent < len(data):
            self._unwritten = memoryview(data)[sent:]
            self.nudge()
        elif self.session.has_turns:
            self.nudge()
        else:
            self.wake_drained()

    # Ctrl-C in the middle of a write would tear the stream, and no goodbye could follow. So it is for the
    # main task.
    @trio.lowlevel.enable_ki_protection
    async def _write_loop(self) -> None:
        """The writer task: waits for the stream, so that nobody else has to."""
        try:
            # Inside of ``try``: a stream with tasks of its own may raise an error beside the cancellation.
            with trio.CancelScope() as self._writer_scope:
                await self._write_on()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.lose(ConnectionLost(f"the link broke while writing: {error.__cause__ or error}"))
        except HeartlineError as error:
            self.fail(error)
        except Exception:
            # As in serve_link: a bug met on one link must not end the others.
            logger.exception("internal error while writing")
            self.fail(ConnectionLost("internal error, see the log"))

    async def _write_on(self) -> None:
        while True:
            try:
                if self.up:
                    await self._write_all()
            finally:
                # Only here: cancelled while it is parked, it must not speak for another writer.
                self._writing = False
                self.wake_drained()
            if not self.up:
                return
            await self._park()

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

        Raises :class:`ConnectionLost` when the session ends first.
        """
        while self.failure is None and condition():
            await self._wait_drained()
        if self.failure is not None:
            raise ConnectionLost("the session ended while the message waited for the peer") from self.failure

    async def _wait_drained(self) -> None:
        if self._drained is None:
            self._drained = trio.lowlevel.ParkingLot()
        await self._drained.park()

    def wake_drained(self) -> None:
        """Let who waits in :meth:`wait_drained` look again, and call for more if there is room."""
        if self._drained is not None:
            self._drained.unpark_all()
        if self.on_room is not None and self.failure is None and not self.crowded:
            on_room, self.on_room = self.on_room, None
            on_room(self)

    # Reading

    async def read(self, handle: Handle) -> None:
        """Read and handle until the peer ends the stream; protocol errors are raised."""
        if self.session.holds_back or self.session.failed:  # behind the handshake, in the same bytes
            self._received(b"", handle)
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

    async def _read_socket(self, handle: Handle) -> None:
        fd = self._fd
        while True:
            try:
                await trio.lowlevel.wait_readable(fd)
                if not self.up:
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
            if not data or not self.up:  # lost meanwhile: what came is sent again on the next stream
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

    # The end of a stream, and of the session

    def lose(self, error: HeartlineError) -> None:
        """The stream is not to be used any more, for this reason; the reader's scope is cancelled."""
        if self.up:
            self.up = False
            self.loss = error
        self.scope.cancel()

    def fail(self, error: HeartlineError) -> None:
        """The session cannot go on, for this reason, with any stream."""
        self.lose(error)
        self.give_up(error)

    def give_up(self, error: HeartlineError) -> None:
        """As :meth:`fail`, but on a stream that is up what is queued may still leave while it is closed."""
        if self.failure is None:
            self.failure = error
        self.scope.cancel()
        self.wake_drained()

    async def go_down(self, *, grace: float) -> None:
        """Close the lost stream, within ``grace`` seconds even when cancelled; another one may follow."""
        deadline = trio.current_time() + grace
        if self._writer_scope is not None:
            self._writer_scope.cancel()
        with trio.CancelScope(shield=True, deadline=deadline):
            while self._writing:
                await self._wait_drained()
        self._unwritten = b""
        await close_stream(self.stream, deadline)

    def request_turn(self) -> Turn:
        """Another stream is to take this one's place: it is lost, and an earlier request is void."""
        self.deny_turn()
        turn = self._turn = Turn()
        self.lose(ConnectionLost("another link took its place"))
        self.wake_drained()
        return turn

    @property
    def wanted(self) -> bool:
        """Whether a stream waits for its turn."""
        return self._turn is not None

    async def grant_turn(self) -> bool:
        """Wait for a request, and grant it; not when the session cannot go on."""
        while self._turn is None and self.failure is None:
            await self._wait_drained()
        if self._turn is None or self.failure is not None:
            return False
        self._turn.end(granted=True)
        self._turn = None
        return True

    def deny_turn(self) -> None:
        """Nothing comes of the last request."""
        if self._turn is not None:
            self._turn.end(granted=False)
            self._turn = None

    def withdraw(self, frame_type: int) -> set[int]:
        """Take back the queued messages of this type of which the peer cannot have seen a byte; their ids."""
        return self.session.outbox.withdraw(frame_type)

    async def aclose(self, *, grace: float) -> None:
        """Write what is queued and close the stream, all within ``grace`` seconds, even when cancelled."""
        deadline = trio.current_time() + grace
        if self.loss is None:
            await self._write_rest(deadline)
        self.fail(ConnectionLost("the link was closed"))
        await self.go_down(grace=max(0.0, deadline - trio.current_time()))

    async def _write_rest(self, deadline: float) -> None:
        try:
            with trio.CancelScope(shield=True, deadline=deadline):
                while self._writing:
                    await self._wait_drained()
                self._writing = True  # from now on this is the writer
                if not self._torn:
                    await self._write_all()
        except (HeartlineError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # what could not be written is lost with the link; the close goes on
        except Exception:
            logger.warning("the stream of a link raised in its last write", exc_info=True)
        self._writing = False


async def close_stream(stream: trio.abc.Stream, deadline: float) -> None:
    """Close a stream by the deadline, even when cancelled."""
    try:
        with trio.CancelScope(shield=True, deadline=deadline):
            await stream.aclose()
    except Exception:
        # A stream closes even when it raises, and its error must not end the other connections.
        logger.warning("the stream of a link raised while it was closed", exc_info=True)


def _join(buffers: list[Buffer]) -> bytes:
    if len(buffers) == 1 and type(buffers[0]) is bytes:
        return buffers[0]
    return b"".join(buffers)
