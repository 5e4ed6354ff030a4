"""A session that goes on with another link: tickets, confirmations, and peers that cheat with them."""

from __future__ import annotations

import itertools

import pytest

from fuzz.session_states import NEXT_TOKEN, SENT, TOKEN, Place, greeting, next_link, session_at
from heartline.errors import LocalProtocolError, RemoteProtocolError
from heartline.session import Heartbeat, PeerLimits, Role, Session, State
from heartline.session.messages import CONFIRMATION, MARK
from heartline.session.outbox import FRAGMENT_SIZE, MESSAGE_COST
from heartline.session.reports import ACK_INTERVAL, ACK_SIZE
from heartline.wire import HEADER_SIZE, Flag, Frame, FrameType, Limits, encode
from tests.session.helpers import BURST, frugal, give, lose, move, names, pair, reconnect, taken

LIMITS = Limits()
PEER = PeerLimits.of(LIMITS)
SMALL = Limits(replay_buffer=1000)
NEVER = Limits(resume_window=0)
HUGE = 2**64 - 1
in_both_roles = pytest.mark.parametrize("role", Role)


def call(number: int, length: int = 0, flags: int = 0) -> Frame:
    return Frame(FrameType.CALL, flags, 0, number, bytes(length))


def say(session: Session, *numbers: int, length: int = 0) -> None:
    for number in numbers:
        session.send(FrameType.CALL, 0, number, bytes(length))


def ack(count: int) -> Frame:
    return Frame(FrameType.ACK, payload=CONFIRMATION.pack(count))


def at(role: Role, state: State, limits: Limits = LIMITS) -> Session:
    return session_at(Place(role, state, limits))


# What is sent again


@in_both_roles
def test_what_is_not_confirmed_is_sent_again_and_first(role: Role) -> None:
    session = at(role, State.LOST)
    say(session, 7)
    session.resume(next_link(session, 1), 1)
    frames = taken(session)
    assert names(frames) == ["WELCOME"] * (role is Role.SERVER) + ["CALL"] * SENT
    assert [frame.id for frame in frames][-SENT:] == [1, 2, 7]
    assert (session.state, session.confirmed, session.sent) == (State.OPEN, 1, SENT + 1)


def test_messages_that_wait_are_not_touched_by_a_loss() -> None:
    client, server = pair(LIMITS, LIMITS)
    say(client, 1, length=3 * FRAGMENT_SIZE)
    move(client, server, budget=1)
    taken(client, budget=1)
    say(client, 2)
    lose(client, server)
    say(client, 3)
    assert reconnect(client, server) == []
    assert [(f.id, f.flags) for f in taken(client)] == [(1, Flag.MORE), (2, 0), (3, 0), (1, 0)]


def test_a_message_in_fragments_goes_on_over_many_links() -> None:
    client, server = pair(LIMITS, LIMITS)
    payload = bytes(range(256)) * 1024
    client.send(FrameType.CALL, 0, 1, payload)
    arrived = []
    while client.has_output:
        arrived += move(client, server, budget=1)
        lost = encode(taken(client, budget=1))
        server.receive(lost[: len(lost) // 2], 0.0)
        lose(client, server)
        reconnect(client, server)
    assert [frame.payload for frame in arrived if isinstance(frame, Frame)] == [payload]


def test_control_frames_are_not_sent_again_and_credit_is_told_anew() -> None:
    client, server = pair(LIMITS, LIMITS)
    client.send(FrameType.DATA, 0, 0, bytes(9))
    move(client, server)
    server.consume(0, 9)
    server.check(20.0)
    assert sorted(names(taken(server))) == ["CREDIT", "PING"]
    lose(client, server)
    say(server, 1)
    other = next_link(server, 0)
    server.resume(other, 0)
    frames = taken(server)
    assert names(frames) == ["WELCOME", "CREDIT", "CALL"]
    assert frames[1].payload == CONFIRMATION.pack(9 + MESSAGE_COST)


def test_a_welcome_is_not_sent_again() -> None:
    session = at(Role.SERVER, State.LOST)
    session.resume(next_link(session, 0), 0)
    session.check(20.0)
    session.lose()
    session.resume(next_link(session, SENT), SENT)
    assert names(taken(session)) == ["WELCOME"]


def test_a_loss_costs_no_credit() -> None:
    client, server = pair(LIMITS, Limits(window=100))
    for number in range(3):
        client.send(FrameType.DATA, 0, number, bytes(100))
    taken(client)
    lose(client, server)
    reconnect(client, server, (LIMITS, Limits(window=100)))
    assert len(move(client, server)) == 1
    assert taken(client) == [], "there is no credit yet"
    server.consume(0, 100)
    taken(server)  # the CREDIT is lost
    lose(client, server)
    reconnect(client, server, (LIMITS, Limits(window=100)))
    assert [frame.id for frame in taken(client)] == [1]


@in_both_roles
def test_the_clock_of_the_new_link_counts(role: Role) -> None:
    session = at(role, State.LOST)
    other = next_link(session, 0)
    other.pulse.heard = other.pulse.spoke = 1000.0
    session.resume(other, 0)
    assert session.check(1001.0) == 1010.0
    assert not session.has_output or role is Role.SERVER or session.replay.due


def test_a_rest_of_a_frame_is_void_with_its_link() -> None:
    client, server = pair(LIMITS, LIMITS)
    say(client, 1, length=50)
    server.receive(encode(taken(client))[:30], 0.0)
    lose(client, server)
    reconnect(client, server)
    assert len(move(client, server)) == 1
    server.receive_eof()


def test_a_receipt_after_the_loss_does_not_count() -> None:
    session = at(Role.SERVER, State.LOST)
    before = session.received
    with pytest.raises(RemoteProtocolError, match="CALL while the session is lost"):
        give(session, call(1))
    assert session.received == before


# What comes behind a WELCOME


@pytest.mark.parametrize("resumed", [True, False])
def test_what_comes_behind_a_welcome_is_held_back(resumed: bool) -> None:
    session = at(Role.CLIENT, State.LOST)
    other = Session(Role.CLIENT, limits=LIMITS, heartbeat=Heartbeat(), now=0.0)
    other.hello(resume=session.ticket)
    other.take(0, 0.0)
    welcome = greeting(Role.SERVER, resume=(NEXT_TOKEN, 0) if resumed else None)
    assert len(other.receive(welcome + encode([call(1), call(2)]), 0.0)) == 1
    assert other.holds_back
    assert other.received == 0
    if resumed:
        session.resume(other, 0)
        other = session
    assert give(other) == [call(1), call(2)]
    assert not other.holds_back


def test_an_error_behind_a_welcome_is_raised_behind_what_is_held_back() -> None:
    client = at(Role.CLIENT, State.GREETING)
    bad = Frame(FrameType.DATA, 0, 9)
    client.receive(greeting(Role.SERVER) + encode([call(1), bad]) + b"\xff" * 20, 0.0)
    assert not client.failed
    assert client.receive(b"", 0.0) == [call(1)]
    assert client.failed
    with pytest.raises(RemoteProtocolError, match="channel 9, which is not open"):
        client.receive(b"", 0.0)


def test_what_comes_behind_a_welcome_counts_for_the_next_ack() -> None:
    client, server = pair(LIMITS, SMALL)
    for number in range(3):
        server.send(FrameType.PUSH, 0, number, bytes(400))
    taken(server)
    assert server.replay.full
    lose(client, server)
    assert len(reconnect(client, server, (LIMITS, SMALL))) == 3
    assert names(taken(client)) == ["ACK"], "or the server would wait for the next PING"


# Tickets


def lost_server() -> Session:
    session = at(Role.SERVER, State.LOST)
    session.receive_eof()
    return session


@pytest.mark.parametrize("token", [b"", b"x", TOKEN[:-1], TOKEN + b"\0", NEXT_TOKEN])
def test_a_token_of_another_session(token: bytes) -> None:
    session = lost_server()
    assert session.admits((TOKEN, 0), PEER)
    assert not session.admits((token, 0), PEER)


@pytest.mark.parametrize(
    ("count", "good"), [(-1, False), (0, False), (1, True), (3, True), (4, False), (HUGE, False)]
)
def test_counts_beyond_what_was_sent_or_before_what_was_confirmed(count: int, good: bool) -> None:
    session = at(Role.SERVER, State.OPEN)
    give(session, ack(1))
    session.lose()
    assert session.admits((TOKEN, count), PEER) is good


def test_other_limits() -> None:
    session = lost_server()
    other = PeerLimits.of(Limits(window=1))
    assert not session.admits((TOKEN, 0), other)


@pytest.mark.parametrize("state", State)
def test_only_a_session_that_is_open_or_lost_goes_on(state: State) -> None:
    session = at(Role.SERVER, state)
    assert session.admits((TOKEN, 0), PEER) is (state in (State.OPEN, State.LOST))
    assert session.resumable is (state in (State.OPEN, State.LOST))


@pytest.mark.parametrize("limits", [(NEVER, LIMITS), (LIMITS, NEVER)], ids=["client", "server"])
def test_where_one_side_does_not_wait_nothing_goes_on(limits: tuple[Limits, Limits]) -> None:
    client, server = pair(*limits)
    assert not client.resumable
    assert not server.resumable
    assert not server.admits((server.token, 0), PeerLimits.of(limits[0]))


def test_an_empty_token_opens_nothing() -> None:
    server = at(Role.SERVER, State.GREETING)
    server.welcome("the id")
    assert not server.admits((b"", 0), PEER)


def test_a_token_is_good_until_the_client_has_shown_the_next_one() -> None:
    session = lost_server()
    for _ in range(3):  # each WELCOME is lost
        assert session.admits((TOKEN, 0), PEER)
        session.resume(next_link(session, 0, token=TOKEN), 0)
        session.lose()
    assert session.admits((NEXT_TOKEN, 0), PEER)
    assert session.admits((TOKEN, 0), PEER)
    session.resume(next_link(session, 0, token=NEXT_TOKEN), 0)
    assert not session.admits((TOKEN, 0), PEER), "it has shown a newer one"


def test_a_token_cannot_be_spent_twice() -> None:
    session = lost_server()
    session.resume(next_link(session, 0), 0)
    assert session.admits((TOKEN, 0), PEER), "until the client was heard: the WELCOME may be lost"
    assert session.receive(b"", 0.0) == [], "nothing shows nothing"
    assert session.admits((TOKEN, 0), PEER)
    session.receive(b"\0", 0.0)
    assert not session.admits((TOKEN, 0), PEER)
    assert session.admits((NEXT_TOKEN, 0), PEER)


# A peer that cheats while it resumes


@in_both_roles
@pytest.mark.parametrize("count", [0, SENT + 1, HUGE])
def test_a_count_that_cannot_be_leaves_the_session_lost(role: Role, count: int) -> None:
    session = at(role, State.OPEN)
    give(session, ack(1))
    session.lose()
    size = session.replay.size
    with pytest.raises(RemoteProtocolError, match=f"{count} frames confirmed, after 1 and of {SENT} sent"):
        session.resume(next_link(session, count), count)
    assert (session.state, session.confirmed, session.token) == (State.LOST, 1, TOKEN)
    assert session.replay.size == size
    assert not session.replay.due


@in_both_roles
def test_a_peer_with_other_limits_leaves_the_session_lost(role: Role) -> None:
    session = at(role, State.LOST)
    with pytest.raises(RemoteProtocolError, match="other limits than it had"):
        session.resume(next_link(session, 2, Limits(window=1)), 2)
    assert (session.state, session.confirmed, session.token) == (State.LOST, 0, TOKEN)


def test_a_welcome_that_resumes_where_nothing_was_asked() -> None:
    client = at(Role.CLIENT, State.GREETING)
    with pytest.raises(RemoteProtocolError, match="resumes a session where none was named"):
        client.receive(greeting(Role.SERVER, resume=(TOKEN, 0)), 0.0)
    assert (client.state, client.peer, client.token) == (State.GREETING, None, b"")


@in_both_roles
@pytest.mark.parametrize("state", [state for state in State if state is not State.LOST])
def test_only_what_is_lost_is_resumed(role: Role, state: State) -> None:
    session = at(role, state)
    confirmed = session.confirmed
    with pytest.raises(
        LocalProtocolError, match=f"cannot resume while the {role.value} side is {state.value}"
    ):
        session.resume(next_link(session, 0), session.sent)
    assert (session.state, session.confirmed) == (state, confirmed)


@pytest.mark.parametrize("resume", [None, (TOKEN, 0)])
def test_a_second_hello_on_one_link(resume: tuple[bytes, int] | None) -> None:
    session = lost_server()
    session.resume(next_link(session, 0), 0)
    with pytest.raises(RemoteProtocolError, match="cannot receive HELLO while the server side is open"):
        session.receive(greeting(Role.CLIENT, resume=resume), 0.0)
    assert session.state is State.OPEN


def test_fragments_without_end_are_bounded_over_all_links() -> None:
    limits = Limits(frame_size=2048, message_size=5000)
    session = at(Role.SERVER, State.OPEN, limits)
    with pytest.raises(RemoteProtocolError, match=r"longer than 5000 bytes \(Limits.message_size\)"):
        for _ in itertools.count():
            give(session, call(1, 1000, int(Flag.MORE)))
            session.lose()
            session.resume(next_link(session, 0), 0)
    assert session.received <= 7
    session = at(Role.SERVER, State.OPEN, frugal(10_000))
    with pytest.raises(RemoteProtocolError, match=r"halves of 10 messages"):
        for number in itertools.count():
            give(session, call(number, 1, int(Flag.MORE)))
            session.lose()
            session.resume(next_link(session, 0), 0)


@pytest.mark.parametrize("mark", ["ACK", "PING", "PONG"])
@pytest.mark.parametrize("count", [0, SENT + 1, HUGE])
def test_confirmations_that_cannot_be(mark: str, count: int) -> None:
    session = at(Role.CLIENT, State.OPEN)
    give(session, ack(1))
    size = session.replay.size
    payload = CONFIRMATION.pack(count) if mark == "ACK" else MARK.pack(0.0, count)
    with pytest.raises(RemoteProtocolError, match=f"{count} frames confirmed, after 1 and of {SENT} sent"):
        give(session, Frame(FrameType[mark], payload=payload))
    assert (session.confirmed, session.replay.size) == (1, size)


# What is kept, and what acknowledged


def test_what_is_confirmed_is_not_kept() -> None:
    session = at(Role.CLIENT, State.OPEN)
    frame = HEADER_SIZE + len(b"call")
    for confirmed in range(SENT + 1):
        give(session, ack(confirmed))
        assert session.replay.size == (SENT - confirmed) * frame


def test_nothing_new_while_as_much_as_may_be_is_kept() -> None:
    client, server = pair(SMALL, LIMITS)
    say(client, 1, 2, 3, length=400)
    assert len(taken(client)) == 3
    say(client, 4, length=400)
    say(client, 5, length=FRAGMENT_SIZE + 1)
    client.check(20.0)
    assert names(taken(client)) == ["PING"], "control goes on"
    assert not client.has_turns
    give(client, ack(1))
    assert client.has_turns
    assert taken(client)[0].id == 4
    client.go_away(1, "enough")
    say(client, 6)
    expected = ["GOAWAY", "CALL", "CALL"]  # with the rest of the long one
    assert names(taken(client)) == expected, "after a goodbye nothing is kept, and nothing held up"
    assert server.state is State.OPEN


@pytest.mark.parametrize("limits", [(NEVER, LIMITS), (LIMITS, NEVER)], ids=["ours", "the peer's"])
def test_nothing_is_kept_or_acknowledged_for_who_does_not_wait(limits: tuple[Limits, Limits]) -> None:
    client, server = pair(*limits)
    for number in range(10):
        say(client, number, length=60_000)
        move(client, server)
    assert client.replay.size == 0
    say(server, 1)
    assert names(taken(server, now=100.0)) == ["CALL"]


@pytest.mark.parametrize(
    ("buffer", "due"), [(4000, 1000), (3, 1), (1, 1), (10 * ACK_SIZE, ACK_SIZE)], ids=lambda value: f"{value}"
)
def test_an_ack_goes_out_by_itself_after_a_quarter_of_the_peers_buffer(buffer: int, due: int) -> None:
    _, server = pair(Limits(replay_buffer=buffer), LIMITS)
    server.check(20.0)
    assert names(taken(server)) == ["PING"], "which tells the count: from here on it is so many bytes"
    length = max(HEADER_SIZE, due - 1)
    give(server, call(1, length - HEADER_SIZE))
    if length < due:
        assert not server.has_output, "a byte is missing"
        server.receive(encode([call(2)])[:1], 0.0)
    assert taken(server) == [ack(1)]
    assert not server.has_output


def test_the_rest_of_a_frame_calls_for_an_ack_as_much_as_its_beginning() -> None:
    """Else a sender that keeps no more than this frame would wait for the next PING."""
    client, server = pair(SMALL, LIMITS)
    say(client, 1)
    move(client, server)
    say(client, 2, length=1000)
    data = encode(taken(client))
    server.receive(data[:-10], 0.0)
    assert taken(server) == [ack(1)]
    server.receive(data[-10:], 0.0)
    assert taken(server) == [ack(2)]


def test_an_ack_rides_along_once_in_an_interval() -> None:
    client, server = pair(LIMITS, LIMITS)
    say(client, 1)
    move(client, server)
    later = 2 * ACK_INTERVAL
    assert taken(server, now=later) == [], "not alone"
    say(server, 1)
    assert names(taken(server, now=later)) == ["ACK", "CALL"]
    say(server, 2)
    assert names(taken(server, now=2 * later)) == ["CALL"], "nothing came since"
    say(client, 2)
    move(client, server)
    say(server, 3)
    assert names(taken(server, now=later + 0.9 * ACK_INTERVAL)) == ["CALL"], "not yet"
    say(server, 4)
    assert names(taken(server, now=later + ACK_INTERVAL)) == ["ACK", "CALL"]


def test_a_pong_is_an_ack() -> None:
    client, server = pair(LIMITS, LIMITS)
    say(client, 1)
    client.check(20.0)
    move(client, server)
    assert names(taken(server, now=20.0)) == ["PONG"]
    say(server, 1)
    assert names(taken(server, now=30.0)) == ["CALL"]


@pytest.mark.parametrize("told", [True, False], ids=["by the peer", "here"])
def test_no_ack_after_a_goodbye(told: bool) -> None:
    client, server = pair(SMALL, LIMITS)
    say(client, 1, length=500)
    move(client, server)
    assert server.has_output
    if told:
        client.go_away(1, "enough")
        move(client, server)
    else:
        server.go_away(1, "enough")
    assert names(taken(server)) == ["GOAWAY"] * (not told), "although one was due"
    say(client, 2, length=BURST // 8)
    move(client, server)
    say(server, 1)
    assert names(taken(server, now=100.0)) == ["CALL"]
    server.pulse.heard = 200.0
    server.check(200.0)
    assert names(taken(server, now=200.0)) == ["PING"], "which carries the count, too"


def test_without_a_link_nothing_is_taken() -> None:
    """A writer that was about to take more when the link was lost gets nothing: it would be lost with it."""
    client, server = pair(LIMITS, LIMITS)
    client.send(FrameType.DATA, 0, 0, b"sent")
    taken(client)
    client.send(FrameType.DATA, 0, 0, b"queued")
    client.lose()
    server.lose()
    assert client.take(1 << 20, 0.0) == []
    one, two = pair(LIMITS, LIMITS)
    server.resume(two, client.received)
    client.resume(one, server.received)
    assert [frame.payload for frame in taken(client)] == [b"sent", b"queued"]
    assert client.sent == 2
