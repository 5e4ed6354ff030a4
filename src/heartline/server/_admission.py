"""Which clients a server lets in, and under which id.

A name that no connection has goes to the first client that claims it. For a name in use a client needs a
proof: what ``authenticate`` returns, the token of the session, or the random id that the client made up when
it started and has told this server alone (``attempt`` in HELLO). Without a proof the name stays with its
connection while that is open. A client that was killed and restarted has no proof, and has to wait until
the server has noticed the loss of its old link.
"""

from __future__ import annotations

import hmac
import inspect
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from heartline.errors import Overloaded
from heartline.link import MAX_IDENTITY, ConnectionState, Core, Peer, make_id
from heartline.observe import Hooks, Operation, own_error
from heartline.server._refusals import Refused
from heartline.server._table import Table
from heartline.session import CloseCode, Hello
from heartline.session.messages import VERSION
from heartline.wire.text import is_name

__all__ = ["Authenticate", "authenticate_peer", "check_version", "find_place"]

Authenticate = Callable[[Peer], "str | Awaitable[str | None] | None"]
"""Returns the id under which the peer is let in, or ``None`` to accept its claim without proof. Raises
:class:`PermissionError` to turn the peer away."""


def check_version(hello: Hello) -> None:
    """Refuse a client of another version."""
    if hello.version != VERSION:
        raise Refused(
            CloseCode.UNSUPPORTED_VERSION, f"version {hello.version} is not spoken here, version {VERSION} is"
        )


async def authenticate_peer(hooks: Hooks, authenticate: Authenticate | None, peer: Peer) -> str | None:
    """Return the id that the server vouches for; ``None`` if it only accepts the peer's claim.

    Raises ``Refused``.
    """
    ask = partial(_ask, authenticate, peer)
    try:
        if hooks.middleware:
            operation = Operation(kind="admission", name=peer.identity or "", peer="", subject=peer)
            identity: str | None = await hooks.guard(operation, ask)
        else:
            identity = await ask()
    except Overloaded as error:
        raise Refused(CloseCode.OVERLOADED, str(error) or "not now") from None
    except PermissionError as error:
        reason = str(error) or "the credentials were not accepted"
        raise Refused(CloseCode.UNAUTHENTICATED, reason) from None
    except BaseException as error:
        failed = Refused(CloseCode.INTERNAL_ERROR, "the server could not check the credentials")
        raise failed from own_error(error)
    return identity


@trio.lowlevel.disable_ki_protection  # the user's own code
async def _ask(authenticate: Authenticate | None, peer: Peer) -> str | None:
    if authenticate is None:
        return None
    identity = authenticate(peer)
    if inspect.isawaitable(identity):
        identity = await identity
    if not isinstance(identity, str | None):
        # Not the value itself: it may be what a database has of a user.
        kind = type(identity).__name__
        raise TypeError(f"authenticate returned an object of {kind}, not an identity (str) or None")
    return identity


def find_place(table: Table, hello: Hello, vouched_for: str | None) -> Core | str:
    """Return the connection whose session is to go on, or the id for a new one; raises ``Refused``.

    Nothing may be awaited from here to the registration: what is checked here must still be true there.
    """
    identity = hello.identity if vouched_for is None else vouched_for
    if identity is not None and not is_name(identity, MAX_IDENTITY):
        raise Refused(CloseCode.PROTOCOL_ERROR, f"an identity has 1 to {MAX_IDENTITY} printable characters")
    if table.draining:
        raise Refused(CloseCode.GOING_AWAY, "the server is draining")
    present = None if identity is None else table.cores.get(identity)
    if present is not None:
        _check_claim(present, hello, proven=vouched_for is not None)
    if hello.resume is not None:
        return _find_session(present, hello)
    if present is None and table.full and not table.end_first_lost():
        raise Refused(CloseCode.OVERLOADED, f"all {len(table.cores)} places are taken (Limits.connections)")
    return make_id(table.setup.rng) if identity is None else identity


def _check_claim(present: Core, hello: Hello, *, proven: bool) -> None:
    """Raise ``Refused`` unless this HELLO may claim the name of a present connection."""
    attempt, former = hello.attempt, present.attempt
    if attempt is not None and former is not None and hmac.compare_digest(attempt[0], former[0]):
        if attempt[1] <= former[1]:  # it was delayed, and a later HELLO has overtaken it
            raise Refused(CloseCode.NO_SESSION, "a later HELLO of this client has been answered")
        return
    # A HELLO that resumes is proved by its token, which _find_session checks.
    if not proven and hello.resume is None and present.state is ConnectionState.OPEN:
        raise Refused(
            CloseCode.IDENTITY_IN_USE,
            f"another client is {present.id!r:.80}; try again when it has left, or its loss was noticed",
        )


def _find_session(core: Core | None, hello: Hello) -> Core:
    """Return the connection whose session is to go on; raises ``Refused`` unless the token fits."""
    link = core.link if core is not None else None
    if core is None or link is None or link.failure is not None or hello.resume is None:
        raise Refused(CloseCode.NO_SESSION, "there is no such session, or it has ended")
    if core.state is ConnectionState.LEAVING or not link.admits(hello.resume, hello.limits):
        raise Refused(CloseCode.NO_SESSION, "the session cannot go on here")
    return core
