"""A session in every place where it can stand, with something behind it."""

from __future__ import annotations

from typing import NamedTuple

from heartline.session import Heartbeat, Role, Session, State
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


LIMITS = Limits(frame_size=300, message_size=600, streams=2, window=200)
"""Small, so that a short stream goes beyond them."""

PLACES = [Place(role, state, LIMITS) for role in Role for state in State]


def greeting(role: Role, limits: Limits = Limits()) -> bytes:  # noqa: B008 - frozen
    """What a peer in this role says first."""
    peer = Session(role, limits=limits, heartbeat=Heartbeat(), now=0.0)
    if role is Role.CLIENT:
        peer.hello()
    else:
        peer.receive(greeting(Role.CLIENT), 0.0)
        peer.welcome("the id")
    return b"".join(peer.take(0, 0.0))


def session_at(place: Place, heartbeat: Heartbeat = Heartbeat(), now: float = 0.0) -> Session:  # noqa: B008
    """A session that came to this place by the rules."""
    session = Session(place.role, limits=place.limits, heartbeat=heartbeat, now=now)
    if place.state is not State.NEW:
        _greet(session, now)
    if place.state in (State.OPEN, State.LEAVING):
        _agree(session, now)
        _use(session, now)
    if place.state is State.LEAVING:
        session.go_away(1, "enough")
    if place.state is State.CLOSED:
        session.end()
    session.take(0, now)
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
        session.welcome("the id")


def _use(session: Session, now: float) -> None:
    ours, theirs = (1, 2) if session.role is Role.CLIENT else (2, 1)
    session.receive(encode([Frame(FrameType.OPEN, 0, theirs)]), now)
    for number in (ours, theirs):
        session.open_channel(number)
    for number in range(SENT):
        session.send(FrameType.CALL, 0, number, b"call")
