"""The table of a lane's states, and the two sessions that follow it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from heartline.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from heartline.session import LANE_TRANSITIONS, LaneState, LaneStep, Role, Session
from heartline.session.lanes import ENDS, MOST_LANES, Lanes
from heartline.session.messages import PeerLimits
from heartline.wire import Frame, FrameType, Limits
from tests.session.helpers import give, move, names, pair, taken

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "session-protocol.md"
OPEN, DATA, CLOSE, RESET = FrameType.OPEN, FrameType.DATA, FrameType.CLOSE, FrameType.RESET
CALL, RESULT, FAULT, CANCEL = FrameType.CALL, FrameType.RESULT, FrameType.FAULT, FrameType.CANCEL
LONG = bytes(300_000)
TIGHT = Limits(window=1)
"""One message goes, and the next waits for credit."""

OURS, THEIRS = 1, 2
"""A number for a client to open, and one for its server."""


def client_at(state: LaneState, *, kind: FrameType = OPEN, ours: bool = True) -> tuple[Session, int]:
    """A client with a lane in this state, and the lane's number."""
    client, server = pair(TIGHT, TIGHT)
    number = OURS if ours else THEIRS
    opener, other = (client, server) if ours else (server, client)
    end, answer = (CLOSE, RESULT if kind == CALL else CLOSE)
    if not ours:
        end, answer = answer, end
    if state is not LaneState.FREE:
        opener.send(kind, number, 7, b"")
        move(opener, other)
    if state in (LaneState.ENDING, LaneState.ENDING_LAST):
        client.send(DATA, number, 0, b"takes the credit")
        client.send(DATA, number, 0, b"waits")
    if state in (LaneState.ENDING, LaneState.ENDING_LAST, LaneState.HALF_CLOSED_LOCAL):
        client.send(end, number, 7, b"")
    if state in (LaneState.ENDING_LAST, LaneState.HALF_CLOSED_REMOTE):
        server.send(answer, number, 7, b"")
        move(server, client)
    client.take(1 << 20, 0.0)
    assert state_of(client, number) is state
    return client, number


def state_of(session: Session, number: int) -> LaneState:
    lane = session._lanes.find(number)
    return lane.state if lane is not None else LaneState.FREE


STEPS = {
    LaneStep.SEND_OPEN: OPEN,
    LaneStep.RECEIVE_OPEN: OPEN,
    LaneStep.SEND_DATA: DATA,
    LaneStep.RECEIVE_DATA: DATA,
    LaneStep.SEND_END: CLOSE,
    LaneStep.RECEIVE_END: CLOSE,
}


@pytest.mark.parametrize("state", LaneState, ids=lambda state: state.value)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.value)
def test_every_step_in_every_state(state: LaneState, step: LaneStep) -> None:
    received = step.name.startswith("RECEIVE")
    # Free, or held back by nothing of the other side's: who opens is the one that takes the step.
    client, number = client_at(state, ours=step is not LaneStep.RECEIVE_OPEN)
    kind = STEPS[step]

    def take() -> None:
        if received:
            give(client, Frame(kind, 0, number))
        else:
            client.send(kind, number, 0, b"")

    following = LANE_TRANSITIONS.get((state, step))
    if following is None:
        error: type[ProtocolError] = RemoteProtocolError if received else LocalProtocolError
        with pytest.raises(error, match=f"{kind.name} on channel {number}, which is {state.value}"):
            take()
        assert state_of(client, number) is state
        return
    take()
    if step is LaneStep.SEND_END:  # nothing was before it, so it is as good as gone
        following = LANE_TRANSITIONS[following, LaneStep.END_LEFT]
    assert state_of(client, number) is following


@pytest.mark.parametrize("state", [LaneState.ENDING, LaneState.ENDING_LAST])
def test_an_end_that_waits_leaves_with_the_credit_for_what_is_before_it(state: LaneState) -> None:
    client, number = client_at(state)
    assert taken(client) == []
    give(client, Frame(FrameType.CREDIT, 0, 0, number, (48).to_bytes(8, "big")))
    assert names(taken(client)) == ["DATA", "CLOSE"]
    assert state_of(client, number) is LANE_TRANSITIONS[state, LaneStep.END_LEFT]


def test_every_state_can_be_reached_and_left() -> None:
    assert set(LANE_TRANSITIONS.values()) == set(LaneState)
    assert {state for state, _ in LANE_TRANSITIONS} == set(LaneState)


def test_the_documentation_has_the_same_table() -> None:
    values = "|".join(re.escape(state.value) for state in LaneState)
    rows = re.findall(rf"^\| ({values}) \| (.*) \| ({values}) \|$", PAGE.read_text(), re.MULTILINE)
    assert {
        (LaneState(state), LaneStep(step)): LaneState(following) for state, step, following in rows
    } == LANE_TRANSITIONS


ENDINGS = [
    (OPEN, True, {CLOSE, RESET}),
    (OPEN, False, {CLOSE, RESET}),
    (CALL, True, {CLOSE, RESET}),
    (CALL, False, {RESULT, FAULT, RESET}),
]


@pytest.mark.parametrize(("kind", "ours", "allowed"), ENDINGS)
@pytest.mark.parametrize("end", sorted(ENDS))
def test_who_ends_how(kind: FrameType, ours: bool, allowed: set[FrameType], end: FrameType) -> None:
    client, number = client_at(LaneState.OPEN, kind=kind, ours=ours)
    if end in allowed:
        client.send(end, number, 7, b"")
        assert state_of(client, number) is LaneState.HALF_CLOSED_LOCAL
    else:
        with pytest.raises(LocalProtocolError, match=f"{end.name} on channel {number}, which does not end"):
            client.send(end, number, 7, b"")
    peers = next(ends for opened, by_us, ends in ENDINGS if (opened, by_us) == (kind, not ours))
    client, number = client_at(LaneState.OPEN, kind=kind, ours=ours)
    if end in peers:
        assert len(give(client, Frame(end, 0, number, 7))) == 1
        assert state_of(client, number) is LaneState.HALF_CLOSED_REMOTE
    else:
        with pytest.raises(RemoteProtocolError, match=f"{end.name} on channel {number}, which does not end"):
            give(client, Frame(end, 0, number, 7))


@pytest.mark.parametrize("kind", [FrameType.PUSH, FrameType.CONFIRM])
def test_updates_have_no_lane(kind: FrameType) -> None:
    client, _ = pair(Limits(), Limits())
    with pytest.raises(RemoteProtocolError, match=f"{kind.name} on channel 2: only lanes"):
        give(client, Frame(kind, 0, 2))
    with pytest.raises(LocalProtocolError, match=f"{kind.name} on channel 1: only lanes"):
        client.send(kind, 1, 0, b"")


@pytest.mark.parametrize("kind", [OPEN, CALL])
def test_each_side_opens_its_own_numbers(kind: FrameType) -> None:
    client, _ = pair(Limits(), Limits())
    with pytest.raises(LocalProtocolError, match="this side cannot open channel 2"):
        client.send(kind, 2, 0, b"")
    with pytest.raises(RemoteProtocolError, match="the peer cannot open channel 1"):
        give(client, Frame(kind, 0, 1))


@pytest.mark.parametrize("kinds", list(itertools.product([OPEN, CALL], repeat=2)))
def test_calls_and_channels_share_one_limit(kinds: tuple[FrameType, FrameType]) -> None:
    client, server = pair(Limits(), Limits(channels=1))
    client.send(kinds[0], client.next_channel(), 7, b"")
    with pytest.raises(LocalProtocolError, match=r"the peer accepts 1 channels \(Limits\.channels\)"):
        client.next_channel()
    with pytest.raises(LocalProtocolError, match=r"the peer accepts 1 channels \(Limits\.channels\)"):
        client.send(kinds[1], 3, 8, b"")
    move(client, server)
    with pytest.raises(RemoteProtocolError, match=r"more than 1 channels opened by the peer"):
        give(server, Frame(kinds[1], 0, 3, 8))


def test_a_lane_takes_its_place_until_both_ends_have_left() -> None:
    client, server = pair(TIGHT, Limits(window=1, channels=1))
    client.send(OPEN, 1, 0, b"")
    client.send(DATA, 1, 0, b"takes the credit")
    client.send(DATA, 1, 0, b"waits")
    client.send(CLOSE, 1, 0, b"")
    move(client, server)
    server.send(CLOSE, 1, 0, b"")
    move(server, client)
    with pytest.raises(LocalProtocolError, match=r"Limits\.channels"):
        client.next_channel()
    client.abandon(1)
    client.send(OPEN, client.next_channel(), 0, b"")
    assert [frame.type for frame in move(client, server) if isinstance(frame, Frame)] == [CLOSE, OPEN]


@pytest.mark.parametrize(("role", "first"), [(Role.CLIENT, 1), (Role.SERVER, 2)])
def test_numbers_go_round(role: Role, first: int) -> None:
    """Past those that are in use, and never back to one that was just free."""
    lanes = Lanes(role, Limits())
    lanes.agree(PeerLimits.of(Limits(channels=0xFFFF, window=1)))
    seen = [lanes.next_number() for _ in range(2)]
    assert seen == [first, first + 2]
    lanes.send(OPEN, first)
    last = 0xFFFF if role is Role.CLIENT else 0xFFFE
    while (number := lanes.next_number()) != last:
        assert number == seen[-1] + 2
        seen.append(number)
    assert lanes.next_number() == first + 2


def test_half_of_the_numbers_is_open_at_a_time() -> None:
    lanes = Lanes(Role.CLIENT, Limits())
    lanes.agree(PeerLimits.of(Limits(channels=0xFFFF, window=1)))
    for _ in range(MOST_LANES):
        lanes.send(OPEN, lanes.next_number())
    with pytest.raises(LocalProtocolError, match=r"Limits\.channels"):
        lanes.next_number()
