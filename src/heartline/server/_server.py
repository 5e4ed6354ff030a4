"""The server as users see it: its connections, and what reaches one or all of them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, final

import trio

from heartline.connection import (
    Announcer,
    Connection,
    ConnectionEvent,
    Events,
    Messages,
    SharedInbox,
    encode_message,
    face_of,
)
from heartline.errors import ConfigurationError, LocalProtocolError
from heartline.link import GOODBYE_GRACE, Core, Link, NoPublicConstructor
from heartline.push import History, Publisher, Receipt, SlowPolicy, TopicStatistics, WaitFor
from heartline.rpc import waiting_for_this
from heartline.server._table import Table
from heartline.session import CloseCode
from heartline.wire import HEADER, FrameType
from heartline.wire.limits import LEAST_ITEMS
from heartline.wire.payload import ItemCount

__all__ = ["Broadcast", "Server", "ServerStatistics", "attached", "make_server"]

logger = logging.getLogger("heartline.server")

T = TypeVar("T")

TURN = 256
"""Connections that a broadcast is queued for before other tasks run, well under a millisecond."""


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
    held: int
    """Bytes that this side holds for all connections, those that are lost too; see
    :class:`heartline.ConnectionStatistics`."""
    events_dropped: int
    topics: Mapping[str, TopicStatistics]
    """A :class:`heartline.TopicStatistics` by topic."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """How many peers a broadcast was queued for, and which ones it skipped because they have no room."""

    sent: int
    skipped: tuple[str, ...]


class _Connections(Mapping[str, Connection]):
    """A view of a table that shows connections as users hold them."""

    def __init__(self, cores: Mapping[str, Core]) -> None:
        self._cores = cores

    def __getitem__(self, key: str) -> Connection:
        return face_of(self._cores[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._cores)

    def __len__(self) -> int:
        return len(self._cores)

    def __repr__(self) -> str:
        return f"<{len(self)} connections>"


@final
class Server(metaclass=NoPublicConstructor):
    """A server; made by :func:`heartline.open_server`."""

    def __init__(
        self,
        table: Table,
        urls: tuple[str, ...],
        publisher: Publisher,
        announcer: Announcer,
        inbox: SharedInbox,
    ) -> None:
        self.urls: tuple[str, ...] = urls
        """The addresses it listens on, with real port numbers."""
        self.connections: Mapping[str, Connection] = _Connections(table.cores)
        """A view of the connections by id, including those whose link is lost and whose session waits."""
        self._table = table
        self._publisher = publisher
        self._announcer = announcer
        self._inbox = inbox
        self._broadcasting = trio.Lock()
        self._attached: dict[type, Any] = {}

    def __repr__(self) -> str:
        return f"<heartline.Server {' '.join(self.urls)} with {len(self.connections)} connections>"

    async def send_to(self, connection_id: str, message: Any) -> None:
        """Send a message to one peer, on its default channel; waits while the peer has no room.

        Raises :class:`LocalProtocolError` when there is no such connection, and what
        :meth:`Connection.send` raises. Cancelling sends nothing.
        """
        await face_of(self._get_core(connection_id)).send(message)

    @trio.lowlevel.enable_ki_protection
    async def broadcast(self, message: Any) -> Broadcast:
        """Send a message to every peer, encoded once, without waiting for any.

        A peer that has no room for the message, or accepts none of this size, is skipped, and named in the
        result. Raises :class:`SerializationError` for a value that cannot be sent, and
        :class:`LocalProtocolError` for one whose arrays and bytes are longer than ``Limits.message_size`` of
        the server. After a cancellation half way the message has been queued for some peers and not for
        others.
        """
        setup = self._table.setup
        number, payload, flags = encode_message(setup.serializer, message, setup.limits)
        frame = HEADER.pack(len(payload), FrameType.DATA, flags, 0, number) + payload
        items = ItemCount(number, payload, flags) if len(payload) > LEAST_ITEMS else None
        sent, skipped = 0, []
        async with self._broadcasting:  # two broadcasts come in the same order everywhere
            for count, core in enumerate(list(self._table.cores.values()), 1):
                link = core.link
                if link is None or (items is not None and items.exceeds(link.peer_limits.items)):
                    skipped.append(core.id)
                elif link.put_broadcast(frame):
                    setup.flusher.mark(link)
                    sent += 1
                elif _put_long(link, number, payload, flags):
                    sent += 1
                else:
                    skipped.append(core.id)
                if count % TURN == 0:
                    await trio.lowlevel.checkpoint()
        return Broadcast(sent, tuple(skipped))

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

        If the topic has a store, the update is committed there first, whatever ``wait`` and ``timeout`` say:
        no subscriber ever sees an update that a restart forgets.

        ``key``, text of 1 to 256 characters, makes it safe to repeat a publish whose outcome is not known.
        With a key that is remembered (:attr:`History.keys`) nothing is published, and the receipt is that of
        the update that was.

        ``wait`` is ``None`` (wait for nothing more), ``"stored"`` (the same, for a topic with a store alone),
        ``"sent"`` (until the update was handed to every subscriber's link) or ``"confirmed"`` (until every
        subscriber has handled it), for ``timeout`` seconds at most. With a timeout a subscriber whose session
        ends meanwhile is waited for. Without one, and at the timeout, it is left behind: it catches up from
        the history when it is back. The timeout, or else half a minute, also bounds the wait for subscribers
        with the policy ``"block"``, where the topic allows that.

        Returns a :class:`heartline.Receipt` that names the subscribers that have the update, and those that
        have not. Raises :class:`SerializationError` for a value that cannot be sent or has more items than
        ``Limits.items``, :class:`LocalProtocolError` for one that is longer than ``Limits.message_size``,
        :class:`StoreError` when it could not be stored, :class:`KeyReused` for a key that was published with
        another value, and :class:`ConfigurationError` for a topic beyond ``Limits.topics``.

        When cancelled before the update has an offset, nothing is published; when cancelled later, in the
        wait for subscribers, the update stays published. While the store writes it, this waits for the
        outcome first.
        """
        return await self._publisher.publish(topic, value, key, wait, timeout)

    def declare_topic(
        self,
        topic: str,
        *,
        history: History | None = None,
        policies: Collection[SlowPolicy] | None = None,
    ) -> None:
        """Give a topic a :class:`heartline.History` of its own, and say what its subscribers may ask for.

        The history is given before the first update, the policies at any time, for subscriptions to come. A
        declared topic stays until it is deleted. One with a store or a fold is one of the ``topics`` of
        :func:`heartline.open_server`. Raises :class:`ConfigurationError`.
        """
        self._publisher.declare(topic, history=history, policies=policies)

    async def delete_topic(self, topic: str) -> None:
        """Forget a topic, with its history, its state and what was declared.

        Its subscriptions end with :class:`PushError`. If it is published again it begins in a new epoch.
        Nothing happens if there is no such topic. Raises :class:`ConfigurationError` for one with a store.
        Once it has begun it is done, even if it is cancelled.
        """
        await self._publisher.delete(topic)

    def topic_state(self, topic: str) -> Any:
        """The state of a topic with a :class:`heartline.Fold`, after its newest update; do not change it.

        Raises :class:`PushError` when an update could not be applied to it.
        """
        return self._publisher.state(topic)

    def subscribers(self, topic: str) -> frozenset[str]:
        """The ids of the connections that are subscribed to a topic."""
        return self._publisher.subscribers(topic)

    def events(self) -> Events[ConnectionEvent]:
        """An async iterator of what happens to all connections from now on; ends with the server."""
        return self._announcer.feeds.open(self._table.setup.limits.events)

    def messages(self) -> Messages:
        """An async iterator of the messages of all connections without a reader of their own.

        It includes messages that arrived before this call, and ends with the server. A connection has a
        reader of its own from the first call of :meth:`Connection.receive` on.
        """
        return Messages._create(self._inbox)

    async def close_connection(
        self, connection_id: str, *, code: int = CloseCode.KICKED, reason: str = "closed by the server"
    ) -> None:
        """Close a peer's connection and wait for its end; with the default code the client stays away.

        ``code`` is a :class:`CloseCode`, or a number of your own below ``2**31``: from 100 on it keeps the
        client away. A client whose link is lost at the moment cannot be told the code, and comes back to a
        new session.

        In a method that this peer has called it waits for nothing, and the peer gets its answer first.

        Raises :class:`ConfigurationError` for another code or a reason that is no text, and
        :class:`LocalProtocolError` when there is no such connection. Cancelling ends the wait alone: the
        connection still closes.
        """
        if not _is_number(code, int) or not 0 <= code < 2**31:
            raise ConfigurationError(
                f"code must be a CloseCode or an int of 0 to 2**31 - 1, not {code!r:.80}"
            )
        if not isinstance(reason, str):
            raise ConfigurationError(f"reason must be a str, not {reason!r:.80}")
        core = self._get_core(connection_id)
        asking = core in waiting_for_this()
        core.close(code, reason, drain=GOODBYE_GRACE if asking else 0)
        await trio.lowlevel.checkpoint()
        while self._table.cores.get(connection_id) is core and not asking:
            await self._table.left.park()

    async def drain(self, timeout: float) -> bool:
        """Refuse new clients, give calls in progress ``timeout`` seconds to end, then close all connections.

        Returns whether all of them ended in time. In a method that a peer has called, the connections whose
        calls may wait for that method are not waited for: they close once their calls have ended, at the
        latest three seconds after the timeout, so that the method can still answer.

        Raises :class:`ConfigurationError` for a timeout that is no number of at least 0. Cancelling takes
        nothing back: peers that were told of the end close their connections, and new clients are still
        refused.
        """
        if not _is_number(timeout, int, float) or not timeout >= 0:
            raise ConfigurationError(f"timeout must be seconds of at least 0, not {timeout!r:.80}")
        table = self._table
        table.draining = True
        await trio.lowlevel.checkpoint()
        asking = waiting_for_this()
        for core in list(table.cores.values()):
            # The side that asks gets its answer after all others have closed.
            longer = timeout + 2 * GOODBYE_GRACE if core in asking else timeout
            core.close(CloseCode.GOING_AWAY, "the server is draining", drain=longer)

        def others() -> list[Core]:
            return [core for core in table.cores.values() if core not in asking]

        with trio.move_on_after(timeout):
            while others():
                await table.left.park()
        in_time = all(core.idle for core in others())
        while others():  # each link ends a second after its drain at the latest
            await table.left.park()
        return in_time

    def statistics(self) -> ServerStatistics:
        """A snapshot of the server."""
        table = self._table
        return ServerStatistics(
            connections=len(table.cores),
            accepted=table.accepted,
            refused=table.refusals.count,
            handshaking=len(table.handshakes),
            backlog=sum(core.link.backlog for core in table.cores.values() if core.link is not None),
            held=sum(core.held for core in table.cores.values()),
            events_dropped=self._announcer.feeds.dropped,
            topics=self._publisher.statistics(),
        )

    def _get_core(self, connection_id: str) -> Core:
        core = self._table.cores.get(connection_id) if isinstance(connection_id, str) else None
        if core is None:
            raise LocalProtocolError(f"no connection {connection_id!r:.80}; see Server.connections")
        return core


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _put_long(link: Link, number: int, payload: bytes, flags: int) -> bool:
    """Queue a broadcast that is longer than a frame; ``False`` when there is no room for it."""
    if not link.has_room(0) or len(payload) > link.peer_limits.message_size:
        return False
    link.put(FrameType.DATA, 0, number, payload, flags)
    return True


def attached(server: Server, kind: type[T]) -> T:
    """The one object of this type that belongs to a server, made when it is first asked for.

    For systems above, which keep there what all of their parts on this server share.
    """
    if kind not in server._attached:
        server._attached[kind] = kind()
    found: T = server._attached[kind]
    return found


def make_server(
    table: Table, urls: tuple[str, ...], publisher: Publisher, announcer: Announcer, inbox: SharedInbox
) -> Server:
    """Make the :class:`Server` of a table, which is about to accept streams."""
    logger.info("listening on %s", ", ".join(urls))
    return Server._create(table, urls, publisher, announcer, inbox)
