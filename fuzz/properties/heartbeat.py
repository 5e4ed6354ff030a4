"""The heartbeat: whenever it is looked at, and whatever the clock says."""

from __future__ import annotations

import itertools
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.session_states import LIMITS, Place, session_at
from heartline.errors import ConnectionLost
from heartline.session import Heartbeat, Role, Session, State
from heartline.session.heartbeat import SHORTEST_TIMEOUT
from heartline.session.listening import Listening
from heartline.wire import Frame, FrameDecoder, FrameType, Limits, encode

# Trio's clock starts anywhere in a million seconds, and a process lives for years.
_starts = st.floats(0, 1e9)
_seconds = st.floats(0, 100) | st.sampled_from([1e-9, 0.1, 1 / 3, 10.0, 30.0])
_scripts = st.lists(st.tuples(st.sampled_from(["hear", "speak", "look", "wait"]), _seconds), max_size=20)


@st.composite
def heartbeats(draw: st.DrawFn) -> Heartbeat:
    timeout = draw(st.floats(SHORTEST_TIMEOUT, 1000) | st.sampled_from([0.3, 1.0, 30.0]))
    return Heartbeat(interval=timeout * draw(st.floats(0.34, 0.99)), timeout=timeout)


@given(st.sampled_from(Role), heartbeats(), _starts, _scripts)
def a_check_does_what_is_due_and_says_when_to_come_again(
    role: Role, heartbeat: Heartbeat, now: float, script: list[tuple[str, float]]
) -> None:
    session = session_at(Place(role, State.OPEN, LIMITS), heartbeat, now)
    stream = itertools.cycle(encode([Frame(FrameType.CALL)]))
    interval = min(heartbeat.interval, Heartbeat().timeout / 3)
    heard = spoke = now
    for what, seconds in script:
        due = session.pulse.next_check
        assert due == min(heard + heartbeat.timeout, spoke + interval)
        now = max(now, due) if what == "wait" else now + seconds
        if what == "hear":
            session.receive(bytes([next(stream)]), now)
            heard = now
        elif what == "speak":
            session.send(FrameType.CALL, 0, 1, b"")
            assert _take(session, now) in ([FrameType.CALL], [FrameType.ACK, FrameType.CALL])
            spoke = now
        elif now >= heard + heartbeat.timeout:
            with pytest.raises(ConnectionLost, match="nothing was heard"):
                session.check(now)
            return
        else:
            assert session.check(now) > now
            ping_due = now >= spoke + interval
            assert _take(session, now) == [FrameType.PING] * ping_due
            spoke = now if ping_due else spoke


_turns = st.sampled_from(["hear", "speak", "look", "turn", "stall"])


@given(heartbeats(), _starts, st.lists(st.tuples(_turns, _seconds), max_size=60))
def silence_counts_only_while_somebody_listens(
    heartbeat: Heartbeat, now: float, script: list[tuple[str, float]]
) -> None:
    """A peer is lost when what was listened to, a turn between two looks at most, makes a timeout."""
    session = session_at(Place(Role.CLIENT, State.OPEN, LIMITS), heartbeat, now)
    stream = itertools.cycle(encode([Frame(FrameType.CALL)]))
    session.pulse.listening = listening = Listening(heartbeat.timeout)
    listening.look(now)
    turn = listening.turn
    silence = 0.0
    for what, seconds in script:
        # Times are drawn so that scripts come to the timeout: a "turn" is on time, a "stall" is not.
        passed = turn if what == "turn" else seconds * turn / 3 if what == "stall" else seconds * turn / 100
        now += passed
        silence += min(passed, turn)
        listening.look(now)
        slack = 1e-9 * (now + heartbeat.timeout)
        assert abs(session.pulse.silence(now) - silence) <= slack or silence > heartbeat.timeout + slack
        assert 0 <= session.pulse.suspicion(now) < float("inf")
        if what == "hear":
            session.receive(bytes([next(stream)]), now)
            silence = 0.0
            assert session.pulse.suspicion(now) == 0
        try:
            following = session.check(now)
        except ConnectionLost:
            assert silence >= heartbeat.timeout - slack
            return
        assert silence <= heartbeat.timeout + slack
        assert now < following <= now + heartbeat.timeout + slack
        session.take(0, now)


def _take(session: Session, now: float) -> list[int]:
    return [frame.type for frame in FrameDecoder().feed(b"".join(session.take(0, now)))]


@given(heartbeats(), heartbeats(), _starts, st.floats(0, 0.32))
def two_that_have_nothing_to_say_never_lose_each_other(
    first: Heartbeat, second: Heartbeat, now: float, delay: float
) -> None:
    """With any two settings, over a link that delays by up to a third of the shorter timeout."""
    delay *= min(first.timeout, second.timeout)
    ends = _greet(first, second, now)
    arrivals: tuple[deque[tuple[float, bytes]], ...] = (deque(), deque())
    for _ in range(60):
        due = [end.pulse.next_check for end in ends] + [queue[0][0] for queue in arrivals if queue]
        now = max(now, min(due))
        for this, end in enumerate(ends):
            while arrivals[this] and arrivals[this][0][0] <= now:
                end.receive(arrivals[this].popleft()[1], now)
            if end.pulse.next_check <= now:
                end.check(now)
            if data := b"".join(end.take(0, now)):
                arrivals[1 - this].append((now + delay, data))


def _greet(first: Heartbeat, second: Heartbeat, now: float) -> tuple[Session, Session]:
    client = Session(Role.CLIENT, limits=Limits(), heartbeat=first, now=now)
    server = Session(Role.SERVER, limits=Limits(), heartbeat=second, now=now)
    client.hello()
    server.receive(b"".join(client.take(0, now)), now)
    server.welcome("id")
    client.receive(b"".join(server.take(0, now)), now)
    return client, server
