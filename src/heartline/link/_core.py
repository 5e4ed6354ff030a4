"""The engine of a connection: one object per peer, the same class on both ends.

A core outlives its streams: after a loss its session is resumed on another stream, and the layers above do
not notice. When that is no longer possible the session is over, and a client's connection begins a new one.
Above the core there are *parts* (calls, topics, channels), which get the frames of their family and are told
of the end of a session. What a user holds is a face of the core, made by the layer that knows its parts.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import trio

from heartline.errors import ConnectionClosed, ConnectionLost, HeartlineError, name_of_code
from heartline.link._goodbye import GOODBYE_GRACE, Goodbye
from heartline.link._link import Link
from heartline.link._peer import Peer
from heartline.link._setup import Change, Part, Setup
from heartline.link._state import (
    CONNECTION_TRANSITIONS,
    ConnectionState,
    ConnectionStatistics,
    ConnectionStep,
)
from heartline.session import CloseCode, GoAway, Role
from heartline.session.session import Event
from heartline.wire import Frame
from heartline.wire.text import printable

__all__ = ["Core", "bare"]

logger = logging.getLogger("heartline.link")

P = TypeVar("P", bound=Part)

_OPEN, _LEAVING, _LOST, _CLOSED = (
    ConnectionState.OPEN,
    ConnectionState.LEAVING,
    ConnectionState.LOST,
    ConnectionState.CLOSED,
)


class Core:
    """The engine of one connection."""

    __slots__ = (
        "_goodbye",
        "_links",
        "_parts",
        "_resumed",
        "_state_changed",
        "attempt",
        "dialing",
        "face",
        "id",
        "link",
        "peer",
        "reason",
        "role",
        "setup",
        "state",
    )

    def __init__(self, setup: Setup, role: Role, peer: Peer) -> None:
        self.setup: Setup = setup
        self.role: Role = role
        self.id: str = ""
        self.peer: Peer = peer
        """The peer at the other end of the present or the last link."""
        self.state: ConnectionState = ConnectionState.CONNECTING
        self.link: Link | None = None
        """The session's link, up or down; ``None`` while there is no session."""
        self.reason: HeartlineError | None = None
        """Why the link, or the session, was lost last; ``None`` while there is a link."""
        self.attempt: tuple[bytes, int] | None = None
        """The client, and the number of the HELLO with which the present link began."""
        self.dialing: trio.CancelScope | None = None
        """A client's attempts to get a new link run in it."""
        self.face: object = None
        """What users hold of this connection, once the layer above has made it."""
        self._links = self._resumed = 0
        self._parts: dict[int, Part] = {}
        self._goodbye: Goodbye | None = None
        self._state_changed: trio.lowlevel.ParkingLot | None = None

    def __str__(self) -> str:
        return printable(f"{self.id or '(no id yet)'} at {self.place}")

    @property
    def place(self) -> str:
        """Where the peer is, in a few words: a client dials the URL again, whatever the address was.

        Without the query of the URL, which may be a token.
        """
        return (self.role is Role.CLIENT and self.peer.url.partition("?")[0]) or self.peer.address

    # Parts

    def part(self, kind: type[P]) -> P:
        """The part of this class."""
        part = self._parts.get(kind.family)
        if part is None:
            part = self._make_part(kind.family)
        return cast(P, part)

    def find_part(self, kind: type[P]) -> P | None:
        """The part of this class, if it was needed yet."""
        return cast("P | None", self._parts.get(kind.family))

    def _make_part(self, family: int) -> Part:
        part = self._parts[family] = self.setup.parts[family](self)
        return part

    def handle(self, events: list[Event]) -> None:
        """Hand out what has come in; it is void when the session has ended while it waited for its turn."""
        if self.link is None:
            return
        parts = self._parts
        for event in events:
            if type(event) is Frame:
                family = event.type >> 4
                part = parts.get(family)
                if part is None:
                    part = self._make_part(family)
                part.on_frame(event)
            elif type(event) is GoAway:
                self._on_goodbye(event)

    @property
    def idle(self) -> bool:
        """Whether no part has anything in progress that a drain should wait for."""
        return all(part.idle for part in self._parts.values())

    @property
    def held(self) -> int:
        """Bytes that this connection holds: in its session, its stream and its parts."""
        link = self.link
        return (link.held if link is not None else 0) + sum(part.held for part in self._parts.values())

    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Run a handler in the endpoint's nursery; it must not let an error escape."""
        self.setup.nursery.start_soon(function, *args)

    # State

    def require_link(self) -> Link:
        """The session's link; raises :class:`ConnectionLost` or :class:`ConnectionClosed`."""
        if self.link is None:
            raise self.closed_error()
        return self.link

    def closed_error(self) -> HeartlineError:
        """The error to raise where a session is needed, and there is none or it takes nothing new."""
        reason = self.reason
        if isinstance(reason, ConnectionClosed) and (
            not reason.by_peer or self.state is _LEAVING or self.state is _CLOSED
        ):
            return ConnectionClosed(str(reason), code=reason.code, by_peer=reason.by_peer)
        over = self.state is _CLOSED
        error = ConnectionLost(
            f"the connection has ended: {reason}" if over else "there is no link at the moment"
        )
        error.__cause__ = reason
        return error

    def end_error(self) -> HeartlineError:
        """The error that says why the connection is closed for good."""
        assert self.reason is not None
        return self.closed_error() if isinstance(self.reason, ConnectionClosed) else self.reason

    async def wait_open(self) -> None:
        """Wait until the connection has a link; raises the reason when it is closed for good."""
        await trio.lowlevel.checkpoint()
        while self.state is not _OPEN:
            if self.state is _CLOSED:
                raise self.end_error()
            await self._wait_change()

    async def _wait_change(self) -> None:
        if self._state_changed is None:
            self._state_changed = trio.lowlevel.ParkingLot()
        await self._state_changed.park()

    def _step(self, step: ConnectionStep) -> None:
        self.state = CONNECTION_TRANSITIONS[self.state, step]
        if self._state_changed is not None:
            self._state_changed.unpark_all()

    def statistics(self) -> ConnectionStatistics:
        """A snapshot of the connection, without its channels."""
        link = self.link
        session = link.session if link else None
        now = trio.current_time()
        return ConnectionStatistics(
            state=self.state,
            links=self._links,
            resumed=self._resumed,
            frames_sent=session.sent if session else 0,
            frames_received=session.received if session else 0,
            backlog=link.backlog if link else 0,
            unconfirmed=session.replay.size if session else 0,
            held=self.held,
            round_trip=session.pulse.rtt if session else None,
            silence=now - session.pulse.heard if session else float("inf"),
            suspicion=session.pulse.suspicion(now) if session else float("inf"),
            channels=0,
        )

    # The goodbye

    @trio.lowlevel.enable_ki_protection
    def close(self, code: int, reason: str, *, drain: float = 0.0) -> None:
        """Say goodbye without waiting; while the link is down this ends the session instead.

        The link ends when the peer has answered; with ``drain``, in seconds, not before everything in
        progress has ended. At the latest it ends ``GOODBYE_GRACE`` seconds after the drain.
        """
        link = self.link
        if link is None:
            return
        why = _with_code(reason, code)
        error = ConnectionClosed(f"the connection was closed here: {why}", code=code, by_peer=False)
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
        code = CloseCode.known(message.code)
        why = _with_code(printable(message.reason) or "no reason given", code)
        error = ConnectionClosed(f"the peer closed the connection: {why}", code=code, by_peer=True)
        self._leave(goodbye, error)

    def _leave(self, goodbye: Goodbye, error: ConnectionClosed) -> None:
        self._goodbye = goodbye
        self.reason = error
        self._step(ConnectionStep.GOODBYE)
        self.leave_when_idle()

    def leave_when_idle(self) -> None:
        """Let a goodbye that is under way go on if it can; to be called when something has ended."""
        if self._goodbye is not None:
            self._goodbye.go_on(idle=self.idle)

    async def aclose(self) -> None:
        """Say goodbye, wait for its end, and finish; bounded by the goodbye's grace.

        What was sent before still arrives: the peer has a second to answer, and another second to take the
        rest. In a cancelled scope nothing is waited for.
        """
        self.close(CloseCode.NORMAL, "its application closed the connection")
        closed = ConnectionClosed("the connection was closed here", code=CloseCode.NORMAL, by_peer=False)
        if self.link is None:  # there is nobody to say goodbye to
            self.finish(closed)
        try:
            with trio.CancelScope(deadline=trio.current_time() + 3 * GOODBYE_GRACE):
                await trio.lowlevel.checkpoint()
                while self.state is not _CLOSED:
                    await self._wait_change()
        finally:
            if self.link is not None:
                self.link.scope.cancel()
            self.finish(closed)

    # Links and sessions

    def begin_link(self, link: Link) -> None:
        """Begin to use a link, of a new session or of the present one."""
        resumed = self.link is link
        self._links += 1
        self._resumed += resumed
        self.reason = None
        self.link = link
        link.owner = self
        link.session.pulse.begin(trio.current_time())
        self.setup.timer.add(link)
        self._step(ConnectionStep.LINK_UP)
        link.troubles = self.setup.troubles
        if self._links > 1:
            log = logger.info if self.setup.comings.admit("back") else logger.debug
            log("%s: there is a link again, for %s", self, "its session" if resumed else "a new session")
        renewed = Change.RESUMED if resumed else Change.RENEWED
        self._tell(Change.OPENED if self._links == 1 else renewed)
        link.flush()

    async def end_link(self, link: Link, reason: HeartlineError | None) -> None:
        """End the link's use of its stream; with a ``reason`` the session ends too."""
        final = reason or link.failure or self.reason
        self.reason = (
            self.reason or final or link.loss or ConnectionLost("the peer ended the stream without a goodbye")
        )
        self.setup.timer.discard(link)
        if self.link is not link:  # the session was ended meanwhile
            await link.aclose(grace=GOODBYE_GRACE)
        elif final is None and link.session.resumable:
            link.session.lose()
            link.lose(self.reason)
            self._on_lost(self.reason, waits=True)
            await link.go_down(grace=GOODBYE_GRACE)
        else:
            self._on_lost(self.reason, waits=self.role is Role.CLIENT)
            self.end_session(self.reason)
            await link.aclose(grace=GOODBYE_GRACE)

    def _on_lost(self, reason: HeartlineError, *, waits: bool) -> None:
        """Note that the link is down; ``waits`` says whether the connection waits for another one."""
        if self.state is not _CLOSED:
            self._step(ConnectionStep.LINK_DOWN)
            if waits:
                if not _is_on_purpose(reason):
                    log = logger.info if self.setup.comings.admit("lost") else logger.debug
                    log("%s: lost: %s", self, reason)
                self._tell(Change.LOST, reason)

    def end_session(self, reason: HeartlineError) -> None:
        """End the session, and what the parts have in progress; the next link begins another session."""
        link, self.link = self.link, None
        if link is None:
            return
        if self.state is _OPEN or self.state is _LEAVING:
            self._step(ConnectionStep.LINK_DOWN)
        self._goodbye = None
        self.reason = bare(reason)
        for part in self._parts.values():
            try:
                part.on_session_end(reason, link.withdraw)
            except Exception:
                logger.exception("%s: internal error at the end of a session", self)
        if link.up:
            link.wake()
        else:
            link.fail(reason)
            link.session.let_go()

    def finish(self, reason: HeartlineError) -> None:
        """End the connection: no further link will come."""
        if self.state is _CLOSED:
            return
        self.end_session(reason)
        self.reason = reason
        self._step(ConnectionStep.END)
        # On a server connections come and go, but a client's only connection should not end unnoticed.
        if self.role is Role.CLIENT and not _is_on_purpose(reason):
            log = logger.warning
        else:
            sort = self.setup.comings if isinstance(reason, ConnectionClosed) else self.setup.losses
            log = logger.info if sort.admit("ended") else logger.debug
        log("%s: the connection has ended: %s", self, reason)
        if self.dialing is not None:
            self.dialing.cancel()
        self._tell(Change.CLOSED, reason)

    def _tell(self, change: Change, reason: HeartlineError | None = None) -> None:
        self.setup.on_change(self, change, reason)


def bare(reason: HeartlineError) -> HeartlineError:
    """The error without where it comes from, which its text says: it will be the cause of others."""
    reason.__traceback__ = reason.__cause__ = reason.__context__ = None
    return reason


def _with_code(reason: str, code: int) -> str:
    """The text of a goodbye, with its code unless that is the usual one."""
    return reason if code == CloseCode.NORMAL else f"{reason} ({name_of_code(code)})"


def _is_on_purpose(reason: HeartlineError) -> bool:
    """Whether this side closed the connection."""
    return isinstance(reason, ConnectionClosed) and not reason.by_peer
