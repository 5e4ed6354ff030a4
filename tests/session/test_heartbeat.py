"""The heartbeat: settings, what is agreed, and the second at which something happens."""

from __future__ import annotations

import math
import struct

import pytest

from fuzz.session_states import SENT, Place, session_at
from heartline.errors import ConfigurationError, ConnectionLost, RemoteProtocolError
from heartline.session import Heartbeat, Role, Session, State
from heartline.session.listening import Listening
from heartline.session.messages import CONFIRMATION, MARK
from heartline.wire import Frame, FrameType, Limits, encode
from tests.session.helpers import give, move, names, pair, taken

LIMITS = Limits()


def open_session(now: float = 0.0) -> Session:
    return session_at(Place(Role.CLIENT, State.OPEN, LIMITS), Heartbeat(interval=10, timeout=30), now)


@pytest.mark.parametrize("name", ["interval", "timeout"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf, True, "10", None])
def test_settings_that_make_no_sense(name: str, value: object) -> None:
    with pytest.raises(
        ConfigurationError, match=f"Heartbeat.{name} must be finite seconds above 0, not {value!r}"
    ):
        Heartbeat(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("interval", "timeout"), [(30, 30), (31, 30)])
def test_a_timeout_is_longer_than_its_interval(interval: float, timeout: float) -> None:
    with pytest.raises(
        ConfigurationError, match=f"timeout .{timeout}. must be longer than its interval .{interval}."
    ):
        Heartbeat(interval=interval, timeout=timeout)


@pytest.mark.parametrize(("interval", "timeout"), [(0.09, 1), (0.1, 0.29)])
def test_a_heartbeat_that_would_keep_both_busy(interval: float, timeout: float) -> None:
    with pytest.raises(ConfigurationError, match=r"must be 0\.3 s or more"):
        Heartbeat(interval=interval, timeout=timeout)
    assert Heartbeat(interval=0.1, timeout=0.3).timeout == 0.3


def test_a_third_of_the_peers_timeout_is_the_longest_interval() -> None:
    client, server = pair(
        LIMITS,
        LIMITS,
        heartbeats=(Heartbeat(interval=2, timeout=9), Heartbeat(interval=5, timeout=6)),
    )
    assert (client.pulse.interval, server.pulse.interval) == (2, 3)
    assert (client.pulse.timeout, server.pulse.timeout) == (9, 6)


def test_a_ping_goes_out_only_into_silence() -> None:
    session = open_session()
    for now in (0.0, 5.0, 9.5):
        assert session.check(now) == 10
        assert taken(session, now=now) == []
    session.send(FrameType.CALL, 0, 9, b"")
    taken(session, now=9.5)
    assert session.check(10.0) == 19.5
    assert not session.has_output
    assert session.check(19.5) == 29.5
    (ping,) = taken(session, now=19.5)
    assert ping == Frame(FrameType.PING, payload=MARK.pack(19.5, session.received))


def test_an_empty_take_is_no_word() -> None:
    session = open_session()
    taken(session, now=9.0)
    assert session.check(9.0) == 10


@pytest.mark.parametrize("state", [State.NEW, State.GREETING, State.CLOSED])
def test_before_and_after_the_session_there_are_no_pings(state: State) -> None:
    session = session_at(Place(Role.SERVER, state, LIMITS), Heartbeat(interval=10, timeout=30))
    assert session.check(10.0) > 10
    assert session.check(20.0) > 20
    assert not session.has_output
    with pytest.raises(ConnectionLost):
        session.check(30.0)


def test_the_link_is_lost_exactly_at_the_timeout() -> None:
    session = open_session(now=100.0)
    now = 100.0
    while (following := session.check(now)) < 130.0:
        taken(session, now=following)
        now = following
    assert following == 130.0
    session.check(math.nextafter(130.0, 0))
    with pytest.raises(ConnectionLost, match=r"nothing was heard for 30 s \(heartbeat timeout 30 s\)"):
        session.check(130.0)


def test_a_single_byte_is_life() -> None:
    session = open_session()
    session.receive(encode([Frame(FrameType.CALL)])[:1], 29.0)
    session.check(30.0)
    session.check(math.nextafter(59.0, 0))
    with pytest.raises(ConnectionLost):
        session.check(59.0)


def test_seconds_in_which_this_side_did_not_listen_are_not_the_peers() -> None:
    session = open_session()
    session.pulse.listening = listening = Listening(session.pulse.timeout)
    listening.look(0.0)
    listening.look(5.0 + listening.turn)
    for turn in range(1, 40):
        listening.look(5.0 + listening.turn * (1 + turn))
    assert session.check(math.nextafter(35.0, 0)) == 35.0
    with pytest.raises(ConnectionLost, match="nothing was heard for 30 s"):
        session.check(35.0)


def test_links_that_joined_together_do_not_keep_step() -> None:
    session = open_session()
    session.pulse.pace(0.9)
    assert session.check(0.0) == 9
    session.check(math.nextafter(9.0, 0))
    assert not session.has_output
    assert session.check(9.0) == 18
    assert names(taken(session, now=9.0)) == ["PING"]


def test_a_round_trip() -> None:
    client, server = pair(LIMITS, LIMITS)
    client.check(10.0)
    move(client, server, now=11.0)
    assert client.pulse.rtt is None
    assert client.pulse.ping_sent == 11.0, "the trip begins when the PING leaves"
    (pong,) = taken(server, now=12.0)
    give(client, pong, now=13.5)
    assert client.pulse.rtt == 2.5
    give(client, pong, now=99.0)
    assert client.pulse.rtt == 2.5, "one PING, one answer"


@pytest.mark.parametrize("time", [0.0, 10.0, math.inf, -math.inf, math.nan, 1e300])
def test_a_pong_to_no_ping_changes_nothing(time: float) -> None:
    session = open_session()
    give(session, Frame(FrameType.PONG, payload=MARK.pack(time, 0)), now=20.0)
    session.check(20.0)
    taken(session, now=21.0)
    give(session, Frame(FrameType.PONG, payload=MARK.pack(time, 0)), now=22.0)
    assert session.pulse.rtt is None
    give(session, Frame(FrameType.PONG, payload=MARK.pack(21.0, 0)), now=22.5)
    assert session.pulse.rtt == 1.5


def test_a_flood_of_pings_costs_one_pong() -> None:
    session = open_session()
    for number in range(1000):
        give(session, Frame(FrameType.PING, payload=struct.pack("!dQ", number, 0)))
    assert taken(session) == [Frame(FrameType.PONG, payload=MARK.pack(999.0, session.received))]
    assert not session.has_output


def test_a_pong_gives_back_what_came_whatever_it_is() -> None:
    session = open_session()
    give(session, Frame(FrameType.PING, payload=b"any bits" + bytes(8)))
    assert taken(session)[0].payload[:8] == b"any bits"


def test_a_peer_that_does_not_read_is_not_sent_ping_after_ping() -> None:
    session = open_session()
    for now in range(10, 1000, 10):
        session.receive(encode([Frame(FrameType.CALL)]), float(now))
        session.check(float(now))
    assert names(taken(session)) == ["PING"]


def test_counts_ride_on_pings_and_pongs() -> None:
    session = open_session()
    assert (session.sent, session.confirmed) == (SENT, 0)
    give(session, Frame(FrameType.CALL), Frame(FrameType.PING, payload=MARK.pack(0.0, 2)))
    assert session.confirmed == 2
    assert taken(session) == [Frame(FrameType.PONG, payload=MARK.pack(0.0, session.received))]
    give(session, Frame(FrameType.PONG, payload=MARK.pack(0.0, 3)))
    assert session.confirmed == 3


@pytest.mark.parametrize("kind", [FrameType.PING, FrameType.PONG, FrameType.ACK])
@pytest.mark.parametrize(("count", "before"), [(SENT + 1, 0), (2**64 - 1, 0), (1, 2), (0, SENT)])
def test_a_count_that_cannot_be(kind: FrameType, count: int, before: int) -> None:
    session = open_session()
    give(session, Frame(FrameType.ACK, payload=CONFIRMATION.pack(before)))
    payload = CONFIRMATION.pack(count) if kind == FrameType.ACK else MARK.pack(0.0, count)
    with pytest.raises(
        RemoteProtocolError, match=f"{count} frames confirmed, after {before} and of {SENT} sent"
    ):
        give(session, Frame(kind, payload=payload))
    assert session.confirmed == before
    assert names(taken(session)) == []


def test_what_waits_is_not_yet_sent() -> None:
    session = open_session()
    session.send(FrameType.CALL, 0, 9, b"")
    with pytest.raises(RemoteProtocolError, match=f"of {SENT} sent"):
        give(session, Frame(FrameType.ACK, payload=CONFIRMATION.pack(SENT + 1)))
