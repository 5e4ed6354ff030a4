"""The connection: one object per peer, the same class on both ends.

It outlives its streams: after a loss its session is resumed on another one, and nothing that stands on it
notices. Where that is not possible any more the session is over, and a client's connection begins a new one.
What stands on it, RPC and push, are *parts* that get the frames of their family and hear of sessions that
begin and end; the connection itself keeps the default channel, the opened channels, the state and the events.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

import trio

from heartline.connection._channels import Channel, Channels, encode_message
from heartline.connection._events import Closed, ConnectionEvent, Events, Lost, Message, Opened, Reconnected
from heartline.connection._goodbye import GOODBYE_GRACE, Goodbye, say_why
from heartline.connection._link import Link
from heartline.connection._setup import CallsPart, PushPart, Setup
from heartline.connection._state import ConnectionState, ConnectionStatistics
from heartline.errors import (
    ConnectionClosed,
    ConnectionLost,
    HeartlineError,
    LocalProtocolError,
)
from heartline.session import CloseCode, GoAway, Role
from heartline.session.session import Event
from heartline.wire import Frame, FrameType

if TYPE_CHECKING:
    from heartline.push import Since, SlowPolicy, Subscription
    from heartline.rpc import Retry

__all__ = ["Connection"]

logger = logging.getLogger("heartline")
T = TypeVar("T")

_FAMILY = 0xF0
_CALLS = FrameType.CALL & _FAMILY
_PUSHES = FrameType.PUSH & _FAMILY


class Connection:
    """A connection to one peer; made by :func:`heartline.open_connection` or by a server."""

    __slots__ = (
        "_channels",
        "_events",
        "_goodbye",
        "_inbox",
        "_link",
        "_links",
        "_reason",
        "_resumed",
        "_state_changed",
        "address",
        "attempt",
        "calls",
        "dialing",
        "id",
        "push",
        "role",
        "setup",
        "shared_events",
        "state",
    )

    def __init__(self, setup: Setup, role: Role) -> None:
        self.setup: Setup = setup
        self.role: Role = role
        self.id: str = ""
        self.address: str = ""
        self.attempt: tuple[bytes, int] | None = None
        """The client, and the number of the HELLO with which the present link began."""
        self.state: ConnectionState = ConnectionState.CONNECTING
        self.shared_events: Events[ConnectionEvent] | None = None
        """Where messages go that this connection's own readers do not take: the events of a server."""
        self.dialing: trio.CancelScope | None = None
        """A client's attempts to get a new link run in it."""
        self._link: Link | None = None
        self._links = self._resumed = 0
        self._reason: HeartlineError | None = None
        self._channels: Channels | None = None
        self._inbox: Events[Message] | None = None
        self._events: Events[ConnectionEvent] | None = None
        self._goodbye: Goodbye | None = None
        self._state_changed: trio.lowlevel.ParkingLot | None = None
        self.calls: CallsPart = setup.make_calls(self)
        self.push: PushPart = setup.make_push(self)

    def __repr__(self) -> str:
        return f"<heartline.Connection {self.id or '(no id yet)'} {self.state.value} {self.address}>"

    # What users call

    @property
    def peer(self) -> str:
        """The address of the other end, as text."""
        return self.address

    @overload
    def service(self, service: type[T], *, retry: Retry | None = None) -> T: ...
    @overload
    def service(self, service: str, *, retry: Retry | None = None) -> Any: ...
    def service(self, service: type[T] | str, *, retry: Retry | None = None) -> T | Any:
        """A proxy for a service of the peer: typed by its class, or by name.

        Every method of the proxy is awaited, whatever it is at the peer. ``retry`` is a
        :class:`heartline.Retry` for methods that are idempotent, and for calls that were not sent.
        """
        return self.calls.proxy(service, retry)

    def subscribe(self, topic: str, *, since: Since = None, policy: SlowPolicy | None = None) -> Subscription:
        """A subscription to a topic of the peer, to be entered with ``async with``.

        ``since`` says where to begin: ``None`` from now on, :data:`heartline.NEWEST` with the newest update
        that is retained, :data:`heartline.OLDEST` with the oldest, :data:`heartline.SNAPSHOT` with the state,
        or after a :class:`heartline.Position`. ``policy`` is a :class:`heartline.SlowPolicy`.
        """
        subscription: Subscription = self.push.subscribe(topic, since, policy)
        return subscription

    async def send(self, message: Any) -> None:
        """Send a message on the default channel: bytes as they are, any other value serialized.

        Waits while the peer has no room for it. It arrives unless the session ends before: that it was sent
        says no more. Raises :class:`ConnectionLost` or :class:`ConnectionClosed` when there is no session.
        """
        await trio.lowlevel.checkpoint()
        number, payload, flags = encode_message(self, message)
        await self.wait_room(0)
        self.post(FrameType.DATA, 0, number, payload, flags)

    def send_nowait(self, message: Any) -> bool:
        """Like :meth:`send`, but without waiting: ``False`` when the peer has no room for it."""
        link = self.require_link()
        if link.crowded or link.session.outbox.blocked(0):
            return False
        number, payload, flags = encode_message(self, message)
        self.post(FrameType.DATA, 0, number, payload, flags)
        return True

    async def receive(self) -> Any:
        """The next message of the default channel; waits for it, over losses of the link too.

        Raises the reason when the connection is closed for good, :class:`SerializationError` for a message
        that cannot be decoded, and :class:`LocalProtocolError` once :meth:`events` was called, here or on the
        server: messages go there.
        """
        while True:
            if self._events is not None or self.shared_events is not None:
                raise LocalProtocolError("messages of this connection go to its events(); read them there")
            async for message in self._unread():
                return message.value
            if self.state is ConnectionState.CLOSED:
                raise self._end_error()

    def events(self) -> Events[ConnectionEvent]:
        """What happens from now on, and every message that was not read: ends with the connection.

        There is one reader at a time: a later call takes over, with what the one before did not read.
        """
        events: Events[ConnectionEvent] = Events(self.setup.limits.events)
        if self._events is not None:
            events.take_over(self._events)
        self._events = events
        self.hand_messages_to(events)
        if self.state is ConnectionState.CLOSED:
            events.end()
        return events

    async def open_channel(self, name: str) -> Channel:
        """Open a channel; the peer gets it from :meth:`accept_channel`."""
        await trio.lowlevel.checkpoint()
        return self.channels.open(name)

    async def accept_channel(self) -> Channel:
        """The next channel that the peer opens; raises the reason when the session ends."""
        self.require_link()
        return await self.channels.accept()

    async def wait_open(self) -> None:
        """Wait until the connection has a link; raises the reason when it is closed for good."""
        await trio.lowlevel.checkpoint()
        while self.state is not ConnectionState.OPEN:
            if self.state is ConnectionState.CLOSED:
                raise self._end_error()
            await self._change()

    async def _change(self) -> None:
        """Wait until the state changes."""
        if self._state_changed is None:
            self._state_changed = trio.lowlevel.ParkingLot()
        await self._state_changed.park()

    async def aclose(self) -> None:
        """Say goodbye and close; closing twice is fine.

        A client whose connection the server closes like this comes back; see
        :meth:`Server.close_connection` for one that should not.

        What was sent before still arrives: a second is given to the peer to answer, and another to take the
        rest.
        """
        self.close(CloseCode.NORMAL, "its application closed the connection")
        closed = ConnectionClosed("the connection was closed here", code=CloseCode.NORMAL, by_peer=False)
        if self._link is None:  # there is nobody to say goodbye to
            self.finish(closed)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 3 * GOODBYE_GRACE):
            while self.state is not ConnectionState.CLOSED:
                await self._change()
        self.finish(closed)
        await trio.lowlevel.cancel_shielded_checkpoint()

    def statistics(self) -> ConnectionStatistics:
        """A snapshot of the connection."""
        link = self._link
        pulse = link.session.pulse if link else None
        now = trio.current_time()
        return ConnectionStatistics(
            state=self.state,
            links=self._links,
            resumed=self._resumed,
            frames_sent=link.session.sent if link else 0,
            frames_received=link.session.received if link else 0,
            backlog=link.backlog if link else 0,
            unconfirmed=link.session.replay.size if link else 0,
            round_trip=pulse.rtt if pulse else None,
            silence=now - pulse.heard if pulse else float("inf"),
            suspicion=pulse.suspicion(now) if pulse else float("inf"),
            channels=len(self._channels) if self._channels else 0,
        )

    # What the parts and the endpoints call

    @property
    def link(self) -> Link | None:
        """The session's link, be it up or down; ``None`` while there is no session."""
        return self._link

    @property
    def reason(self) -> HeartlineError | None:
        """Why the link, or the session, was lost last; ``None`` while there is a link."""
        return self._reason

    def require_link(self) -> Link:
        """The session's link; raises :class:`ConnectionLost` or :class:`ConnectionClosed`."""
        if self._link is None:
            raise self.closed_error()
        return self._link

    def closed_error(self) -> HeartlineError:
        """Why there is no link, or none for anything new."""
        reason = self._reason
        if isinstance(reason, ConnectionClosed) and (
            not reason.by_peer or self.state in (ConnectionState.LEAVING, ConnectionState.CLOSED)
        ):
            return ConnectionClosed(str(reason), code=reason.code, by_peer=reason.by_peer)
        over = self.state is ConnectionState.CLOSED
        error = ConnectionLost("the connection has ended" if over else "there is no link at the moment")
        error.__cause__ = reason
        return error

    def _end_error(self) -> HeartlineError:
        """Why the connection is closed for good."""
        assert self._reason is not None
        return self.closed_error() if isinstance(self._reason, ConnectionClosed) else self._reason

    @trio.lowlevel.enable_ki_protection
    def post(self, frame_type: int, channel: int, number: int, payload: bytes, flags: int = 0) -> None:
        """Queue a message; it leaves at the end of this tick, joined with whatever else it brings."""
        link = self.require_link()
        try:
            link.session.send(frame_type, channel, number, payload, flags)
        except ConnectionLost as error:
            self.give_up(link, error)
        link.nudge()

    def give_up(self, link: Link, error: ConnectionLost) -> None:
        """The peer does not read: it is told, and its session ends, but not the task that is here."""
        if link.failure is None:
            logger.warning("%s at %s is given up: %s", self.id, self.address, error)
            say_why(link, CloseCode.SLOW_CONSUMER, str(error))
        link.give_up(error)
        if self.state is ConnectionState.LOST:
            self.end_session(error)

    async def wait_room(self, channel: int, is_over: Callable[[], bool] = bool) -> None:
        """Wait until a message on this channel has room at the peer, and on the link, or it ``is_over``."""
        link = self.require_link()
        outbox = link.session.outbox
        if link.crowded or outbox.blocked(channel):
            await link.wait_drained(lambda: (link.crowded or outbox.blocked(channel)) and not is_over())

    @trio.lowlevel.enable_ki_protection
    def give_credit(self, channel: int, length: int) -> None:
        """A message of this length was taken by its reader."""
        if self._link is not None:
            self._link.session.consume(channel, length)
            self._link.nudge()

    @property
    def channels(self) -> Channels:
        """The opened channels of the present session."""
        if self._channels is None:
            self.require_link()
            self._channels = Channels(self, self.role)
        return self._channels

    def _unread(self) -> Events[Message]:
        """The messages that wait for :meth:`receive`."""
        if self._inbox is None:
            self._inbox = Events(0)
            if self.state is ConnectionState.CLOSED:
                self._inbox.end()
        return self._inbox

    def hand_messages_to(self, events: Events[ConnectionEvent]) -> None:
        """Give messages that nobody has read to this feed; new ones are handed out by :meth:`_on_default`."""
        if self._inbox is not None:
            events.take_over(self._inbox)
            self._inbox = None

    @trio.lowlevel.enable_ki_protection
    def close(self, code: int, reason: str, *, drain: float = 0.0) -> None:
        """Say goodbye without waiting; while the link is down there is none to say, and the session is over.

        The link ends when the peer has answered, and with ``drain`` seconds when no call is in progress any
        more; if it does not come to that, then a second later than that.
        """
        link = self._link
        if link is None:
            return
        error = ConnectionClosed(f"the connection was closed here: {reason}", code=code, by_peer=False)
        if link.up:
            goodbye = self._goodbye or Goodbye(link)
            goodbye.say(code, reason, drain)
            self._leave(goodbye, error)
        else:
            self.end_session(error)

    def _on_goodbye(self, message: GoAway) -> None:
        goodbye = self._goodbye or Goodbye(self.require_link())
        if not goodbye.hear(message.drain):
            self.leave_when_idle()
            return
        why = f"{message.reason or 'no reason given'} (code {message.code})"
        error = ConnectionClosed(f"the peer closed the connection: {why}", code=message.code, by_peer=True)
        self._leave(goodbye, error)

    def _leave(self, goodbye: Goodbye, error: ConnectionClosed) -> None:
        self._goodbye = goodbye
        self._reason = error
        self._set_state(ConnectionState.LEAVING)
        self.leave_when_idle()

    def leave_when_idle(self) -> None:
        """See whether the goodbye, if one is under way, can go on: called also when a call has ended."""
        if self._goodbye is not None:
            self._goodbye.go_on(idle=self.calls.idle)

    # Sessions and links

    def begin_link(self, link: Link) -> None:
        """The link has come up: for a new session, or for the one that it had."""
        resumed = self._link is link
        self._links += 1
        self._resumed += resumed
        self._reason = None
        link.session.pulse.begin(trio.current_time())
        self.setup.timer.add(link)
        self._set_state(ConnectionState.OPEN)
        if not resumed:
            self._link = link
            self.calls.on_session_begin()
            self.push.on_session_begin()
        self.tell(Opened(self) if self._links == 1 else Reconnected(self, resumed))
        link.flush()

    async def end_link(self, link: Link, reason: HeartlineError | None) -> None:
        """The stream has ended: for this reason if it is one that ends the session too."""
        final = reason or link.failure or self._reason
        self._reason = (
            self._reason
            or final
            or link.loss
            or ConnectionLost("the peer ended the stream without a goodbye")
        )
        self.setup.timer.discard(link)
        if self._link is not link:  # the session was ended meanwhile
            await link.aclose(grace=GOODBYE_GRACE)
        elif final is None and link.session.resumable:
            link.session.lose()
            link.lose(self._reason)
            self._on_lost()
            await link.go_down(grace=GOODBYE_GRACE)
        else:
            self._on_lost()
            self.end_session(self._reason)
            await link.aclose(grace=GOODBYE_GRACE)

    def _on_lost(self) -> None:
        assert self._reason is not None
        if self.state is not ConnectionState.CLOSED:
            self._set_state(ConnectionState.LOST)
            self.tell(Lost(self, self._reason))

    def end_session(self, reason: HeartlineError) -> None:
        """The session is over: what stands on it ends, and the next link begins another one."""
        link, self._link = self._link, None
        if link is None:
            return
        self._goodbye = None
        self._reason = reason
        channels, self._channels = self._channels, None
        try:
            self.calls.on_session_end(reason, link.withdraw)
            self.push.on_session_end(reason, link.withdraw)
            if channels is not None:
                channels.on_session_end(reason)
        except Exception:
            logger.exception("internal error at the end of a session of the connection %s", self.id)
        finally:
            if link.up:
                link.wake_drained()
            else:
                link.fail(reason)

    def handle(self, events: list[Event]) -> None:
        """Hand out what has come in."""
        calls, push = self.calls.on_frame, self.push.on_frame
        for event in events:
            if type(event) is Frame:
                family = event.type & _FAMILY
                if family == _CALLS:
                    calls(event)
                elif family == _PUSHES:
                    push(event)
                elif event.channel:
                    self.channels.on_frame(event)
                else:
                    self._on_default(event)
            elif type(event) is GoAway:
                self._on_goodbye(event)

    def _on_default(self, frame: Frame) -> None:
        (self._events or self.shared_events or self._unread()).send(Message(self, frame))

    def finish(self, reason: HeartlineError) -> None:
        """The end of the connection: no further link will come."""
        if self.state is ConnectionState.CLOSED:
            return
        self.end_session(reason)
        self._reason = reason
        self._set_state(ConnectionState.CLOSED)
        if self.dialing is not None:
            self.dialing.cancel()
        if self._inbox is not None:
            self._inbox.end()
        self.tell(Closed(self, reason))
        if self._events is not None:
            self._events.end()

    def _set_state(self, state: ConnectionState) -> None:
        self.state = state
        if self._state_changed is not None:
            self._state_changed.unpark_all()

    def tell(self, event: ConnectionEvent) -> None:
        """Hand an event to who listens."""
        if self._events is not None:
            self._events.send(event)

    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Run a handler in the endpoint's nursery; it must not let an error escape."""
        self.setup.nursery.start_soon(function, *args)
