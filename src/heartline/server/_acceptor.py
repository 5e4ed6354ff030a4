"""Letting peers in: one bounded handshake per stream, then the connection's life."""

from __future__ import annotations

import inspect
import logging

import trio

from heartline.connection import Closed, Connection, Link, Opened
from heartline.connection._connection import GOODBYE_GRACE
from heartline.errors import ConnectionClosed, ConnectionLost, HeartlineError, RemoteProtocolError
from heartline.server._server import Authenticate, Server
from heartline.session import CloseCode, Hello, Role, Session, State
from heartline.session.messages import VERSION

__all__ = ["MAX_IDENTITY", "serve_stream"]

logger = logging.getLogger("heartline")

MAX_IDENTITY = 256
"""Characters in an identity: any name or UUID; it stands in every receipt and log line."""


class _Refused(Exception):
    """The peer is not let in."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


async def serve_stream(server: Server, authenticate: Authenticate | None, stream: trio.abc.Stream) -> None:
    """The whole life of one accepted stream; no peer's mistake gets out of here."""
    setup = server.setup
    if server.handshaking >= setup.limits.handshakes:
        server.refused += 1
        await trio.aclose_forcefully(stream)
        return
    session = Session(Role.SERVER, limits=setup.limits, heartbeat=setup.heartbeat, now=trio.current_time())
    link = Link(stream, session, setup.nursery, write_buffer=setup.limits.write_buffer)
    connection: Connection | None = None
    server.handshaking += 1
    try:
        connection = await _let_in(server, authenticate, link)
    finally:
        server.handshaking -= 1
        if connection is None:
            server.refused += 1
            await link.aclose(grace=GOODBYE_GRACE)
    if connection is not None:
        await _serve(server, connection, link)


async def _serve(server: Server, connection: Connection, link: Link) -> None:
    """The life of a connection that was let in, up to its last event."""
    reason: HeartlineError = ConnectionClosed(
        "the server has ended", code=CloseCode.GOING_AWAY, by_peer=False
    )
    server.register(connection)
    server.tell(Opened(connection))
    try:
        reason = await connection.run_link(link, [])
    finally:
        connection.finish(reason)
        server.unregister(connection)
        server.tell(Closed(connection, reason))


async def _let_in(server: Server, authenticate: Authenticate | None, link: Link) -> Connection | None:
    """Shake hands; ``None`` when the peer was refused or went away."""
    limits = server.setup.limits
    refusal: _Refused | None = None
    with trio.move_on_after(limits.handshake_timeout) as scope:
        try:
            events = await link.receive()
            if not events:
                return None
            hello = events[0]
            assert isinstance(hello, Hello), "the session lets nothing else through"
            connection = Connection(server.setup, Role.SERVER)
            connection.id = await _identify(server, authenticate, hello)
            connection.address = _address(link.stream)
            link.session.welcome(connection.id)
            link.flush()
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
    if refusal is not None and link.session.state in (State.NEW, State.GREETING):
        link.session.refuse(refusal.code, refusal.reason)
    return None


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
    if len(server.table) >= server.setup.limits.connections and identity not in server.table:
        raise _Refused(CloseCode.OVERLOADED, f"all {len(server.table)} places are taken (Limits.connections)")
    if identity is None:
        return f"{server.setup.rng.getrandbits(64):016x}"
    if not 0 < len(identity) <= MAX_IDENTITY or not identity.isprintable():
        raise _Refused(CloseCode.PROTOCOL_ERROR, f"an identity has 1 to {MAX_IDENTITY} printable characters")
    return identity


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
