"""The connection as users hold it, the same class on both ends."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar, final, overload

import trio

from heartline.connection._channels import Channel, decode_message, encode_message
from heartline.connection._events import (
    Closed,
    ConnectionEvent,
    Events,
    Feeds,
    Lost,
    Opened,
    Reconnected,
)
from heartline.connection._lanes import Lanes
from heartline.connection._middleware import Dropped, let_in
from heartline.errors import HeartlineError, LocalProtocolError, SerializationError
from heartline.link import (
    GOODBYE_GRACE,
    Change,
    ConnectionState,
    ConnectionStatistics,
    Core,
    NoPublicConstructor,
    Peer,
    current,
)
from heartline.observe import Hooks, Tell
from heartline.push import (
    Gap,
    History,
    OnGap,
    Publisher,
    Push,
    Receipt,
    Since,
    SlowPolicy,
    Subscription,
    Update,
    WaitFor,
    subscribe,
)
from heartline.rpc import Calls, Retry, waiting_for_this
from heartline.session import CloseCode, Role
from heartline.wire import FrameType

__all__ = ["Announcer", "Connection", "ReceivedMessages", "current_connection", "face_of"]

T = TypeVar("T")


@final
class Connection(trio.abc.AsyncResource, metaclass=NoPublicConstructor):
    """A connection to one peer; :func:`heartline.open_connection` and servers make it.

    The object stays the same over all its links. After its end its methods raise
    :class:`~heartline.ConnectionClosed` or, if it did not end with a goodbye, the reason of its loss.
    """

    __slots__ = ("_core", "_feeds")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._feeds: Feeds[ConnectionEvent] | None = None

    def __repr__(self) -> str:
        core = self._core
        return f"<heartline.Connection {core.id or '(no id yet)'} {core.state.value} {core.place}>"

    @property
    def id(self) -> str:
        """The id under which the server knows this connection. It stays the same over reconnects."""
        return self._core.id

    @property
    def state(self) -> ConnectionState:
        """The state of the connection."""
        return self._core.state

    @property
    def peer(self) -> Peer:
        """The peer at the other end of the present or the last link; without its credentials."""
        return self._core.peer

    # Calls and topics

    @overload
    def service(self, service: type[T], *, retry: Retry | None = None) -> T: ...
    @overload
    def service(self, service: str, *, retry: Retry | None = None) -> Any: ...
    def service(self, service: type[T] | str, *, retry: Retry | None = None) -> T | Any:
        """A proxy for a service of the peer: typed by its class, or by name.

        Every method of the proxy is awaited, whether it is sync or async at the peer. ``retry`` is a
        :class:`heartline.Retry` for methods that are idempotent, and for calls that were not sent. Raises
        :class:`ConfigurationError` for what is neither a service class nor a service's name.
        """
        return self._core.part(Calls).proxy(service, retry)

    @overload
    def subscribe(
        self,
        topic: str,
        *,
        type: type[T],
        since: Since = None,
        policy: SlowPolicy = "drop oldest",
        on_gap: Literal["raise"],
    ) -> Subscription[Update[T]]: ...
    @overload
    def subscribe(
        self,
        topic: str,
        *,
        type: type[T],
        since: Since = None,
        policy: SlowPolicy = "drop oldest",
        on_gap: Literal["yield"] = "yield",
    ) -> Subscription[Update[T] | Gap]: ...
    @overload
    def subscribe(
        self,
        topic: str,
        *,
        since: Since = None,
        policy: SlowPolicy = "drop oldest",
        on_gap: Literal["raise"],
    ) -> Subscription[Update[Any]]: ...
    @overload
    def subscribe(
        self,
        topic: str,
        *,
        since: Since = None,
        policy: SlowPolicy = "drop oldest",
        on_gap: Literal["yield"] = "yield",
    ) -> Subscription[Update[Any] | Gap]: ...
    def subscribe(
        self,
        topic: str,
        *,
        type: Any = Any,
        since: Since = None,
        policy: SlowPolicy = "drop oldest",
        on_gap: OnGap = "yield",
    ) -> Subscription[Any]:
        """A subscription to a topic of the peer, to be entered with ``async with``.

        ``type`` is the type to which the values of updates are converted, by the rules for arguments of
        calls. ``since`` says where to begin: ``None`` from now on, ``"newest"`` with the newest update that
        is retained, ``"oldest"`` with the oldest, ``"snapshot"`` with the state, or after a
        :class:`heartline.Position`.

        ``policy`` says what happens when this side does not keep up:

        - ``"drop oldest"``: updates that leave the history before they are sent are lost, and a
          :class:`heartline.Gap` says so;
        - ``"keep newest"``: it gets the newest update whenever it is ready, and skips those between;
        - ``"block"``: the publisher waits, where the topic allows that, but not for longer than its timeout
          or half a minute;
        - ``"disconnect"``: it ends with :class:`heartline.SlowConsumer`.

        ``on_gap`` is ``"yield"`` for a :class:`heartline.Gap` among the updates, or ``"raise"`` for
        :class:`heartline.HistoryGap`.

        Raises :class:`ConfigurationError` for a wrong argument. Entering raises :class:`Forbidden` when the
        peer does not allow the subscription, :class:`InvalidArguments` when the topic has no such beginning
        or policy or there are too many subscriptions, :class:`Overloaded` when the peer has no room for the
        request, another :class:`CallError` as calls do, and the connection's reason when that is closed for
        good. For what iterating raises see :class:`heartline.Subscription`.

        A client's subscription goes on after reconnects, in new sessions too. A server's ends with its
        client's session, because a client that comes back without that is a new one.
        """
        return subscribe(self._core, topic, since=since, policy=policy, on_gap=on_gap, target=type)

    async def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: str | None = None,
        wait: WaitFor = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Publish an update of a topic of this client, to which its server may subscribe.

        Parameters, receipt, errors and cancellation are those of :meth:`heartline.Server.publish`. While the
        link is lost updates gather in the topic's history. Raises :class:`LocalProtocolError` on a server's
        connection, and the reason when the connection is closed for good.
        """
        publisher = self._publisher()
        if self._core.state is ConnectionState.CLOSED:
            raise self._core.end_error()
        return await publisher.publish(topic, value, key, wait, timeout)

    def declare_topic(
        self,
        topic: str,
        *,
        history: History | None = None,
        policies: Collection[SlowPolicy] | None = None,
    ) -> None:
        """Declare a topic of this client; see :meth:`heartline.Server.declare_topic`."""
        self._publisher().declare(topic, history=history, policies=policies)

    async def delete_topic(self, topic: str) -> None:
        """Forget a topic of this client; see :meth:`heartline.Server.delete_topic`."""
        await self._publisher().delete(topic)

    def topic_state(self, topic: str) -> Any:
        """The state of a topic of this client; see :meth:`heartline.Server.topic_state`."""
        return self._publisher().state(topic)

    def _publisher(self) -> Publisher:
        if self._core.role is Role.SERVER:
            raise LocalProtocolError("a server's topics are those of all its connections: use Server.publish")
        return self._core.part(Push).publisher

    # Messages

    async def send(self, message: Any) -> None:
        """Send a message on the default channel: bytes as they are, any other value serialized.

        Waits while the peer has no room for it; cancelling that wait sends nothing. The message arrives
        unless the session ends first; when this returns, it may not have arrived yet. Raises
        :class:`ConnectionLost` or :class:`ConnectionClosed` when there is no session,
        :class:`SerializationError` for a value that cannot be sent, or has more items than the peer accepts,
        and :class:`LocalProtocolError` for one that is longer than it accepts.
        """
        await trio.lowlevel.checkpoint()
        link = self._core.require_link()
        number, payload, flags = encode_message(self._core.setup.serializer, message, link.peer_limits)
        await link.wait(0, lambda: link.has_room(0))
        self._core.require_link().put(FrameType.DATA, 0, number, payload, flags)

    def send_nowait(self, message: Any) -> None:
        """Like :meth:`send`, without waiting; raises :class:`trio.WouldBlock` when there is no room."""
        link = self._core.require_link()
        if not link.has_room(0):
            raise trio.WouldBlock
        number, payload, flags = encode_message(self._core.setup.serializer, message, link.peer_limits)
        link.put(FrameType.DATA, 0, number, payload, flags)

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> Any:
        """Wait for the next message of the default channel; a loss of the link does not end the wait.

        When the connection is closed for good and every message was read, raises the reason of the end.
        Raises :class:`SerializationError` for a message that cannot be decoded. Cancelling loses no message.
        After the first call, :meth:`heartline.Server.messages` gets no more messages of this connection.
        """
        core = self._core
        inbox = core.part(Lanes).inbox
        await trio.lowlevel.checkpoint()
        inbox.keep_for_own()
        while True:
            while not inbox.frames:
                if core.state is ConnectionState.CLOSED:
                    raise core.end_error()
                await inbox.arrived.park()
            frame = inbox.take()
            message = decode_message(frame, core.setup.limits.items)
            if not core.setup.hooks.middleware:
                return message
            try:
                return await let_in(core, "", message, partial(inbox.put_back, frame))
            except Dropped:
                continue

    def messages(self) -> ReceivedMessages:
        """An async iterator of what :meth:`receive` returns; ends with the connection."""
        return ReceivedMessages._create(self)

    async def open_channel(self, name: str) -> Channel:
        """Open a channel; the peer gets it from :meth:`accept_channel`.

        Raises :class:`LocalProtocolError` at the peer's limit of channels, or for a name of more than 256
        bytes, :class:`ConfigurationError` for a name that is no text, and :class:`ConnectionLost` or
        :class:`ConnectionClosed` when there is no session. A cancellation comes before the channel is opened.
        """
        await trio.lowlevel.checkpoint()
        return self._core.part(Lanes).channels.open(name)

    async def accept_channel(self) -> Channel:
        """Wait for the next channel that the peer opens.

        Raises the reason when the session ends. Cancelling loses no channel: the next call gets it.
        """
        return await self._core.part(Lanes).channels.accept()

    # Life

    def events(self) -> Events[ConnectionEvent]:
        """An async iterator of what happens to this connection from now on; ends with the connection."""
        if self._feeds is None:
            self._feeds = Feeds()
            if self._core.state is ConnectionState.CLOSED:
                self._feeds.end()
        return self._feeds.open(self._core.setup.limits.events)

    async def wait_open(self) -> None:
        """Wait until the connection has a link; raises the reason when the connection is closed for good.

        Cancelling ends only the wait: a client keeps trying.
        """
        await self._core.wait_open()

    async def aclose(self) -> None:
        """Say goodbye and close; closing twice is fine.

        What was sent before still arrives: the peer has a second to answer, and another second to take the
        rest. In a cancelled scope this says goodbye and waits for nothing. In a method that the peer has
        called it waits for nothing either, and the peer gets its answer first.

        When a server closes a connection in this way, its client comes back; to keep a client away, use
        :meth:`Server.close_connection`.
        """
        core = self._core
        if core in waiting_for_this():
            core.close(CloseCode.NORMAL, "its application closed the connection", drain=GOODBYE_GRACE)
            await trio.lowlevel.checkpoint()
        else:
            await core.aclose()

    def statistics(self) -> ConnectionStatistics:
        """A snapshot of the connection."""
        lanes = self._core.find_part(Lanes)
        return replace(self._core.statistics(), channels=0 if lanes is None else lanes.count)


@final
class ReceivedMessages(metaclass=NoPublicConstructor):
    """An async iterator of the messages of a connection; ends with it.

    A message that cannot be decoded raises :class:`SerializationError`; asking again gets the next one.
    Several tasks may read it, besides :meth:`Connection.receive`: each message goes to one of them.
    Cancelling loses no message.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __aiter__(self) -> ReceivedMessages:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._connection.receive()
        except SerializationError:
            raise
        except HeartlineError:  # the connection is closed, and everything was read
            raise StopAsyncIteration from None


def face_of(core: Core) -> Connection:
    """The :class:`Connection` of a core, made when it is first asked for: an idle connection needs none."""
    face = core.face
    if face is None:
        face = core.face = Connection._create(core)
    assert isinstance(face, Connection)
    return face


def current_connection() -> Connection:
    """The connection whose call is running; for the code of a service's methods.

    Raises :class:`LocalProtocolError` elsewhere.
    """
    try:
        return face_of(current.get())
    except LookupError:
        raise LocalProtocolError("there is no current connection outside of a service's method") from None


_OBSERVER_METHODS = {
    Change.OPENED: "connection_opened",
    Change.LOST: "connection_lost",
    Change.RESUMED: "connection_returned",
    Change.RENEWED: "connection_returned",
    Change.CLOSED: "connection_closed",
}
"""The method of an observer that is called for a change."""


class Announcer:
    """Tells observers and readers of events what happens to the connections of an endpoint."""

    __slots__ = ("_observers", "feeds")

    def __init__(self, hooks: Hooks) -> None:
        self._observers = {
            change: tell for change, name in _OBSERVER_METHODS.items() if (tell := hooks.tell(name))
        }
        self.feeds: Feeds[ConnectionEvent] = Feeds()
        """The feeds of the events of all connections."""

    def __call__(self, core: Core, change: Change, reason: HeartlineError | None) -> None:
        """Tell all listeners what has happened to a connection."""
        tell = self._observers.get(change)
        if tell is not None:
            _tell(tell, face_of(core), change, reason)
        face = core.face
        assert face is None or isinstance(face, Connection)
        own = face._feeds if face is not None else None
        if own is not None or self.feeds:
            event = _event(face_of(core), change, reason)
            self.feeds.send(event)
            if own is not None:
                own.send(event)
        if change is Change.CLOSED:
            lanes = core.find_part(Lanes)
            if lanes is not None:
                lanes.inbox.end()
            if own is not None:
                own.end()


def _tell(tell: Tell, connection: Connection, change: Change, reason: HeartlineError | None) -> None:
    if reason is not None:
        tell(connection, reason)
    elif change is Change.OPENED:
        tell(connection)
    else:
        tell(connection, resumed=change is Change.RESUMED)


def _event(connection: Connection, change: Change, reason: HeartlineError | None) -> ConnectionEvent:
    if reason is not None:
        return Closed(connection, reason) if change is Change.CLOSED else Lost(connection, reason)
    if change is Change.OPENED:
        return Opened(connection)
    return Reconnected(connection, resumed=change is Change.RESUMED)
