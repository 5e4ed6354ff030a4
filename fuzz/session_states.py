"""A session in every place where it can stand, with something behind it."""

from __future__ import annotations

from typing import NamedTuple

from heartline.session import Heartbeat, Refuse, Role, Session, State
from heartline.session.messages import render
from heartline.wire import Frame, FrameType, Limits, encode

FIRST_CHANNELS = (0, 1, 2)
"""Open in a session that is open: the default one, one of the client's, one of the server's."""

SENT = 3
"""Frames that an open session has sent."""


class Place(NamedTuple):
    """Where a session stands."""

    role: Role
    state: State
    limits: Limits


LIMITS = Limits(
    frame_size=300,
    message_size=600,
    memory=5 * 10_000,
    window=200,
    calls=1,
    channels=4,
    write_buffer=1000,
    replay_buffer=2000,
)
"""Small, so that a short stream goes beyond them."""

PLACES = [Place(role, state, LIMITS) for role in Role for state in State]


TOKEN = b"the token"

NEXT_TOKEN = b"the next token"


def greeting(
    role: Role,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    *,
    resume: tuple[bytes, int] | None = None,
) -> bytes:
    """What a peer in this role says first; ``resume`` is the session that it names, or has in mind."""
    peer = Session(role, limits=limits, heartbeat=Heartbeat(), now=0.0)
    if role is Role.CLIENT:
        peer.hello(resume=resume)
    else:
        peer.receive(greeting(Role.CLIENT), 0.0)
        token, received = (TOKEN, 0) if resume is None else resume
        peer.welcome("the id", token=token, resumed=resume is not None, received=received)
    return b"".join(peer.take(0, 0.0))


def next_link(
    session: Session,
    received: int,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    *,
    token: bytes | None = None,
    own: Limits = Limits(),  # noqa: B008 - frozen
) -> Session:
    """Another link's session, that has shaken hands for this one; the peer says that it has so many frames.

    A client names the session's token, or else ``token``.
    """
    other = Session(session.role, limits=own, heartbeat=Heartbeat(), now=0.0)
    if session.role is Role.CLIENT:
        other.hello(resume=session.ticket)
        other.take(0, 0.0)
        other.receive(greeting(Role.SERVER, limits, resume=(NEXT_TOKEN, received)), 0.0)
    else:
        other.receive(greeting(Role.CLIENT, limits, resume=(token or session.token, received)), 0.0)
        other.welcome("the id", token=NEXT_TOKEN, resumed=True, received=session.received)
    return other


def session_at(place: Place, heartbeat: Heartbeat = Heartbeat(), now: float = 0.0) -> Session:  # noqa: B008
    """A session that came to this place by the rules."""
    session = Session(place.role, limits=place.limits, heartbeat=heartbeat, now=now)
    if place.state is not State.NEW:
        _greet(session, now)
    if place.state in (State.OPEN, State.LEAVING, State.LOST):
        _agree(session, now)
        _use(session, now)
    if place.state is State.LEAVING:
        session.go_away(1, "enough")
    if place.state is State.CLOSED:
        _be_refused(session, now)
    session.take(0, now)
    if place.state is State.LOST:
        session.lose()
    assert session.state is place.state
    return session


def _greet(session: Session, now: float) -> None:
    if session.role is Role.CLIENT:
        session.hello()
    else:
        session.receive(greeting(Role.CLIENT), now)


def _agree(session: Session, now: float) -> None:
    if session.role is Role.CLIENT:
        session.receive(greeting(Role.SERVER), now)
    else:
        session.welcome("the id", token=TOKEN)


def _be_refused(session: Session, now: float) -> None:
    if session.role is Role.SERVER:
        session.refuse(2, "full")
    else:
        session.receive(encode([Frame(FrameType.REFUSE, payload=render(Refuse(code=2)))]), now)


def _use(session: Session, now: float) -> None:
    ours, theirs = (1, 2) if session.role is Role.CLIENT else (2, 1)
    session.receive(encode([Frame(FrameType.OPEN, 0, theirs)]), now)
    session.send(FrameType.OPEN, ours, 0, b"name")
    for number in range(1, SENT):
        session.send(FrameType.CALL, 0, number, b"call")
