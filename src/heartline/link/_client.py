"""A client's connection: dial, greet, serve the link, and again after each loss.

After a loss the client tries to resume the session. When the server no longer knows the session, or no link
comes in time, the session is over, and the next link begins a new one.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import trio

from heartline.errors import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionLost,
    ConnectionRefusedByPeer,
    HeartlineError,
    ProtocolError,
    RemoteProtocolError,
    SerializationError,
)
from heartline.link._backoff import Backoff
from heartline.link._core import Core, bare
from heartline.link._credentials import Credentials
from heartline.link._goodbye import GOODBYE_GRACE
from heartline.link._handshake import read_some, receive_greeting, send_greeting
from heartline.link._id import MAX_IDENTITY
from heartline.link._link import Link, close_stream
from heartline.link._peer import Peer
from heartline.link._serving import serve_link
from heartline.link._state import ConnectionState
from heartline.observe import own_error, report, sort_out
from heartline.session import CloseCode, GoAway, Refuse, Role, Session, State, Welcome
from heartline.session.session import Event
from heartline.transports import describe
from heartline.wire.text import is_name, printable

__all__ = ["connect", "connect_first", "run_client"]

logger = logging.getLogger("heartline.link")

Dial = Callable[[], Awaitable[trio.abc.Stream]]
T = TypeVar("T")


class _Forgotten(Exception):
    """The server does not know the session that was to be resumed."""


async def connect(core: Core, dial: Dial, *, identity: str | None, credentials: Credentials) -> Link:
    """Open a link and shake hands, once: for the session that lost its link, if any, or for a new one.

    Raises :class:`ConnectionFailed` (or its subclass for a refusal), or :class:`RemoteProtocolError` when
    the other end does not speak the protocol; and what the function for the credentials raises when it is
    called for the first time. Cancelling leaves no stream behind, and a server that lets this client in all
    the same hears a goodbye: it has a second to answer.
    """
    limits = core.setup.limits
    stream: trio.abc.Stream | None = None
    greeted: Session | None = None
    shown = await credentials.ask(core.setup.troubles)
    failed = f"cannot connect to {core.place or 'the peer of the given stream'}"
    try:
        with trio.move_on_after(limits.handshake_timeout):
            stream = await dial()
            session = Session(
                Role.CLIENT, limits=limits, heartbeat=core.setup.heartbeat, now=trio.current_time()
            )
            lost = _to_resume(core)
            core.attempt = _next_attempt(core)
            session.hello(
                # An identity that the server made up is kept over reconnects; the user's own is sent
                # unchanged.
                identity=identity if identity is not None else core.id or None,
                credentials=shown,
                resume=None if lost is None else lost.session.ticket,
                attempt=core.attempt,
            )
            await send_greeting(stream, session)
            greeted = session
            answer = await receive_greeting(stream, session)
            welcome = _admitted(answer, lost is not None)
            core.peer = Peer.of(describe(stream), url=core.peer.url)
            return _begin(core, lost, stream, session, welcome)
        raise ConnectionFailed(
            f"{failed}: no handshake within {limits.handshake_timeout:g} s (Limits.handshake_timeout)"
        )
    except BaseException as error:
        if stream is not None:
            await _withdraw(stream, greeted, error)
        if isinstance(error, ConnectionLost):
            raise ConnectionFailed(f"{failed}: {error}") from error
        if isinstance(error, (HeartlineError, _Forgotten)):
            raise
        # A third party's transport may raise anything: that is one failed attempt, not the end of the block.
        raise ConnectionFailed(f"{failed}: the transport raised {error!r}") from own_error(error)


async def _withdraw(stream: trio.abc.Stream, session: Session | None, error: BaseException) -> None:
    """Close the stream of a handshake that came to nothing here, after a goodbye if it is one for the server.

    Without the goodbye the server would keep the session for as long as it may be resumed, and the identity
    with it. Whether it lets this client in is not known when the handshake was cancelled: its answer tells.
    """
    try:
        if session is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + GOODBYE_GRACE):
                if session.state is State.GREETING and sort_out(error)[1] is not None:
                    await receive_greeting(stream, session)
                if session.state is State.OPEN:
                    if isinstance(error, RemoteProtocolError):
                        session.go_away(CloseCode.PROTOCOL_ERROR, str(error))
                    else:
                        session.go_away(CloseCode.NORMAL, "the client has left during the handshake")
                    await send_greeting(stream, session)
                    while not await _has_goodbye(stream, session):
                        pass
    except BaseException as late:
        # What comes on this stream is of no interest any more, and ``error`` says why.
        own_error(late)
    finally:
        await close_stream(stream, trio.current_time() + GOODBYE_GRACE)


async def _has_goodbye(stream: trio.abc.Stream, session: Session) -> bool:
    data = await read_some(stream)
    return not data or any(type(event) is GoAway for event in session.receive(data, trio.current_time()))


async def connect_first(
    core: Core, again: Callable[[], Awaitable[Link]], delays: Iterator[float], patience: float
) -> Link:
    """Go on to connect for so many seconds; raises the last error.

    What another attempt cannot mend is raised at once: a refusal for good, a wrong setting, a peer that
    speaks another protocol.
    """
    deadline = trio.current_time() + patience
    while True:
        try:
            return await again()
        except ConnectionFailed as error:
            final = isinstance(error, ConnectionRefusedByPeer) and error.terminal
            delay = next(delays, None)
            if final or delay is None or trio.current_time() >= deadline:
                raise
            log = logger.info if core.setup.comings.admit("not connected yet") else logger.debug
            log("another attempt in %.2g s: %s", delay, error)
        await trio.sleep_until(min(deadline, trio.current_time() + delay))


def _next_attempt(core: Core) -> tuple[bytes, int]:
    if core.attempt is None:
        # Not from the endpoint's ``rng``: with the same seed two processes would get the same id.
        return random.SystemRandom().randbytes(8), 1
    client, count = core.attempt
    return client, count + 1


def _to_resume(core: Core) -> Link | None:
    """The link whose session is to go on; a session that cannot is ended here."""
    link = core.link
    if link is not None and link.failure is not None:
        core.end_session(link.failure)
        return None
    return link


def _admitted(answer: Event | None, resuming: bool) -> Welcome:
    if answer is None:
        raise ConnectionLost(
            "the peer ended the stream in the handshake, without a word; does heartline listen there, under "
            "this scheme?"
        )
    if isinstance(answer, Refuse):
        reason = printable(answer.reason)
        if resuming and answer.code == CloseCode.NO_SESSION:
            raise _Forgotten(reason)
        code = CloseCode.known(answer.code)
        raise ConnectionRefusedByPeer(code, reason, terminal=CloseCode.is_terminal(code))
    assert isinstance(answer, Welcome), "the session lets nothing else through"
    if not is_name(answer.session, MAX_IDENTITY):
        raise RemoteProtocolError(
            f"the server gave an id that has not 1 to {MAX_IDENTITY} printable characters"
        )
    return answer


def _begin(core: Core, lost: Link | None, stream: trio.abc.Stream, session: Session, answer: Welcome) -> Link:
    """Return the link for the server's answer: that of the resumed session, or of a new one."""
    core.id = answer.session
    if core.state is ConnectionState.CLOSED:
        raise ConnectionLost("the connection was closed during the handshake")
    if lost is not None and answer.resumed:
        if core.link is not lost or lost.failure is not None:
            raise ConnectionLost("the session ended here while the peer resumed it")
        try:
            lost.session.resume(session, answer.received)
        except RemoteProtocolError as error:
            core.end_session(error)
            raise
        lost.come_up(stream)
        return lost
    core.end_session(ConnectionLost("the peer began a new session"))
    setup = core.setup
    return Link(stream, session, setup.nursery, write_buffer=setup.limits.write_buffer)


@trio.lowlevel.enable_ki_protection
async def run_client(
    core: Core,
    link: Link,
    again: Callable[[], Awaitable[Link]],
    backoff: Backoff | None,
    *,
    renewable: bool,
) -> None:
    """Serve ``link``, and after each loss the one that ``again`` makes, until the end of the connection.

    With ``renewable`` credentials the end of their validity does not end the connection. No error gets out of
    here: the block has its own.
    """
    try:
        await _live(core, link, again, backoff, renewable)
    except BaseException as error:  # may come in a group beside a cancellation, which goes on
        own, passing = sort_out(error)
        if own is not None:
            report(logger, own, "%s: internal error", core)
        if passing is not None:
            core.setup.let_pass(passing)


async def _live(
    core: Core, link: Link, again: Callable[[], Awaitable[Link]], backoff: Backoff | None, renewable: bool
) -> None:
    reason: HeartlineError = ConnectionClosed(
        "the block that the connection lived in was left", code=CloseCode.NORMAL, by_peer=False
    )
    failures, resumed = 0, False
    try:
        while True:
            opened = trio.current_time()
            lost = await serve_link(core, link)
            if backoff is None or _is_final(lost, renewable):
                reason = lost
                return
            lasted = trio.current_time() - opened
            failures = 0 if _was_fine(lasted, backoff, failures, resumed=resumed) else failures + 1
            delays = backoff.delays(core.setup.rng, after=max(0, failures - 1))
            former = link
            with trio.CancelScope() as core.dialing:
                link = await _dial_again(core, delays, again, lost, renewable)
            resumed = link is former
            if core.state is ConnectionState.CLOSED:  # its user has closed it during the attempts
                await link.aclose(grace=GOODBYE_GRACE)
                return
    except HeartlineError as error:
        reason = error.with_traceback(None)
    except BaseException as error:
        if sort_out(error)[1] is None:
            reason = ConnectionLost("internal error, see the log")
        raise
    finally:
        core.finish(reason)


def _was_fine(lasted: float, backoff: Backoff, failures: int, *, resumed: bool) -> bool:
    """Whether a link was no failed attempt, so that the delays start from the beginning.

    A server that takes clients in and drops them must not be asked more and more often. But one that let a
    session go on is healthy, and its network is not: then it is enough to have lasted for as long as the next
    delay may take.
    """
    return lasted > (backoff.ceiling(failures) if resumed else backoff.maximum)


async def _dial_again(
    core: Core,
    delays: Iterator[float],
    again: Callable[[], Awaitable[Link]],
    reason: HeartlineError,
    renewable: bool,
) -> Link:
    """Get a new link; when that takes too long the session ends, and the attempts go on for a new one."""
    window = core.link.session.resume_window if core.link is not None else 0.0
    expiry = trio.current_time() + window
    for attempt, delay in enumerate(delays, 1):
        logger.debug("%s: attempt %d in %.2g s", core, attempt, delay)
        await _until(core, expiry, trio.sleep_until, trio.current_time() + delay)
        try:
            return await _until(core, expiry, again)
        except ConnectionRefusedByPeer as error:
            if renewable and error.code == CloseCode.UNAUTHENTICATED:
                log = logger.warning if core.setup.troubles.admit("credentials wanted") else logger.debug
                log("%s: renewed credentials are wanted: %s", core, error)
            elif error.terminal:
                raise
            reason = error
        except (ConnectionFailed, ProtocolError, SerializationError) as error:
            reason = error
        logger.debug("%s: no link yet, attempt %d failed: %s", core, attempt, reason)
    raise ConnectionFailed(f"gave up reconnecting (Backoff.attempts): {reason}") from bare(reason)


async def _until(core: Core, expiry: float, function: Callable[..., Awaitable[T]], *args: object) -> T:
    """Await a function; if the session ends meanwhile, cancel the call and make it again without one."""
    link = core.link
    if link is not None:
        reason = link.failure
        if reason is None:
            link.scope = trio.CancelScope(deadline=expiry)  # a failure of the link cancels this scope
            try:
                with link.scope:
                    return await function(*args)
                reason = link.failure or ConnectionLost("no link came in time (Limits.resume_window)")
            except _Forgotten as error:
                reason = ConnectionLost(f"the session cannot be resumed: {error}")
        log = logger.info if core.setup.comings.admit("over") else logger.debug
        log("%s: the session is over, and another one will begin: %s", core, reason)
        core.end_session(reason)
    return await function(*args)


def _is_final(reason: HeartlineError, renewable: bool) -> bool:
    """Whether another link would be of no use."""
    if not isinstance(reason, ConnectionClosed):
        return False
    if renewable and reason.code == CloseCode.UNAUTHENTICATED:
        return not reason.by_peer
    return not reason.by_peer or CloseCode.is_terminal(reason.code)
