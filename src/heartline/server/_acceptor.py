"""Letting peers in: one bounded handshake per stream, then the connection's life."""

from __future__ import annotations

import inspect
import logging
import random

import trio

from heartline.connection import (
    Closed,
    Connection,
    ConnectionState,
    Link,
    Lost,
    Opened,
    Reconnected,
    serve_link,
)
from heartline.connection._goodbye import GOODBYE_GRACE
from heartline.connection._handshake import receive_greeting, send_greeting
from heartline.connection._link import close_stream
from heartline.errors import ConnectionClosed, ConnectionLost, HeartlineError, RemoteProtocolError
from heartline.server._server import Authenticate, Server
from heartline.session import CloseCode, Hello, Role, Session, State
from heartline.session.messages import VERSION

__all__ = ["MAX_IDENTITY", "accept_streams", "serve_stream"]

logger = logging.getLogger("heartline")

MAX_IDENTITY = 256
"""Characters in an identity: any name or UUID; it stands in every receipt and log line."""


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
    server: Server, authenticate: Authenticate | None, listener: trio.abc.Listener[trio.abc.Stream]
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
                server.setup.nursery.start_soon(serve_stream, server, authenticate, stream)


@trio.lowlevel.enable_ki_protection
async def serve_stream(server: Server, authenticate: Authenticate | None, stream: trio.abc.Stream) -> None:
    """The whole life of one accepted stream.

    No error gets out of here, be it a peer's, a bug of the stream's own code or one of ours: other streams
    live in the same nursery.
    """
    try:
        await _serve_stream(server, authenticate, stream)
    except* Exception:  # may come in a group beside a cancellation, which goes on
        logger.exception("internal error while serving a stream")
    finally:
        await close_stream(stream, trio.current_time())


async def _serve_stream(server: Server, authenticate: Authenticate | None, stream: trio.abc.Stream) -> None:
    if server.handshaking >= server.setup.limits.handshakes:
        server.refused += 1
        return
    limits = server.setup.limits
    session = Session(Role.SERVER, limits=limits, heartbeat=server.setup.heartbeat, now=trio.current_time())
    admitted: Connection | None = None
    server.handshaking += 1
    try:
        admitted = await _let_in(server, authenticate, stream, session)
    finally:
        server.handshaking -= 1
        if admitted is None:
            server.refused += 1
            await _turn_away(stream, session)
    if admitted is None:
        return
    if admitted.link is None:
        server.register(admitted)
        server.tell(Opened(admitted))
        link = Link(stream, session, server.setup.nursery, write_buffer=limits.write_buffer)
        await _serve(server, admitted, link)
    else:
        await _resume(server, admitted, admitted.link, stream, session)


async def _serve(server: Server, connection: Connection, link: Link) -> None:
    """Serve a link that is up, and when it is lost wait for the stream that takes over.

    Each stream has its own task, and the session goes from one to the next: whoever has it last is here until
    the connection's last event.
    """
    reason: HeartlineError = ConnectionClosed(
        "the server has ended", code=CloseCode.GOING_AWAY, by_peer=False
    )
    granted = False
    try:
        reason = await serve_link(connection, link)
        if connection.link is link:
            server.tell(Lost(connection, reason))
            server.keep_lost(connection)
            window = link.session.resume_window
            with trio.move_on_after(window):
                granted = await link.grant_turn()
            if not granted:
                late = ConnectionLost(f"no link within {window:g} s (Limits.resume_window)")
                connection.end_session(link.failure or late)
                reason = connection.reason or reason
    finally:
        server.lost.discard(connection)
        if not granted:
            _finish(server, connection, link, reason)


async def _resume(
    server: Server, connection: Connection, link: Link, stream: trio.abc.Stream, session: Session
) -> None:
    """Take the session over from the stream before, and serve it on this one."""
    hello = session.peer
    assert isinstance(hello, Hello)
    assert hello.resume is not None
    connection.attempt = hello.attempt
    turn = link.request_turn()
    try:
        if not await turn.wait():
            return
        if link.failure is not None:  # it was closed here, after the turn was granted
            _finish(server, connection, link, connection.reason or link.failure)
            return
        if link.wanted:  # by a newer stream: it is for that one now
            await link.grant_turn()
            return
        session.welcome(connection.id, token=_token(), resumed=True, received=link.session.received)
        link.session.resume(session, hello.resume[1])
        link.come_up(stream)
        connection.address = _address(stream)
    except RemoteProtocolError as error:
        _finish(server, connection, link, error)
        return
    except BaseException:
        if turn.granted:
            _finish(server, connection, link, ConnectionLost("the server has ended"))
        raise
    server.tell(Reconnected(connection, resumed=True))
    await _serve(server, connection, link)


def _finish(server: Server, connection: Connection, link: Link, reason: HeartlineError) -> None:
    """The connection's end, up to its last event."""
    connection.finish(reason)
    server.unregister(connection)
    server.tell(Closed(connection, reason))
    link.deny_turn()


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
    server: Server, authenticate: Authenticate | None, stream: trio.abc.Stream, session: Session
) -> Connection | None:
    """Shake hands; ``None`` when the peer was refused or went away.

    The connection is a new one, welcomed, or one whose session shall go on; that one is welcomed when the
    stream before has ended.
    """
    limits = server.setup.limits
    refusal: _Refused | None = None
    with trio.move_on_after(limits.handshake_timeout) as scope:
        try:
            hello = await receive_greeting(stream, session)
            if hello is None:
                return None
            assert isinstance(hello, Hello), "the session lets nothing else through"
            identity = await _identify(server, authenticate, hello)
            if hello.resume is not None:
                return _find(server, identity, hello)
            connection = Connection(server.setup, Role.SERVER)
            connection.id = identity
            connection.address = _address(stream)
            connection.attempt = hello.attempt
            session.welcome(identity, token=_token() if hello.resume_window and limits.resume_window else b"")
            return connection
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


def _find(server: Server, identity: str, hello: Hello) -> Connection:
    """The connection whose session is to go on; raises ``_Refused`` unless the token is that session's."""
    connection = server.table.get(identity)
    link = connection.link if connection is not None else None
    if connection is None or link is None or link.failure is not None or hello.resume is None:
        raise _Refused(CloseCode.NO_SESSION, "there is no such session, or it has ended")
    if connection.state is ConnectionState.LEAVING or not link.session.admits(hello.resume, hello.limits):
        raise _Refused(CloseCode.NO_SESSION, "the session cannot go on here")
    return connection


async def _identify(server: Server, authenticate: Authenticate | None, hello: Hello) -> str:
    """The id under which the peer is let in; raises ``_Refused``."""
    if hello.version != VERSION:
        raise _Refused(
            CloseCode.UNSUPPORTED_VERSION, f"version {hello.version} is not spoken here, version {VERSION} is"
        )
    identity = hello.identity
    if authenticate is not None:
        identity = await _authenticate(authenticate, hello)
    # Nothing is awaited from here to the registration: what is true now holds then.
    if server.draining.is_set():
        raise _Refused(CloseCode.GOING_AWAY, "the server is draining")
    full = len(server.table) >= server.setup.limits.connections and identity not in server.table
    if full and not server.end_first_lost():
        raise _Refused(CloseCode.OVERLOADED, f"all {len(server.table)} places are taken (Limits.connections)")
    if identity in server.table and _is_stale(hello.attempt, server.table[identity].attempt):
        raise _Refused(CloseCode.NO_SESSION, "a later HELLO of this client has been answered")
    if identity is None:
        return f"{server.setup.rng.getrandbits(64):016x}"
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


def _address(stream: trio.abc.Stream) -> str:
    """The peer's address as text, as far as the stream knows it."""
    while not isinstance(stream, trio.SocketStream):
        inner = getattr(stream, "transport_stream", None)
        if inner is None:
            return type(stream).__name__
        stream = inner
    try:
        name = stream.socket.getpeername()
    except OSError:
        return "gone"
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"
