"""Letting peers in: one bounded handshake per stream, then the connection's life."""

from __future__ import annotations

import logging
import random
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from heartline.errors import ConnectionClosed, ConnectionLost, HeartlineError, RemoteProtocolError
from heartline.link import (
    GOODBYE_GRACE,
    Core,
    Link,
    Peer,
    close_stream,
    read_some,
    receive_greeting,
    send_greeting,
    serve_link,
)
from heartline.observe import own_error, report, sort_out
from heartline.server._admission import Authenticate, authenticate_peer, check_version, find_place
from heartline.server._dialects import NATIVE, Dialect, Visit, answer_unknown
from heartline.server._handover import State as HandoverState
from heartline.server._handshakes import Handshake
from heartline.server._refusals import Refused
from heartline.server._table import Table
from heartline.session import CloseCode, Hello, Role, Session, State
from heartline.transports import Listener, describe

__all__ = ["Acceptor"]

logger = logging.getLogger("heartline.server")

TOKEN_SIZE = 16
"""Bytes of a token: nobody guesses one of 2**128."""

ACCEPT_PAUSE = 0.1
"""Seconds between an accept that failed and the next one: descriptors that ran out may be free again by then,
and a listener that always fails does not fill the log."""


class Acceptor:
    """Takes in the streams of a server, and serves each in a task of its own."""

    def __init__(
        self, table: Table, authenticate: Authenticate | None, dialects: Mapping[int, Dialect]
    ) -> None:
        self._table = table
        self._authenticate = authenticate
        self._dialects = dialects
        self._turning_away = 0

    @trio.lowlevel.enable_ki_protection
    async def accept(self, listener: Listener) -> None:
        """Accept streams until cancelled; then the listener is closed.

        An accept that fails is logged and tried again: a single stream may have failed, or the system may be
        short of descriptors. Raises :class:`trio.ClosedResourceError` when somebody closed the listener.
        """
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except trio.ClosedResourceError:
                    raise
                except BaseException as error:  # may come in a group beside the cancellation, which goes on
                    self._report_accepting(error)
                    await trio.sleep(ACCEPT_PAUSE)
                else:
                    self._table.setup.nursery.start_soon(self.serve, stream, listener.url)

    def _report_accepting(self, error: BaseException) -> None:
        text, kind = "a listener could not accept a stream, and goes on trying: %r", "failures to accept"
        if not isinstance(error, OSError):
            self._report(error, kind, text, error)
        elif self._table.setup.troubles.admit(kind):
            logger.error(text, error)  # the system's own errors, such as a lack of descriptors, are no bugs

    def _report(self, error: BaseException, kind: str, message: str, *args: object) -> None:
        report(logger, error, message, *args, admit=partial(self._table.setup.troubles.admit, kind))

    @trio.lowlevel.enable_ki_protection
    async def serve(self, stream: trio.abc.Stream, url: str) -> None:
        """Serve one accepted stream, from its handshake to its end.

        No error leaves this method, whether a peer, the stream's own code or this server caused it: the tasks
        of other streams are in the same nursery.
        """
        try:
            admitted = await self._admit(stream, url)
            if admitted is not None:
                await self._begin(stream, *admitted)
        except BaseException as error:  # may come in a group beside a cancellation, which goes on
            own, passing = sort_out(error)
            if own is not None:
                self._report(own, "internal errors", "internal error while serving a stream")
            if passing is not None:
                self._table.setup.let_pass(passing)
        finally:
            await close_stream(stream, trio.current_time())

    def _begin(
        self, stream: trio.abc.Stream, core: Core, session: Session, peer: Peer
    ) -> Coroutine[Any, Any, None]:
        """Serve an admitted stream until it ends; to be awaited."""
        table = self._table
        if core.link is not None:
            return _resume(table, core, core.link, stream, session, peer)
        table.register(core)
        log = logger.info if table.setup.comings.admit("let in") else logger.debug
        log("%s: let in", core)
        link = Link(stream, session, table.setup.nursery, write_buffer=table.setup.limits.write_buffer)
        return _serve(table, core, link)

    # The handshake

    async def _admit(self, stream: trio.abc.Stream, url: str) -> tuple[Core, Session, Peer] | None:
        """Shake hands; ``None`` when the peer was refused, or a dialect has served it."""
        table = self._table
        setup = table.setup
        session = Session(
            Role.SERVER, limits=setup.limits, heartbeat=setup.heartbeat, now=trio.current_time()
        )
        handshake: Handshake | None = None
        try:
            handshake = table.handshakes.begin(stream)
            core = await self._shake_hands(stream, session, handshake, url)
        except Refused as refused:
            await self._turn_away(stream, session, handshake, refused)
            return None
        except BaseException:  # a cancellation, perhaps in a group: the server ends
            if session.state is State.GREETING:  # a client that waits to be let in hears why
                going = Refused(CloseCode.GOING_AWAY, "the server is draining")
                await self._turn_away(stream, session, handshake, going)
            raise
        if core is None:
            return None
        assert handshake.peer is not None
        return core, session, handshake.peer

    async def _shake_hands(
        self, stream: trio.abc.Stream, session: Session, handshake: Handshake, url: str
    ) -> Core | None:
        """Return the connection that the stream is for, or ``None`` when a dialect has served the stream.

        A new connection has been welcomed. One whose session is to go on is welcomed later, when its former
        stream has ended. Raises ``Refused``.
        """
        try:
            with handshake.scope:
                first = await read_some(stream)
                handshake.peer = Peer.of(describe(stream), url=url)
                if not first:
                    raise Refused(None, "")
                if first[0] == NATIVE:
                    return await self._let_in(stream, first, session, handshake)
                handshake.understood = False
                await self._serve_dialect(stream, first, handshake)
                return None
        except Refused:
            raise
        except RemoteProtocolError as error:
            raise Refused(CloseCode.PROTOCOL_ERROR, str(error)) from None
        except ConnectionLost as error:
            raise Refused(None, str(error)) from None
        except BaseException as error:
            # As everywhere, a bug met on one stream must not end the server.
            raise Refused(CloseCode.INTERNAL_ERROR, "internal error") from own_error(error)
        finally:
            self._table.handshakes.end(handshake)
        raise self._table.handshakes.verdict(handshake)

    async def _let_in(
        self, stream: trio.abc.Stream, first: bytes, session: Session, handshake: Handshake
    ) -> Core:
        """Handle the HELLO of a native client; raises ``Refused``."""
        table = self._table
        hello = await receive_greeting(stream, session, first)
        if hello is None:
            raise Refused(None, "")
        assert isinstance(hello, Hello), "the session lets nothing else through"
        table.handshakes.complete(handshake)
        check_version(hello)
        assert handshake.peer is not None
        peer = handshake.peer = replace(handshake.peer, identity=hello.identity)
        claim = replace(peer, credentials=hello.credentials)
        vouched_for = await authenticate_peer(table.setup.hooks, self._authenticate, claim)
        place = find_place(table, hello, vouched_for)
        if isinstance(place, Core):
            return place
        core = Core(table.setup, Role.SERVER, peer)
        core.id = place
        core.attempt = hello.attempt
        resumable = hello.resume_window and table.setup.limits.resume_window
        session.welcome(core.id, token=_token() if resumable else b"")
        return core

    async def _serve_dialect(self, stream: trio.abc.Stream, first: bytes, handshake: Handshake) -> None:
        table = self._table
        assert handshake.peer is not None
        visit = Visit._create(handshake.peer, handshake, table.handshakes, table.refusals)
        try:
            await self._dialects.get(first[0], answer_unknown)(stream, first, visit)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            logger.debug("%s broke off: %s", handshake.peer.address, error)
        except BaseException as error:
            self._report(error, "dialects raised", "the dialect of the first byte 0x%02x raised", first[0])
        await close_stream(stream, trio.current_time() + GOODBYE_GRACE)

    async def _turn_away(
        self, stream: trio.abc.Stream, session: Session, handshake: Handshake | None, refused: Refused
    ) -> None:
        """Tell the peer why, if it can understand that, and close; all within a second."""
        if handshake is not None and not handshake.understood:
            refused.code = None
        self._table.refusals.record(_address(stream, handshake), refused)
        if self._turning_away >= self._table.setup.limits.handshakes:
            return  # in a flood streams are closed without a word: each would take up to a second
        deadline = trio.current_time() + GOODBYE_GRACE
        self._turning_away += 1
        try:
            if refused.code is not None and session.state in (State.NEW, State.GREETING):
                session.refuse(refused.code, refused.reason)
                with trio.CancelScope(shield=True, deadline=deadline):
                    await send_greeting(stream, session)
        except BaseException as error:
            own = own_error(error)
            if self._table.setup.troubles.admit("streams raised"):
                logger.warning("the stream of a peer raised while it was turned away", exc_info=own)
        finally:
            # A transport may have sent its own reason, which needs a moment to arrive.
            await close_stream(stream, deadline)
            self._turning_away -= 1


def _address(stream: trio.abc.Stream, handshake: Handshake | None) -> str:
    """Where a stream comes from, for the log."""
    if handshake is not None and handshake.peer is not None:
        return handshake.peer.address
    try:
        return describe(stream).address
    except BaseException as error:
        own_error(error)  # Ctrl-C goes on
        return type(stream).__name__


def _token() -> bytes:
    """A token from the system's random source, whatever the endpoint's ``rng``: nobody may predict it."""
    return random.SystemRandom().randbytes(TOKEN_SIZE)


async def _serve(table: Table, core: Core, link: Link) -> None:
    """Serve a link that is up; when it is lost, wait for the stream that takes over.

    Each stream has a task of its own, and the session passes from one task to the next. The last task that
    holds the session ends the connection.
    """
    reason: HeartlineError = ConnectionClosed(
        "the server has ended", code=CloseCode.GOING_AWAY, by_peer=False
    )
    granted = False
    try:
        reason = await serve_link(core, link)
        if core.link is link:
            table.keep_lost(core)
            window = link.session.resume_window
            with trio.move_on_after(window):
                granted = await table.handover(core, link).grant()
            if not granted:
                late = ConnectionLost(f"no link within {window:g} s (Limits.resume_window)")
                core.end_session(link.failure or late)
                reason = core.reason or reason
    finally:
        table.come_back(core)
        if not granted:
            _finish(table, core, reason)


async def _resume(
    table: Table, core: Core, link: Link, stream: trio.abc.Stream, session: Session, peer: Peer
) -> None:
    """Take the session over from its former stream, and serve it on this one."""
    hello = session.peer
    assert isinstance(hello, Hello)
    assert hello.resume is not None
    core.attempt = hello.attempt
    handover = table.handover(core, link)
    if not await handover.request():
        return
    if link.failure is not None:  # it was closed here, after it was granted
        _finish(table, core, core.reason or link.failure)
        return
    if handover.state is HandoverState.WANTED:  # by a newer stream: it is for that one now
        await handover.grant()
        return
    session.welcome(core.id, token=_token(), resumed=True, received=link.session.received)
    try:
        link.session.resume(session, hello.resume[1])
    except RemoteProtocolError as error:  # the stream before has confirmed meanwhile what this one lacks
        _finish(table, core, error)
        return
    link.come_up(stream)
    core.peer = peer
    await _serve(table, core, link)


def _finish(table: Table, core: Core, reason: HeartlineError) -> None:
    """End a connection."""
    core.finish(reason)
    table.unregister(core)
