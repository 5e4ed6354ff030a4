"""The table of states, and the session that follows it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pytest

from fuzz.session_states import PLACES, Place, greeting, next_link, session_at
from heartline.errors import LocalProtocolError, RemoteProtocolError
from heartline.session import TRANSITIONS, GoAway, Refuse, Role, State, Step
from heartline.session.messages import CONFIRMATION, MARK, Welcome, render
from heartline.wire import CONTROL_TYPES, Frame, FrameDecoder, FrameType, Limits
from tests.session.helpers import give, names, taken

HELLO, WELCOME = (FrameDecoder().feed(greeting(role))[0] for role in (Role.CLIENT, Role.SERVER))
PLACE_NAMES = [f"{place.role.value} {place.state.value}" for place in PLACES]
in_every_place = pytest.mark.parametrize("place", PLACES, ids=PLACE_NAMES)

SAMPLES = {
    FrameType.HELLO: HELLO,
    FrameType.WELCOME: WELCOME,
    FrameType.REFUSE: Frame(FrameType.REFUSE, payload=render(Refuse(code=2))),
    FrameType.GOAWAY: Frame(FrameType.GOAWAY, payload=render(GoAway(code=1))),
    FrameType.PING: Frame(FrameType.PING, payload=MARK.pack(1.0, 0)),
    FrameType.PONG: Frame(FrameType.PONG, payload=MARK.pack(1.0, 0)),
    FrameType.ACK: Frame(FrameType.ACK, payload=CONFIRMATION.pack(0)),
    FrameType.CREDIT: Frame(FrameType.CREDIT, payload=CONFIRMATION.pack(0)),
    FrameType.OPEN: Frame(FrameType.OPEN, channel=4, payload=b"name"),
    FrameType.CLOSE: Frame(FrameType.CLOSE, channel=2),
    FrameType.RESET: Frame(FrameType.RESET, channel=2),
}
"""A proper frame of each type; what is not here needs no payload."""


def take_step(place: Place, step: Step) -> State:
    """Take a step as a session's user or peer makes it; the state behind it."""
    session = session_at(place)
    match step:
        case Step.SEND_HELLO:
            session.hello()
        case Step.SEND_WELCOME:
            session.welcome("id")
        case Step.SEND_REFUSE:
            session.refuse(2, "full")
        case Step.SEND_GOAWAY:
            session.go_away(1, "enough")
        case Step.LOSE:
            session.lose()
        case Step.RESUME:
            session.resume(next_link(session, session.confirmed), session.confirmed)
        case _:
            give(session, SAMPLES[FrameType[step.name.removeprefix("RECEIVE_")]])
    return session.state


@in_every_place
@pytest.mark.parametrize("step", Step, ids=lambda step: step.value)
def test_every_step_in_every_state(place: Place, step: Step) -> None:
    following = TRANSITIONS.get((place.role, place.state, step))
    if following is not None:
        assert take_step(place, step) is following
        return
    error = RemoteProtocolError if step.value.startswith("receive") else LocalProtocolError
    with pytest.raises(error, match=f"cannot {step.value} while the {place.role.value} side is") as caught:
        take_step(place, step)
    assert type(caught.value) is error
    assert place.state.value in str(caught.value)


@in_every_place
def test_a_step_that_is_refused_changes_nothing(place: Place) -> None:
    for step in Step:
        if (place.role, place.state, step) not in TRANSITIONS and step.value.startswith("send"):
            session = session_at(place)
            with pytest.raises(LocalProtocolError):
                steps: dict[Step, Callable[[], object]] = {
                    Step.SEND_HELLO: session.hello,
                    Step.SEND_WELCOME: partial(session.welcome, "id"),
                    Step.SEND_REFUSE: partial(session.refuse, 2, "full"),
                    Step.SEND_GOAWAY: partial(session.go_away, 1, "enough"),
                }
                steps[step]()
            assert session.state is place.state
            assert not session.has_output


@pytest.mark.parametrize("role", Role)
def test_every_state_can_be_reached_and_all_but_the_last_left(role: Role) -> None:
    reached, frontier = {State.NEW}, [State.NEW]
    while frontier:
        state = frontier.pop()
        for (who, here, _), following in TRANSITIONS.items():
            if who is role and here is state and following not in reached:
                reached.add(following)
                frontier.append(following)
    assert reached == set(State)
    ends = {state for state in State if not any((role, state, step) in TRANSITIONS for step in Step)}
    assert ends == {State.CLOSED}, "only what is refused ends by a step"


def test_what_one_side_may_send_the_other_may_receive() -> None:
    """In whatever states the two are, after anything that both know of."""
    peer = {Role.CLIENT: Role.SERVER, Role.SERVER: Role.CLIENT}
    seen = [{Role.CLIENT: State.NEW, Role.SERVER: State.NEW}]
    for states in seen:
        for role, step in itertools.product(Role, Step):
            after = TRANSITIONS.get((role, states[role], step))
            if after is None or not step.name.startswith("SEND_"):
                continue
            receipt = (peer[role], states[peer[role]], Step[step.name.replace("SEND_", "RECEIVE_")])
            assert receipt in TRANSITIONS
            both = {role: after, peer[role]: TRANSITIONS[receipt]}
            if both not in seen:
                seen.append(both)
    assert len(seen) == 5


@in_every_place
@pytest.mark.parametrize("kind", FrameType, ids=lambda kind: kind.name)
def test_every_frame_in_every_state(place: Place, kind: FrameType) -> None:
    session = session_at(place)
    flows = place.state in (State.OPEN, State.LEAVING)
    steps = {step.name for role, state, step in TRANSITIONS if (role, state) == (place.role, place.state)}
    has_step = f"RECEIVE_{kind.name}" in Step.__members__
    frame = SAMPLES.get(kind, Frame(kind))
    if place.role is Role.SERVER and frame.channel:  # a client opens and closes odd channels
        frame = Frame(kind, channel=frame.channel + 1 if kind == FrameType.OPEN else 1, payload=frame.payload)
    if f"RECEIVE_{kind.name}" in steps if has_step else flows:
        events = give(session, frame)
        assert len(events) == (has_step or kind not in CONTROL_TYPES)
    else:
        with pytest.raises(RemoteProtocolError, match=kind.name) as caught:
            give(session, frame)
        assert place.state.value in str(caught.value)
        assert session.state is place.state


@pytest.mark.parametrize("kind", sorted(CONTROL_TYPES), ids=lambda kind: kind.name)
def test_control_frames_are_on_channel_zero(kind: FrameType) -> None:
    session = session_at(PLACES[2])
    assert session.state is State.OPEN
    sample = SAMPLES[kind]
    with pytest.raises(RemoteProtocolError, match=f"{kind.name} on channel 1: control is channel 0"):
        give(session, Frame(kind, channel=1, payload=sample.payload))


@pytest.mark.parametrize("kind", [FrameType.PING, FrameType.PONG, FrameType.ACK, FrameType.CREDIT])
@pytest.mark.parametrize("length", [0, 7, 9, 15, 17, 100])
def test_control_frames_have_one_length(kind: FrameType, length: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{kind.name} of {length} bytes"):
        give(session_at(PLACES[2]), Frame(kind, payload=bytes(length)))


def test_a_whole_life() -> None:
    client, server = (session_at(Place(role, State.NEW, Limits())) for role in Role)
    client.hello()
    (hello,) = give(server, *taken(client))
    assert hello == server.peer
    assert server.state is State.GREETING
    server.welcome("the id")
    (welcome,) = give(client, *taken(server))
    assert welcome == client.peer
    assert isinstance(welcome, Welcome)
    assert welcome.session == "the id"
    client.send(FrameType.CALL, 0, 7, b"x")
    server.go_away(1, "restart", drain=2.0)
    assert names(taken(server)) == ["GOAWAY"]
    give(client, SAMPLES[FrameType.GOAWAY])
    assert give(server, *taken(client)) == [Frame(FrameType.CALL, 0, 0, 7, b"x")], (
        "what is in progress may end"
    )
    client.go_away(0, "")
    assert names(taken(client)) == ["GOAWAY"]
