"""A client's connection: dial, greet, serve the link, and again after each loss."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import trio

from heartline.connection._backoff import Backoff
from heartline.connection._connection import GOODBYE_GRACE, Connection
from heartline.connection._link import Link
from heartline.connection._state import ConnectionState
from heartline.errors import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionLost,
    ConnectionRefusedByPeer,
    HeartlineError,
    ProtocolError,
)
from heartline.session import CloseCode, Refuse, Role, Session, Welcome
from heartline.session.session import Event

__all__ = ["connect", "run_client"]

logger = logging.getLogger("heartline")

Dial = Callable[[], Awaitable[trio.abc.Stream]]


async def connect(
    connection: Connection, dial: Dial, *, identity: str | None, credentials: Any
) -> tuple[Link, list[Event]]:
    """Open a link and shake hands; also gives what came right behind the WELCOME.

    Raises :class:`ConnectionFailed` (or its subclass for a refusal), or :class:`RemoteProtocolError` when
    whatever answers does not speak the protocol.
    """
    setup = connection.setup
    limits = setup.limits
    link: Link | None = None
    try:
        with trio.fail_after(limits.handshake_timeout):
            stream = await dial()
            session = Session(Role.CLIENT, limits=limits, heartbeat=setup.heartbeat, now=trio.current_time())
            link = Link(stream, session, setup.nursery, write_buffer=limits.write_buffer)
            # What the server made up is kept over reconnects; what the user said is said again as it was.
            claimed = identity if identity is not None else connection.id or None
            session.hello(identity=claimed, credentials=credentials)
            link.flush()
            events = await link.receive()
            connection.id = _welcomed(events)
            return link, events[1:]
    except BaseException as error:
        if link is not None:
            await link.aclose(grace=GOODBYE_GRACE)
        if isinstance(error, trio.TooSlowError):
            raise ConnectionFailed(
                f"no handshake within {limits.handshake_timeout:g} s (Limits.handshake_timeout)"
            ) from None
        if isinstance(error, ConnectionLost):
            raise ConnectionFailed(f"the link broke in the handshake: {error}") from error
        raise


def _welcomed(events: list[Event]) -> str:
    if not events:
        raise ConnectionFailed("the peer ended the stream in the handshake")
    answer = events[0]
    if isinstance(answer, Refuse):
        raise ConnectionRefusedByPeer(answer.code, answer.reason, terminal=CloseCode.is_terminal(answer.code))
    assert isinstance(answer, Welcome), "the session lets nothing else through"
    return answer.session


async def run_client(
    connection: Connection,
    link: Link,
    early: list[Event],
    again: Callable[[], Awaitable[tuple[Link, list[Event]]]],
    backoff: Backoff | None,
) -> None:
    """Serve ``link``, and after each loss the one that ``again`` makes, until the end of the connection."""
    reason: HeartlineError = ConnectionClosed(
        "the block that the connection lived in was left", code=CloseCode.NORMAL, by_peer=False
    )
    short_lived = 0
    try:
        while True:
            opened = trio.current_time()
            lost = await connection.run_link(link, early)
            if backoff is None or _is_final(lost):
                reason = lost
                return
            # A link that did not live for long counts like a failed attempt: the delays go on growing.
            logger.info("%s: lost: %s", connection.address, lost)
            short_lived = 0 if opened + backoff.maximum < trio.current_time() else short_lived + 1
            delays = backoff.delays(connection.setup.rng, after=max(0, short_lived - 1))
            with trio.CancelScope() as connection.dialing:
                link, early = await _reconnect(delays, again, lost)
            logger.info("%s: there is a link again", connection.address)
            if connection.state is ConnectionState.CLOSED:  # by its user, while this was trying
                await link.aclose(grace=GOODBYE_GRACE)
                return
    except HeartlineError as error:
        reason = error
    finally:
        connection.finish(reason)


async def _reconnect(
    delays: Iterator[float], again: Callable[[], Awaitable[tuple[Link, list[Event]]]], reason: HeartlineError
) -> tuple[Link, list[Event]]:
    for attempt, delay in enumerate(delays, 1):
        logger.debug("attempt %d in %.2g s", attempt, delay)
        await trio.sleep(delay)
        try:
            return await again()
        except ConnectionRefusedByPeer as error:
            if error.terminal:
                raise
            reason = error
        except (ConnectionFailed, ProtocolError) as error:
            reason = error
        logger.info("no link yet, attempt %d failed: %s", attempt, reason)
    raise ConnectionFailed("gave up reconnecting (Backoff.attempts)") from reason


def _is_final(reason: HeartlineError) -> bool:
    return isinstance(reason, ConnectionClosed) and (not reason.by_peer or CloseCode.is_terminal(reason.code))
