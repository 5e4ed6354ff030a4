"""Letting peers in: one bounded handshake per stream, then the connection's life."""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from heartline.errors import ConnectionClosed, ConnectionLost, HeartlineError, RemoteProtocolError
from heartline.link import (
    GOODBYE_GRACE,
    ConnectionState,
    Core,
    Link,
    close_stream,
    receive_greeting,
    send_greeting,
    serve_link,
)
from heartline.server._handover import State as HandoverState
from heartline.server._table import Table
from heartline.session import CloseCode, Hello, Role, Session, State
from heartline.session.messages import VERSION
from heartline.transports import describe

__all__ = ["MAX_IDENTITY", "Authenticate", "accept_streams", "serve_stream"]

logger = logging.getLogger("heartline.server")

MAX_IDENTITY = 256
"""Characters in an identity: any name or UUID; it stands in every receipt and log line."""


Authenticate = Callable[[Any, "str | None"], "str | Awaitable[str | None] | None"]
"""``(credentials, identity) -> identity``: who the peer is, or ``None`` to take it at its word; raises
:class:`PermissionError` to turn it away."""

TOKEN_SIZE = 16
"""Bytes of a token: nobody guesses one of 2**128."""

ACCEPT_PAUSE = 0.1
"""Seconds between an accept that failed and the next one: descriptors that ran out may be free again by then,
and a listener that always fails does not fill the log."""


class _Refused(Exception):
    """The peer is not let in."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


@trio.lowlevel.enable_ki_protection
async def accept_streams(
    table: Table, authenticate: Authenticate | None, listener: trio.abc.Listener[trio.abc.Stream]
) -> None:
    """Accept until cancelled, which closes the listener; each stream is served in a task of its own.

    An accept that fails is logged, and the next one tried: that stream may have failed, or the system may be
    short of descriptors. Raises :class:`trio.ClosedResourceError` when somebody closed the listener.
    """
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except trio.ClosedResourceError:
                raise
            except Exception:
                logger.exception("a listener could not accept a stream; it tries again in %g s", ACCEPT_PAUSE)
                await trio.sleep(ACCEPT_PAUSE)
            else:
                table.setup.nursery.start_soon(serve_stream, table, authenticate, stream)


@trio.lowlevel.enable_ki_protection
async def serve_stream(table: Table, authenticate: Authenticate | None, stream: trio.abc.Stream) -> None:
    """The whole life of one accepted stream.

    No error gets out of here, be it a peer's, a bug of the stream's own code or one of ours: other streams
    live in the same nursery.
    """
    try:
        await _serve_stream(table, authenticate, stream)
    except* Exception:  # may come in a group beside a cancellation, which goes on
        logger.exception("internal error while serving a stream")
    finally:
        await close_stream(stream, trio.current_time())


async def _serve_stream(table: Table, authenticate: Authenticate | None, stream: trio.abc.Stream) -> None:
    limits = table.setup.limits
    if table.handshaking >= limits.handshakes:
        table.refused += 1
        return
    session = Session(Role.SERVER, limits=limits, heartbeat=table.setup.heartbeat, now=trio.current_time())
    core: Core | None = None
    table.handshaking += 1
    try:
        core = await _let_in(table, authenticate, stream, session)
    finally:
        table.handshaking -= 1
        if core is None:
            table.refused += 1
            await _turn_away(stream, session)
    if core is None:
        return
    if core.link is None:
        table.register(core)
        link = Link(stream, session, table.setup.nursery, write_buffer=limits.write_buffer)
        await _serve(table, core, link)
    else:
        await _resume(table, core, core.link, stream, session)


async def _serve(table: Table, core: Core, link: Link) -> None:
    """Serve a link that is up, and when it is lost wait for the stream that takes over.

    Each stream has its own task, and the session goes from one to the next: the last that holds it ends the
    connection.
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


async def _resume(table: Table, core: Core, link: Link, stream: trio.abc.Stream, session: Session) -> None:
    """Take the session over from the stream before, and serve it on this one."""
    hello = session.peer
    assert isinstance(hello, Hello)
    assert hello.resume is not None
    core.attempt = hello.attempt
    handover = table.handover(core, link)
    granted = False
    try:
        granted = await handover.request()
        if not granted:
            return
        if link.failure is not None:  # it was closed here, after it was granted
            _finish(table, core, core.reason or link.failure)
            return
        if handover.state is HandoverState.WANTED:  # by a newer stream: it is for that one now
            await handover.grant()
            return
        session.welcome(core.id, token=_token(), resumed=True, received=link.session.received)
        link.session.resume(session, hello.resume[1])
        link.come_up(stream)
        core.address = describe(stream).address
    except RemoteProtocolError as error:
        _finish(table, core, error)
        return
    except BaseException:
        if granted:
            _finish(table, core, ConnectionLost("the server has ended"))
        raise
    await _serve(table, core, link)


def _finish(table: Table, core: Core, reason: HeartlineError) -> None:
    """The end of a connection."""
    core.finish(reason)
    table.unregister(core)


def _token() -> bytes:
    """From the system, whatever the endpoint's source of chance: nobody may foresee it."""
    return random.SystemRandom().randbytes(TOKEN_SIZE)


async def _turn_away(stream: trio.abc.Stream, session: Session) -> None:
    """Say why, if there is a reason to say, and close; all within a second."""
    deadline = trio.current_time() + GOODBYE_GRACE
    try:
        with trio.CancelScope(shield=True, deadline=deadline):
            await send_greeting(stream, session)
    except Exception:
        logger.warning("the stream of a peer raised while it was turned away", exc_info=True)
    await close_stream(stream, deadline)


async def _let_in(
    table: Table, authenticate: Authenticate | None, stream: trio.abc.Stream, session: Session
) -> Core | None:
    """Shake hands; ``None`` when the peer was refused or went away.

    The connection is a new one, welcomed, or one whose session shall go on; that one is welcomed when the
    stream before has ended.
    """
    limits = table.setup.limits
    refusal: _Refused | None = None
    with trio.move_on_after(limits.handshake_timeout) as scope:
        try:
            hello = await receive_greeting(stream, session)
            if hello is None:
                return None
            assert isinstance(hello, Hello), "the session lets nothing else through"
            identity = await _identify(table, authenticate, hello)
            if hello.resume is not None:
                return _find(table, identity, hello)
            core = Core(table.setup, Role.SERVER)
            core.id = identity
            core.address = describe(stream).address
            core.attempt = hello.attempt
            session.welcome(identity, token=_token() if hello.resume_window and limits.resume_window else b"")
            return core
        except _Refused as error:
            refusal = error
        except RemoteProtocolError as error:
            refusal = _Refused(CloseCode.PROTOCOL_ERROR, str(error))
        except ConnectionLost:
            return None
        except Exception:
            # Nobody is known yet, but the server lives on here too.
            logger.exception("internal error in a handshake")
            refusal = _Refused(CloseCode.INTERNAL_ERROR, "internal error")
    if scope.cancelled_caught:
        refusal = _Refused(CloseCode.HANDSHAKE_TIMEOUT, f"no handshake within {limits.handshake_timeout:g} s")
    if refusal is not None and session.state in (State.NEW, State.GREETING):
        session.refuse(refusal.code, refusal.reason)
    return None


def _find(table: Table, identity: str, hello: Hello) -> Core:
    """The connection whose session is to go on; raises ``_Refused`` unless the token is that session's."""
    core = table.cores.get(identity)
    link = core.link if core is not None else None
    if core is None or link is None or link.failure is not None or hello.resume is None:
        raise _Refused(CloseCode.NO_SESSION, "there is no such session, or it has ended")
    if core.state is ConnectionState.LEAVING or not link.session.admits(hello.resume, hello.limits):
        raise _Refused(CloseCode.NO_SESSION, "the session cannot go on here")
    return core


async def _identify(table: Table, authenticate: Authenticate | None, hello: Hello) -> str:
    """The id under which the peer is let in; raises ``_Refused``."""
    if hello.version != VERSION:
        raise _Refused(
            CloseCode.UNSUPPORTED_VERSION, f"version {hello.version} is not spoken here, version {VERSION} is"
        )
    identity = hello.identity
    if authenticate is not None:
        identity = await _authenticate(authenticate, hello)
    # Nothing is awaited from here to the registration: what is true now holds then.
    if table.draining:
        raise _Refused(CloseCode.GOING_AWAY, "the server is draining")
    if table.full and identity not in table.cores and not table.end_first_lost():
        raise _Refused(CloseCode.OVERLOADED, f"all {len(table.cores)} places are taken (Limits.connections)")
    if identity in table.cores and _is_stale(hello.attempt, table.cores[identity].attempt):
        raise _Refused(CloseCode.NO_SESSION, "a later HELLO of this client has been answered")
    if identity is None:
        return f"{table.setup.rng.getrandbits(64):016x}"
    if not 0 < len(identity) <= MAX_IDENTITY or not identity.isprintable():
        raise _Refused(CloseCode.PROTOCOL_ERROR, f"an identity has 1 to {MAX_IDENTITY} printable characters")
    return identity


def _is_stale(attempt: tuple[bytes, int] | None, present: tuple[bytes, int] | None) -> bool:
    """Whether a HELLO is no newer than the one that began the present link, and of the same client."""
    if attempt is None or present is None:
        return False
    return attempt[0] == present[0] and attempt[1] <= present[1]


@trio.lowlevel.disable_ki_protection  # the user's own code
async def _authenticate(authenticate: Authenticate, hello: Hello) -> str | None:
    try:
        identity = authenticate(hello.credentials, hello.identity)
        if inspect.isawaitable(identity):
            identity = await identity
        if not isinstance(identity, str | None):
            raise TypeError(f"authenticate returned {identity!r}, not an identity (str) or None")
    except PermissionError as error:
        raise _Refused(CloseCode.UNAUTHENTICATED, str(error) or "the credentials were not accepted") from None
    except Exception:
        logger.exception("authenticate failed")
        raise _Refused(CloseCode.INTERNAL_ERROR, "the server could not check the credentials") from None
    return hello.identity if identity is None else identity
