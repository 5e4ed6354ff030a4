"""The states of a session, as a table.

The client speaks first: HELLO. The server looks at it (versions, credentials, room) and answers WELCOME, and
the session is open, or REFUSE, and it is closed; a client that says nothing in time is refused unheard. In an
open session every frame may flow in both directions, until one side says GOAWAY: from then on nothing new is
begun, and what is in progress may end. The other side answers GOAWAY when it is ready, and the side that
began closes the link.

An open session whose link is lost waits for another one, if both sides agreed to that in the handshake. A new
link begins with a handshake of its own, in which HELLO names the session: so it is resumed when that link's
session is open. In any other state, and when no link comes in time, the end of the link is the session's end.

What one side sends the other receives, so each step has two rows. A step without a row in the
present state is a protocol error: ours (``LocalProtocolError``) when we were about to take it, the peer's
(``RemoteProtocolError``) when it came from there.
"""

from __future__ import annotations

import enum

__all__ = ["TRANSITIONS", "Role", "State", "Step"]


class Role(enum.Enum):
    """Which side opened the link."""

    CLIENT = "client"
    SERVER = "server"


class State(enum.Enum):
    """The state of a session."""

    NEW = "new"
    """The link is there, nothing was said."""
    GREETING = "greeting"
    """HELLO was said, its answer is due."""
    OPEN = "open"
    """Everything may flow."""
    LEAVING = "leaving"
    """One side said GOAWAY: nothing new is begun."""
    LOST = "lost"
    """There is no link; another one may resume the session."""
    CLOSED = "closed"
    """The handshake ended in REFUSE."""


class Step(enum.Enum):
    """What moves a session."""

    SEND_HELLO = "send HELLO"
    RECEIVE_HELLO = "receive HELLO"
    SEND_WELCOME = "send WELCOME"
    RECEIVE_WELCOME = "receive WELCOME"
    SEND_REFUSE = "send REFUSE"
    RECEIVE_REFUSE = "receive REFUSE"
    SEND_GOAWAY = "send GOAWAY"
    RECEIVE_GOAWAY = "receive GOAWAY"
    LOSE = "lose the link"
    RESUME = "resume"


C, S = Role.CLIENT, Role.SERVER

TRANSITIONS: dict[tuple[Role, State, Step], State] = {
    (C, State.NEW, Step.SEND_HELLO): State.GREETING,
    (C, State.NEW, Step.RECEIVE_REFUSE): State.CLOSED,
    (C, State.GREETING, Step.RECEIVE_WELCOME): State.OPEN,
    (C, State.GREETING, Step.RECEIVE_REFUSE): State.CLOSED,
    (S, State.NEW, Step.RECEIVE_HELLO): State.GREETING,
    (S, State.NEW, Step.SEND_REFUSE): State.CLOSED,
    (S, State.GREETING, Step.SEND_WELCOME): State.OPEN,
    (S, State.GREETING, Step.SEND_REFUSE): State.CLOSED,
    **{
        (role, state, step): State.LEAVING
        for role in Role
        for state in (State.OPEN, State.LEAVING)
        for step in (Step.SEND_GOAWAY, Step.RECEIVE_GOAWAY)
    },
    **{(role, State.OPEN, Step.LOSE): State.LOST for role in Role},
    **{(role, State.LOST, Step.RESUME): State.OPEN for role in Role},
}
