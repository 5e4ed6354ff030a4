"""The server's face: who is connected, and how to reach one or all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import trio

from heartline.connection import (
    Connection,
    ConnectionEvent,
    Events,
    Flusher,
    Setup,
)
from heartline.connection._channels import encode_message
from heartline.errors import LocalProtocolError
from heartline.server._lost import LostConnections
from heartline.session import CloseCode
from heartline.wire import HEADER, FrameType

if TYPE_CHECKING:
    from heartline.push import History, Receipt, TopicStatistics

__all__ = ["Authenticate", "Broadcast", "Server", "ServerStatistics", "Topics", "WaitFor"]

Authenticate = Callable[[Any, "str | None"], "str | Awaitable[str | None] | None"]
"""``(credentials, identity) -> identity``: who the peer is, or ``None`` to take it at its word; raises
:class:`PermissionError` to turn it away."""


WaitFor = Literal["stored", "sent", "confirmed"] | None
"""What a publisher waits for."""


class Topics(Protocol):
    """What the push layer gives to a server."""

    async def publish(
        self, name: str, value: Any, key: str | None, wait: WaitFor, timeout: float | None
    ) -> Receipt:
        """Publish an update."""
        ...

    def declare(self, name: str, *, history: History) -> None:
        """Make a topic known."""
        ...

    def state(self, name: str) -> Any:
        """The state of a topic with a fold."""
        ...

    def subscribers(self, name: str) -> frozenset[str]:
        """Who is subscribed."""
        ...

    def statistics(self) -> Mapping[str, TopicStatistics]:
        """A snapshot of every topic."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """A snapshot of a server."""

    connections: int
    accepted: int
    """Connections let in so far."""
    refused: int
    """Handshakes that failed or were refused so far."""
    handshaking: int
    backlog: int
    """Bytes that wait for all peers to read."""
    events_dropped: int
    topics: Mapping[str, TopicStatistics]
    """A :class:`heartline.push.TopicStatistics` by topic."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Whom a broadcast was queued for, and whom it passed by because they have no room."""

    sent: int
    skipped: tuple[str, ...]


class Server:
    """A server; made by :func:`heartline.open_server`."""

    def __init__(self, setup: Setup, urls: tuple[str, ...], topics: Topics, flusher: Flusher) -> None:
        self.urls = urls
        """The addresses it listens on, with real port numbers."""
        self.setup = setup
        self.table: dict[str, Connection] = {}
        self.connections: Mapping[str, Connection] = MappingProxyType(self.table)
        """The connections by id, those among them whose link is lost and whose session waits."""
        self.accepted: int = 0
        self.refused = 0
        self.handshaking = 0
        self.draining: trio.Event = trio.Event()
        self.lost: LostConnections = LostConnections()
        self._topics = topics
        self._flusher = flusher
        self._events: Events[ConnectionEvent] | None = None
        self._left = trio.lowlevel.ParkingLot()
        self._ended = False

    def __repr__(self) -> str:
        return f"<heartline.Server {' '.join(self.urls)} with {len(self.table)} connections>"

    async def send_to(self, connection_id: str, message: Any) -> None:
        """Send a message to one peer, on its default channel; waits while it has no room.

        Raises :class:`LocalProtocolError` when there is no such connection.
        """
        await self._get(connection_id).send(message)

    @trio.lowlevel.enable_ki_protection
    async def broadcast(self, message: Any) -> Broadcast:
        """Send a message to every peer, encoded once; nobody is waited for.

        A peer without room for it is passed by, and named in the answer.
        """
        await trio.lowlevel.checkpoint()
        connections = list(self.table.values())
        if not connections:
            return Broadcast(0, ())
        number, payload, flags = encode_message(connections[0], message)
        frame = HEADER.pack(len(payload), FrameType.DATA, flags, 0, number) + payload
        skipped = []
        mark = self._flusher.mark
        for connection in connections:
            link = connection.link
            if link is None or link.crowded:
                skipped.append(connection.id)
                continue
            outbox = link.session.outbox
            if outbox.offer(frame):
                mark(link)
            elif outbox.blocked(0) or len(payload) > outbox.limits.message_size:
                skipped.append(connection.id)
            else:  # longer than a frame
                connection.post(FrameType.DATA, 0, number, payload, flags)
        return Broadcast(len(connections) - len(skipped), tuple(skipped))

    async def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: str | None = None,
        wait: WaitFor = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Publish an update of a topic to its subscribers, and keep it in the topic's history.

        An update of a topic with a store is committed first, whatever ``wait`` says: nobody ever knows one
        that a restart forgets. Neither does ``timeout`` cut that short. Cancelling takes an update back as
        long as the store has not begun to write it; then it waits for the outcome.

        ``key``, text of 1 to 256 characters, makes it safe to repeat a publish whose outcome is not known.
        With a key that is remembered (:attr:`History.keys`) nothing is published, and the receipt is that of
        the update that was.

        ``wait`` is ``None`` (for nothing else), ``"stored"`` (nor this, but the topic must have a store),
        ``"sent"`` (until it was handed to every subscriber's link) or
        ``"confirmed"`` (until every subscriber has handled it), for ``timeout`` seconds at most. With a
        timeout a subscriber whose session ends meanwhile is waited for; without one it is left behind, as it
        is at the timeout: it catches up from the history when it is back. The timeout, or else half a minute,
        also bounds the wait for subscribers with :attr:`SlowPolicy.BLOCK`.

        Returns a :class:`heartline.Receipt` that names who has it and who has not. Raises
        :class:`SerializationError` for a value that cannot be sent, :class:`StoreError` when it could not be
        stored, and :class:`KeyReused` for a key that was published with another value.
        """
        return await self._topics.publish(topic, value, key, wait, timeout)

    def declare_topic(self, topic: str, *, history: History) -> None:
        """Give a topic a :class:`heartline.History` of its own, before its first update.

        A topic with a store or a fold is one of the ``topics`` of :func:`heartline.open_server`.
        """
        self._topics.declare(topic, history=history)

    def topic_state(self, topic: str) -> Any:
        """The state of a topic with a :class:`heartline.Fold`, after its newest update; not to be changed.

        Raises :class:`PushError` when an update could not be applied to it.
        """
        return self._topics.state(topic)

    def subscribers(self, topic: str) -> frozenset[str]:
        """The ids of the connections that are subscribed to a topic."""
        return self._topics.subscribers(topic)

    def events(self) -> Events[ConnectionEvent]:
        """What happens on all connections from now on, and every message that was not read.

        Messages of a connection with a reader of its own (:meth:`Connection.events`) go there. There is one
        reader at a time: a later call takes over, with what the one before did not read.
        """
        events: Events[ConnectionEvent] = Events(self.setup.limits.events)
        if self._events is not None:
            events.take_over(self._events)
        self._events = events
        for connection in self.table.values():
            connection.shared_events = events
            connection.hand_messages_to(events)
        if self._ended:
            events.end()
        return events

    async def close_connection(
        self, connection_id: str, *, code: int = CloseCode.KICKED, reason: str = "closed by the server"
    ) -> None:
        """Close a peer's connection; with the default code it does not come back by itself.

        One whose link is lost at the moment cannot be told the code, and comes back to a new session.
        """
        connection = self._get(connection_id)
        connection.close(code, reason)
        while self.table.get(connection_id) is connection:
            await self._left.park()

    async def drain(self, timeout: float) -> bool:
        """Let nobody in any more, let what is in progress end within ``timeout`` seconds, then close all.

        Tells whether everything ended by itself.
        """
        self.draining.set()
        for connection in list(self.table.values()):
            connection.close(CloseCode.GOING_AWAY, "the server is draining", drain=timeout)
        with trio.move_on_after(timeout):
            while self.table:
                await self._left.park()
        in_time = not any(not connection.calls.idle for connection in self.table.values())
        while self.table:  # each link ends a second after its drain at the latest
            await self._left.park()
        return in_time

    def statistics(self) -> ServerStatistics:
        """A snapshot of the server."""
        return ServerStatistics(
            connections=len(self.table),
            accepted=self.accepted,
            refused=self.refused,
            handshaking=self.handshaking,
            backlog=sum(c.link.backlog for c in self.table.values() if c.link is not None),
            events_dropped=self._events.dropped if self._events else 0,
            topics=self._topics.statistics(),
        )

    def _get(self, connection_id: str) -> Connection:
        connection = self.table.get(connection_id)
        if connection is None:
            raise LocalProtocolError(f"no connection {connection_id!r}; see Server.connections")
        return connection

    # What the acceptor calls

    def register(self, connection: Connection) -> None:
        """Let a connection in; an older one with the same id has to go."""
        old = self.table.pop(connection.id, None)
        if old is not None:
            old.close(CloseCode.REPLACED, "a newer connection with the same identity took over")
        self.table[connection.id] = connection
        self.accepted += 1
        connection.shared_events = self._events

    def keep_lost(self, connection: Connection) -> None:
        """A connection is lost, and its session waits; too many bytes of such sessions end the first ones."""
        self.lost.add(connection)
        while self.lost.held > self.setup.limits.lost_buffer and self.end_first_lost():
            pass

    def end_first_lost(self) -> bool:
        """End the connection that was lost first, for what it holds; tells whether there was one."""
        connection = self.lost.take_first()
        if connection is None:
            return False
        connection.close(CloseCode.OVERLOADED, "what it held was needed for others")
        self.unregister(connection)
        return True

    def unregister(self, connection: Connection) -> None:
        """The connection has ended; a newer one with its id stays."""
        if self.table.get(connection.id) is connection:
            del self.table[connection.id]
        self._left.unpark_all()

    def end(self) -> None:
        """The server has ended, and so do its events."""
        self._ended = True
        if self._events is not None:
            self._events.end()

    def tell(self, event: ConnectionEvent) -> None:
        """Hand an event to who listens."""
        if self._events is not None:
            self._events.send(event)
