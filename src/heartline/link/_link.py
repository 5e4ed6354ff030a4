"""The link: one session and the stream that carries it at the moment.

A link outlives its stream: when that is lost the link is down, and another stream may bring it up again; what
is sent waits in the session meanwhile.

The reader task takes what the stream has, decodes all of it, lets every frame be handled, and only then
writes, once, what the handlers queued (it is *corked* meanwhile). Where the stream is a plain socket the
bytes are handed to the kernel directly, without a task switch; what the kernel does not take at once, and
everything on other streams, goes through a writer task, which exists from the first time it is needed.

The layers above send with the verbs in the second part of the class and never reach into the session.
Senders that can wait do so before they send, in one of the link's queues (see
:mod:`heartline.link._waiting`): callers, senders of messages, answers of handlers. What cannot wait, because
the peer asked for it in the middle of a read, is queued. A peer that makes this side queue more of that than
``STUCK_LIMIT`` does not read, and its session ends.
"""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Callable, Hashable

import trio

from heartline._summaries import Summary
from heartline.errors import ConnectionLost, HeartlineError
from heartline.link._state import LINK_TRANSITIONS, LinkState, LinkStep
from heartline.link._waiting import Queues
from heartline.observe import report, sort_out
from heartline.session import CloseCode, PeerLimits, Session, State
from heartline.session.outbox import Buffer
from heartline.session.session import Event
from heartline.transports import reason_of

__all__ = ["Link", "close_stream"]

logger = logging.getLogger("heartline.link")

BURST = 256 * 1024
"""Bytes of fragments per write: what a control frame has to wait for at most."""

SLICE = 16
"""Frames that are handled between two writes: while this side works on the next slice, the peer already works
on the answers to the last one."""

Handle = Callable[[list[Event]], None]

_UP = LinkState.UP


class _Writing(enum.Enum):
    """Where the writing stands, by the writer task or by what closes the link."""

    IDLE = "idle"
    """A task that queues something may write it itself."""
    DUE = "due"
    """The writer task was woken, or waits for the stream between two writes."""
    BUSY = "busy"
    """A write is under way."""
    TORN = "torn"
    """A write was cancelled half way: nothing that follows would be understood."""


_IDLE, _DUE, _BUSY, _TORN = _Writing


class Link:
    """Moves bytes between one session and its stream."""

    __slots__ = (
        "_nursery",
        "_parked",
        "_queues",
        "_unwritten",
        "_writer_scope",
        "_writing",
        "corked",
        "descriptor",
        "failure",
        "loss",
        "on_growth",
        "on_room",
        "owner",
        "peer_limits",
        "scope",
        "session",
        "state",
        "stream",
        "troubles",
        "watch",
        "write_buffer",
    )

    def __init__(
        self, stream: trio.abc.Stream, session: Session, nursery: trio.Nursery, *, write_buffer: int
    ) -> None:
        self.session: Session = session
        self.write_buffer: int = write_buffer
        """Bytes of small frames that wait for the peer before senders wait (``Limits.write_buffer``)."""
        self.peer_limits: PeerLimits = session.outbox.limits
        """What the peer accepts, the same on all streams of a session."""
        self.corked: bool = False
        self.failure: HeartlineError | None = None
        """Why the link is over; ``None`` as long as it is not."""
        self.owner: object = "a peer"
        """What the log calls the link: its connection."""
        self.troubles: Summary | None = None
        """Decides which of its log lines are written: those of its endpoint."""
        self.watch: int = -1
        """The heartbeat timer's number for this link."""
        self.on_room: Callable[[Link], None] | None = None
        """Called once when there is room again; for senders that queue only what there is room for."""
        self.on_growth: Callable[[], None] | None = None
        """Called when something is queued while the link is down."""
        self._nursery = nursery
        self._parked: trio.lowlevel.Task | None = None
        self._writer_scope: trio.CancelScope | None = None
        self._queues: Queues | None = None
        self._use(stream)

    def _use(self, stream: trio.abc.Stream) -> None:
        self.stream: trio.abc.Stream = stream
        self.state: LinkState = _UP
        self.loss: HeartlineError | None = None
        """Why the stream is not used any more."""
        self.scope: trio.CancelScope = trio.CancelScope()
        """The reader runs in it: moving its deadline is how a link is told to end."""
        self.descriptor: int = stream.socket.fileno() if type(stream) is trio.SocketStream else -1
        """Of a plain socket, which is read and written directly; -1 for any other stream."""
        self._writing = _IDLE
        self._unwritten: bytes | memoryview = b""

    # What the layers above send. Ctrl-C is raised only where the caller waits: raised between taking bytes
    # from the session and writing them it would tear the stream.

    @trio.lowlevel.enable_ki_protection
    def put(
        self,
        frame_type: int,
        channel: int,
        number: int,
        payload: bytes,
        flags: int = 0,
        *,
        at_once: bool = False,
    ) -> None:
        """Queue a message; it leaves at the end of this tick, joined with whatever else the tick brings.

        ``at_once``, or when enough others wait already, it leaves now. Raises :class:`LocalProtocolError`
        when the peer would refuse it: longer than its limit, or on a channel that is not open.
        """
        outbox = self.session.outbox
        try:
            outbox.put(frame_type, channel, number, payload, flags)
        except ConnectionLost as error:
            self._end_unread(error)
            return
        if self.corked:
            return
        if at_once or outbox.waiting >= SLICE:
            self.flush()
        else:
            self.nudge()

    def put_update(self, frame: bytes) -> bool:
        """Queue a PUSH frame that was encoded for many peers; ``False`` when it has to go by :meth:`put`.

        The flusher, which is to be told, writes it.
        """
        return self.session.outbox.put_encoded(frame)

    def put_broadcast(self, frame: bytes) -> bool:
        """Queue a DATA frame for channel 0 that was encoded for many peers; ``False`` when it has no room.

        The flusher, which is to be told, writes it.
        """
        outbox = self.session.outbox
        waiting = outbox.small + len(self._unwritten)  # as in crowded: this runs once per peer
        return waiting < self.write_buffer and outbox.offer(frame)

    def next_lane(self) -> int:
        """A free number for a lane that this side will open, with OPEN or with a CALL.

        Raises :class:`LocalProtocolError` when as many are open as the peer accepts.
        """
        return self.session.next_channel()

    def abandon_lane(self, channel: int) -> None:
        """Drop what waits on a channel that the peer has ended. Our CLOSE must come next."""
        self.session.abandon(channel)

    def break_off(self, frame_type: int, channel: int, number: int = 0, payload: bytes = b"") -> None:
        """End our direction of a lane at once, by RESET or by the answer to its call.

        It replaces all that waits on the lane. Nothing happens if our end has been sent already.
        """
        self.session.break_off(frame_type, channel, number, payload)
        self.nudge()

    @trio.lowlevel.enable_ki_protection
    def give_credit(self, channel: int, length: int) -> None:
        """Let the peer send as much again: a message of this length was read here."""
        self.session.consume(channel, length)
        self.nudge()

    def holds(self, frame_type: int, channel: int, number: int) -> bool:
        """Whether a long message of this key is under way."""
        return self.session.outbox.holds(frame_type, channel, number)

    def taken(self, frame_type: int, number: int) -> Callable[[], bool]:
        """Return a condition for :meth:`wait`: all that is queued now under this number has been sent."""
        session, outbox = self.session, self.session.outbox
        sent = session.sent
        # All small frames go with the next write, whatever else is queued; a long one takes turns.
        return lambda: (session.sent != sent or not outbox.small) and not outbox.holds(frame_type, 0, number)

    def withdraw(self, frame_type: int) -> set[int]:
        """Take back the queued messages of this type of which the peer cannot have seen a byte; their ids."""
        return self.session.outbox.withdraw(frame_type)

    # What they ask before

    @property
    def up(self) -> bool:
        """Whether there is a stream in use."""
        return self.state is _UP

    @property
    def backlog(self) -> int:
        """Bytes that wait for the peer to read."""
        return self.session.outbox.size + len(self._unwritten)

    @property
    def held(self) -> int:
        """Bytes that the session and its stream hold, in and out."""
        return self.session.held + len(self._unwritten)

    @property
    def clear(self) -> bool:
        """Whether senders may go on at once: the link is up, and few bytes wait, in messages of any length.

        Otherwise they have to look at :attr:`up`, :attr:`crowded` or :attr:`laden`.
        """
        return self.state is _UP and self.session.outbox.size < self.write_buffer

    @property
    def crowded(self) -> bool:
        """Whether senders should wait before they queue more.

        Long messages do not count: each sender has one at most, and small ones pass them.
        """
        return self.session.outbox.small + len(self._unwritten) >= self.write_buffer

    @property
    def laden(self) -> bool:
        """Whether what the peer asks for, answers and updates, should wait until it has read more.

        Nothing but the stream is waited for, so it ends when the peer reads, whatever either side waits for.
        """
        return self.crowded or self.session.outbox.laden

    @property
    def answering(self) -> int:
        """Long answers to the peer's calls that wait or are under way."""
        return self.session.outbox.answers

    def admits(self, ticket: tuple[bytes, int], limits: PeerLimits) -> bool:
        """Whether a client with this ticket and these limits may resume the session here."""
        return self.session.admits(ticket, limits)

    def has_room(self, channel: int) -> bool:
        """Whether a message on this channel may be queued: the peer has room for it, and so has the link."""
        return not (self.crowded or self.session.outbox.blocked(channel))

    async def wait(self, what: Hashable, can_go_on: Callable[[], bool]) -> None:
        """Wait in the queue for ``what`` until ``can_go_on``; it is asked after each write and each read.

        Raises :class:`ConnectionLost` when the link is over first. Cancelling leaves the queue. Not a
        checkpoint when there is nothing to wait for.
        """
        if self._queues is None:
            self._queues = Queues()
        await self._queues.wait(what, lambda: self.failure is not None or can_go_on())
        if self.failure is not None:
            raise ConnectionLost("the session ended while the message waited for the peer") from self.failure

    def wake(self) -> None:
        """Wake the tasks that can go on now, and call ``on_room`` if there is room again."""
        if self._queues is not None:
            self._queues.wake()
        if self.on_room is not None and self.failure is None and not self.laden:
            on_room, self.on_room = self.on_room, None
            on_room(self)

    def _end_unread(self, error: ConnectionLost) -> None:
        """End the session of a peer that does not read, and tell the peer; raises nothing at the sender."""
        if self.failure is None:
            if self.troubles is None or self.troubles.admit("given up"):
                logger.warning("%s is given up: %s", self.owner, error)
            if self.session.state in (State.OPEN, State.LEAVING):
                self.session.go_away(CloseCode.SLOW_CONSUMER, str(error))
        self.give_up(error)

    # Writing

    @trio.lowlevel.enable_ki_protection
    def nudge(self) -> None:
        """Write what is queued when this tick is over, joined with whatever else it brings."""
        if self.corked or self._writing is not _IDLE or self.state is not _UP:
            if self.on_growth is not None:
                self._note_growth()
            return
        self._writing = _DUE
        if self._parked is not None:
            task, self._parked = self._parked, None
            trio.lowlevel.reschedule(task)
        else:
            self._nursery.start_soon(self._write_loop)

    @trio.lowlevel.enable_ki_protection
    def flush(self) -> None:
        """Write what is queued now if the stream takes it without waiting."""
        if self.corked or self._writing is not _IDLE or self.state is not _UP or not self.session.has_output:
            if self.on_growth is not None:
                self._note_growth()
            return
        if self.descriptor < 0:
            self.nudge()
            return
        data = _join(self.session.take(BURST, trio.current_time()))
        try:
            sent = os.write(self.descriptor, data) if data else 0
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
            self.wake()

    # Ctrl-C in the middle of a write would tear the stream, and no goodbye could follow. So it is left to the
    # main task.
    @trio.lowlevel.enable_ki_protection
    async def _write_loop(self) -> None:
        """The writer task: it waits for the stream, so that no other task has to."""
        try:
            try:
                # Inside of ``try``: the stream may have a nursery, and raise an error beside the
                # cancellation.
                with trio.CancelScope() as self._writer_scope:
                    await self._write_on()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.lose(ConnectionLost(f"the link broke while writing: {reason_of(error)}"))
            except HeartlineError as error:
                self.fail(error)
        except BaseException as error:
            # As in serve_link: a bug met on one link must not end the others. It may come in a group beside a
            # cancellation of the endpoint, which goes on.
            if sort_out(error)[0] is not None:
                self.fail(ConnectionLost("internal error, see the log"))
            report(logger, error, "%s: internal error while writing", self.owner)

    async def _write_on(self) -> None:
        while True:
            try:
                if self.state is _UP:
                    await self._write_all()
            finally:
                # Not around the parking: by the time that is cancelled, another task may be writing.
                self._end_writing()
            if self.state is not _UP:
                return
            await self._park()

    async def _write_all(self) -> None:
        while data := self._unwritten or _join(self.session.take(BURST, trio.current_time())):
            self._unwritten = data  # the data counts as waiting until the stream has taken it
            self._writing = _BUSY
            await self.stream.send_all(data)
            self._writing, self._unwritten = _DUE, b""
            self.wake()

    def _end_writing(self) -> None:
        self._writing = _IDLE if self._writing is _DUE else _TORN
        self.wake()

    async def _park(self) -> None:
        self._parked = trio.lowlevel.current_task()

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def _wait_writer(self) -> None:
        """Wait until the writer task has nothing more to do with the stream."""
        if self._queues is None:
            self._queues = Queues()
        await self._queues.wait("writer", lambda: self._writing in (_IDLE, _TORN))

    # Reading: see heartline.link._reading

    def handle(self, events: list[Event], handle: Handle) -> None:
        """Have events handled, and then write what that queued, at once."""
        self.corked = True
        try:
            handle(events)
        finally:
            self.corked = False
        self.flush()

    def _note_growth(self) -> None:
        if self.state is LinkState.DOWN and self.on_growth is not None:
            self.on_growth()

    # The end of a stream, and of the session

    def _step(self, step: LinkStep) -> None:
        self.state = LINK_TRANSITIONS[self.state, step]

    def lose(self, error: HeartlineError) -> None:
        """Stop using the stream, for this reason; the reader's scope is cancelled."""
        if self.state is _UP:
            self._step(LinkStep.LOSE)
            self.loss = error
            if self.failure is not None:  # the session was given up while the stream was up
                self._step(LinkStep.FAIL)
        self.scope.cancel()

    def come_up(self, stream: trio.abc.Stream) -> None:
        """Use this stream from now on."""
        self._step(LinkStep.COME_UP)
        self._use(stream)
        self.wake()

    def fail(self, error: HeartlineError) -> None:
        """End the link for good, for this reason: the session cannot go on with any stream."""
        self.lose(error)
        self.give_up(error)

    def give_up(self, error: HeartlineError) -> None:
        """Like :meth:`fail`, but what is queued may still be written when the stream is closed."""
        if self.failure is None:
            self.failure = error
            if self.state is LinkState.DOWN:
                self._step(LinkStep.FAIL)
        self.scope.cancel()
        self.wake()

    async def go_down(self, *, grace: float) -> None:
        """Close the lost stream, within ``grace`` seconds even when cancelled; another one may follow."""
        deadline = trio.current_time() + grace
        if self._writer_scope is not None:
            self._writer_scope.cancel()
        with trio.CancelScope(shield=True, deadline=deadline):
            await self._wait_writer()
        self._unwritten = b""
        await close_stream(self.stream, deadline)

    async def aclose(self, *, grace: float) -> None:
        """Write what is queued and close the stream, all within ``grace`` seconds, even when cancelled."""
        deadline = trio.current_time() + grace
        if self.loss is None:
            await self._write_rest(deadline)
        self.fail(ConnectionLost("the link was closed"))
        await self.go_down(grace=max(0.0, deadline - trio.current_time()))
        self.session.let_go()

    async def _write_rest(self, deadline: float) -> None:
        try:
            with trio.CancelScope(shield=True, deadline=deadline):
                await self._wait_writer()
                if self._writing is _IDLE:
                    await self._write_here()
        except (HeartlineError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # what could not be written is lost with the link; the close goes on
        except BaseException as error:
            report(logger, error, "%s: the stream raised in its last write", self.owner)

    async def _write_here(self) -> None:
        self._writing = _DUE  # from now on this task is the writer
        try:
            await self._write_all()
        finally:
            self._end_writing()


async def close_stream(stream: trio.abc.Stream, deadline: float) -> None:
    """Close a stream by the deadline, even when cancelled."""
    try:
        with trio.CancelScope(shield=True, deadline=deadline):
            await stream.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        logger.debug("a stream was broken when it was closed: %s", error.__cause__ or error)
    except BaseException as error:
        # A stream counts as closed even when it raises, and its error must not end other connections.
        report(logger, error, "a stream raised while it was closed")


def _join(buffers: list[Buffer]) -> bytes:
    if len(buffers) == 1 and type(buffers[0]) is bytes:
        return buffers[0]
    return b"".join(buffers)
