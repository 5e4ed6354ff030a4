"""Each limit of the session, with a peer that goes beyond it."""

from __future__ import annotations

import itertools
from typing import cast

import pytest

from fuzz.session_states import Place, greeting, session_at
from heartline.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from heartline.session import Role, Session, State
from heartline.session.assembly import LEAST_HALF
from heartline.session.messages import CONFIRMATION
from heartline.session.outbox import FRAGMENT_SIZE, MESSAGE_COST, STREAMS, STUCK_LIMIT
from heartline.session.session import Event
from heartline.wire import HEADER_SIZE, Flag, Frame, FrameType, Limits
from tests.session.helpers import BURST, frugal, give, move, names, pair, taken

LIMITS = frugal(15_000, replay_buffer=6000, frame_size=2048, message_size=5000)
SMALL_FRAMES = LIMITS.write_buffer + STUCK_LIMIT
HUGE = 2**64 - 1


def server() -> Session:
    """An open server; its channels are 0, 1 (the client's) and 2 (its own)."""
    return session_at(Place(Role.SERVER, State.OPEN, LIMITS))


def data(length: int, channel: int = 0, flags: int = 0) -> Frame:
    return Frame(FrameType.DATA, flags, channel, 0, bytes(length))


def part(number: int, length: int = 10) -> Frame:
    return Frame(FrameType.CALL, Flag.MORE, 0, number, bytes(length))


def credit(amount: int, channel: int = 0) -> Frame:
    return Frame(FrameType.CREDIT, 0, 0, channel, CONFIRMATION.pack(amount))


# What a peer sends


def test_frame_size() -> None:
    give(server(), Frame(FrameType.CALL, payload=bytes(2048)))
    with pytest.raises(RemoteProtocolError, match="a frame claims 2049 bytes of payload, the limit is 2048"):
        give(server(), Frame(FrameType.CALL, payload=bytes(2049)))


def test_message_size() -> None:
    session = server()
    assert give(session, part(1, 2000), part(1, 2000)) == []
    (message,) = give(session, Frame(FrameType.CALL, 0, 0, 1, bytes(1000)))
    assert isinstance(message, Frame)
    assert len(message.payload) == 5000
    give(session, part(1, 2000), part(1, 2000))
    with pytest.raises(RemoteProtocolError, match=r"longer than 5000 bytes \(Limits.message_size\)"):
        give(session, Frame(FrameType.CALL, 0, 0, 1, bytes(1001)))


def test_an_endless_message_is_ended() -> None:
    session = server()
    with pytest.raises(RemoteProtocolError, match=r"Limits\.message_size"):
        for _ in itertools.count():
            give(session, part(1, 1000))
    assert session.received <= 7


def test_halves_together() -> None:
    session = server()
    for number in range(3):
        give(session, part(number, 2000), part(number, 2000))
    give(session, part(3, 2000), Frame(FrameType.CALL, 0, 0, 9, b"whole"), data(10))
    with pytest.raises(RemoteProtocolError, match=r"halves of 4 messages .* 15000 bytes \(Limits.memory\)"):
        give(session, part(0, 1000), part(3, 1))
    session = server()
    for number in range(3):
        give(session, part(number, 2000), part(number, 2000))
    assert len(give(session, Frame(FrameType.CALL, 0, 0, 1, b"end"))) == 1
    assert give(session, part(4, 2000), part(4, 2000)) == [], "one that ended leaves its place"


def test_short_halves_cost_more_than_their_bytes() -> None:
    session = server()
    fit = LIMITS.share // LEAST_HALF
    give(session, *map(part, range(fit)), part(0))
    with pytest.raises(RemoteProtocolError, match=rf"halves of {fit + 1} messages .* \(Limits.memory\)"):
        give(session, part(fit))


def test_fragments_are_told_apart_by_type_channel_and_id() -> None:
    session = server()
    for frame in (part(1), Frame(FrameType.PUSH, Flag.MORE, 0, 1, b"push "), data(5, 1, Flag.MORE)):
        assert give(session, frame) == []
    assert give(session, Frame(FrameType.PUSH, 0, 0, 1, b"end")) == [
        Frame(FrameType.PUSH, 0, 0, 1, b"push end")
    ]


def test_empty_fragments_would_cost_a_peer_nothing() -> None:
    session = server()
    give(session, part(1, 0))
    with pytest.raises(RemoteProtocolError, match="an empty fragment"):
        give(session, part(1, 0))


@pytest.mark.parametrize("kind", [FrameType.CLOSE, FrameType.RESET])
def test_a_channel_takes_its_halves_with_it(kind: FrameType) -> None:
    session = server()
    give(session, data(5, 1, Flag.MORE), part(1), part(2))
    give(session, Frame(kind, 0, 1))
    assert give(session, part(3)) == []


def test_window() -> None:
    session = server()
    give(session, data(1000 - MESSAGE_COST - 1), data(2000), now=0.0)
    with pytest.raises(RemoteProtocolError, match=r"DATA on channel 0 without credit \(Limits.window\)"):
        give(session, data(0))
    session = server()
    give(session, data(1000 - MESSAGE_COST))
    with pytest.raises(RemoteProtocolError, match="without credit"):
        give(session, data(0))


def test_window_of_empty_messages() -> None:
    session = server()
    fit = -(-1000 // MESSAGE_COST)
    give(session, *[data(0)] * fit)
    with pytest.raises(RemoteProtocolError, match="without credit"):
        give(session, data(0))


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_each_channel_has_its_window_and_what_is_read_opens_it_again(channel: int) -> None:
    session = server()
    give(session, data(2000, 0), data(2000, 1), data(2000, 2))
    session.consume(channel, 2000)
    assert taken(session) == [credit(2000 + MESSAGE_COST, channel)]
    give(session, data(2000, channel))
    with pytest.raises(RemoteProtocolError, match=f"channel {channel} without credit"):
        give(session, data(0, channel))


def test_grants_of_one_channel_travel_together() -> None:
    session = server()
    give(session, *[data(7)] * 20)
    for _ in range(20):
        session.consume(0, 7)
    assert taken(session) == [credit(20 * (7 + MESSAGE_COST))], "a peer that never reads costs one CREDIT"
    assert not session.has_output


@pytest.mark.parametrize("channel", [3, 4, 5, 0xFFFF])
@pytest.mark.parametrize("kind", [FrameType.DATA, FrameType.CLOSE, FrameType.RESET])
def test_channels_that_are_not_open(kind: FrameType, channel: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{kind.name} on channel {channel}, which is not open"):
        give(server(), Frame(kind, 0, channel))


@pytest.mark.parametrize(
    ("channel", "why"),
    [
        (0, "channel 0, which is open"),
        (1, "channel 1, which is open"),
        (2, "channel 2, which is open"),
        (4, "the peer cannot open channel 4"),
        (0xFFFE, "the peer cannot open channel 65534"),
    ],
)
def test_channels_that_the_peer_cannot_open(channel: int, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        give(server(), Frame(FrameType.OPEN, 0, channel))


@pytest.mark.parametrize("kind", [FrameType.CLOSE, FrameType.RESET])
def test_the_default_channel_does_not_end(kind: FrameType) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{kind.name} on channel 0, which is always open"):
        give(server(), Frame(kind))


def test_a_channel_and_its_messages_in_one_read() -> None:
    """Before the user of the session could say anything about the channel."""
    session = server()
    frames = [Frame(FrameType.OPEN, 0, 3), data(900, 3), data(2000, 3), Frame(FrameType.CLOSE, 0, 3)]
    assert len(give(session, *frames)) == 4
    session.send(FrameType.CLOSE, 3, 0, b"")
    assert len(give(session, Frame(FrameType.OPEN, 0, 3), data(2000, 3))) == 2
    with pytest.raises(RemoteProtocolError, match="without credit"):
        give(session, data(0, 3))


def test_after_its_close_a_peer_is_silent() -> None:
    session = server()
    with pytest.raises(RemoteProtocolError, match="DATA on channel 1, which is half-closed by the peer"):
        give(session, Frame(FrameType.CLOSE, 0, 1), data(1, 1))


def test_a_stream_ends_between_frames() -> None:
    session = server()
    session.receive_eof()
    session.receive(b"\0", 0.0)
    with pytest.raises(RemoteProtocolError, match="ended inside a frame"):
        session.receive_eof()


# What this side sends


def test_a_message_that_the_peer_would_refuse_is_not_begun() -> None:
    client, _ = pair(Limits(), LIMITS)
    client.send(FrameType.CALL, 0, 1, bytes(5000))
    for kind, length in ((FrameType.CALL, 5001), (FrameType.DATA, 5001), (FrameType.PUSH, 10**6)):
        with pytest.raises(
            LocalProtocolError, match=rf"of {length} bytes: .* accepts 5000 bytes \(Limits.message_size"
        ):
            client.send(kind, 0, 2, bytes(length))
    assert {frame.id for frame in taken(client)} == {1}


def test_a_message_size_below_the_size_of_a_frame() -> None:
    """No settings of ours say so, but a peer may."""
    client, _ = pair(Limits(), Limits())
    client.outbox.open(
        type(client.outbox.limits)(
            frame_size=5000, message_size=10, items=1, memory=50, window=1, calls=1, channels=1
        )
    )
    with pytest.raises(LocalProtocolError, match="accepts 10 bytes"):
        client.send(FrameType.CALL, 0, 1, bytes(11))


@pytest.mark.parametrize("frame_size", [2048, FRAGMENT_SIZE, 256 * 1024])
def test_fragments_fit_the_peers_frames_and_take_turns(frame_size: int) -> None:
    client, _ = pair(Limits(), Limits(frame_size=frame_size))
    client.send(FrameType.CALL, 0, 1, bytes(300_000))
    frames = taken(client, budget=10**6)
    assert max(len(frame.payload) for frame in frames) == min(frame_size, FRAGMENT_SIZE)


@pytest.mark.parametrize(("length", "together"), [(5000, 3), (4999, 3), (2500, 6), (2100, 7)])
def test_no_more_halves_than_the_peer_holds(length: int, together: int) -> None:
    client, peer = pair(Limits(), LIMITS)
    for number in range(10):
        client.send(FrameType.CALL, 0, number, bytes(length))
    arrived = []
    under_way: set[int] = set()
    most = 0
    while frames := taken(client, budget=1):
        under_way = {f.id for f in frames if f.flags & Flag.MORE} | under_way - {f.id for f in frames}
        most = max(most, len(under_way))
        arrived += give(peer, *frames)
    assert most == together
    assert len(arrived) == 10


def test_as_many_streams_as_are_useful() -> None:
    client, _ = pair(Limits(), Limits())
    for number in range(STREAMS + 1):
        client.send(FrameType.CALL, 0, number, bytes(300_000))
    assert {f.id for _ in range(2 * STREAMS) for f in taken(client, budget=1)} == set(range(STREAMS))


def test_a_long_message_is_not_passed_by_shorter_ones() -> None:
    """As the halves of others end there would always be room for another short one."""
    client, _ = pair(Limits(resume_window=0), LIMITS)
    client.send(FrameType.CALL, 0, 0, bytes(2100))
    for number in range(1, 30):
        client.send(FrameType.CALL, 0, number, bytes(5000 if number == 7 else 2100))
    first = [f.id for _ in range(60) for f in taken(client, budget=1) if f.flags & Flag.MORE]
    assert first.index(7) < first.index(8)


# Beyond the windows


def lanes(share: int = 10_000) -> tuple[Session, Session, list[int]]:
    """A client that sends, a server where nobody reads, and three lanes with windows of 1,000 bytes."""
    client, peer = pair(Limits(), frugal(share, message_size=share))
    numbers = [0]
    for _ in range(2):
        numbers.append(client.next_channel())
        client.send(FrameType.OPEN, numbers[-1], 0, b"")
    move(client, peer)
    return client, peer, numbers


def test_what_exceeds_the_windows_is_bounded_together() -> None:
    client, peer, (zero, one, two) = lanes()
    client.send(FrameType.DATA, zero, 0, bytes(7000))
    client.send(FrameType.DATA, one, 0, bytes(5000))
    client.send(FrameType.DATA, two, 0, bytes(900))
    assert [f.channel for f in taken(client)] == [zero, two], "what fits in its window needs no loan"
    client, peer, (zero, one, two) = lanes()
    client.send(FrameType.DATA, zero, 0, bytes(7000))
    move(client, peer)
    client.send(FrameType.DATA, one, 0, bytes(5000))
    assert move(client, peer) == []
    peer.consume(zero, 7000)
    move(peer, client)
    assert len(move(client, peer)) == 1


def channels(events: list[Event]) -> list[int]:
    """The channels of events that are all frames."""
    return [cast(Frame, event).channel for event in events]


def test_one_message_may_always_borrow() -> None:
    client, peer, (zero, one, two) = lanes()
    client.send(FrameType.DATA, zero, 0, bytes(900))
    client.send(FrameType.DATA, zero, 0, bytes(10_000))
    client.send(FrameType.DATA, one, 0, bytes(1100))
    events = move(client, peer)
    assert sum(len(event.payload) for event in events if isinstance(event, Frame)) == 10_900
    assert move(client, peer) == []
    client.send(FrameType.DATA, two, 0, bytes(960))
    assert len(move(client, peer)) == 1


def test_who_waits_to_borrow_is_not_passed_by_others() -> None:
    """Two lanes in use would always owe something, and a third one with a long message never go."""
    client, peer, (zero, one, two) = lanes()
    client.send(FrameType.DATA, zero, 0, bytes(2500))
    client.send(FrameType.DATA, two, 0, bytes(10_000))
    arrived = channels(move(client, peer))
    for _ in range(10):
        client.send(FrameType.DATA, one, 0, bytes(1500))
        arrived += channels(move(client, peer))
    assert arrived == [zero]
    peer.consume(zero, 2500)
    move(peer, client)
    assert channels(move(client, peer)) == [two, one]


@pytest.mark.parametrize("kind", [FrameType.CLOSE, FrameType.RESET])
def test_a_lane_that_has_ended_owes_nothing(kind: FrameType) -> None:
    client, peer, (zero, one, two) = lanes()
    client.send(FrameType.DATA, one, 0, bytes(10_000))
    client.send(FrameType.DATA, two, 0, bytes(10_000))
    client.send(FrameType.CLOSE, one, 0, b"")
    assert len(move(client, peer)) == 2
    peer.send(kind, one, 0, b"")
    move(peer, client)
    assert channels(move(client, peer)) == [two]
    peer.consume(two, 10_000)
    assert peer.held == peer.replay.size
    del zero


def test_the_end_of_a_lane_that_is_said_last_lets_another_one_borrow() -> None:
    client, peer, (_, one, two) = lanes()
    client.send(FrameType.DATA, one, 0, bytes(10_000))
    peer.send(FrameType.CLOSE, one, 0, b"")
    move(peer, client)
    client.send(FrameType.DATA, two, 0, bytes(10_000))
    client.send(FrameType.CLOSE, one, 0, b"")
    events = move(client, peer) + move(client, peer)
    assert channels(events) == [one, one, two]


def test_a_peer_that_borrows_too_much() -> None:
    session = server()
    give(session, *_long(0, 5000), *_long(1, 5000), *_long(2, 5000))
    with pytest.raises(RemoteProtocolError, match=r"beyond the windows of all channels \(Limits.memory\)"):
        give(session, Frame(FrameType.OPEN, 0, 3), *_long(3, 5000))


def _long(channel: int, length: int) -> list[Frame]:
    rest = length % 2000 or 2000
    return [*[data(2000, channel, Flag.MORE)] * ((length - rest) // 2000), data(rest, channel)]


def test_no_message_without_credit() -> None:
    client, peer = pair(Limits(), LIMITS)
    for number in range(5):
        client.send(FrameType.DATA, 0, number, bytes(900))
    assert [frame.id for frame in taken(client)] == [0, 1]
    assert client.outbox.blocked(0)
    peer.consume(0, 900)
    move(peer, client)
    assert [frame.id for frame in taken(client)] == [2]


def test_data_on_a_channel_that_is_not_open() -> None:
    client, _ = pair(Limits(), Limits())
    with pytest.raises(LocalProtocolError, match="DATA on channel 1, which is not open"):
        client.send(FrameType.DATA, 1, 0, b"")
    client.send(FrameType.OPEN, 1, 0, b"")
    client.send(FrameType.DATA, 1, 0, bytes(200_000))
    client.take(0, 0.0)
    client.break_off(FrameType.RESET, 1)
    with pytest.raises(LocalProtocolError, match="DATA on channel 1, which is half-closed here"):
        client.send(FrameType.DATA, 1, 0, b"")
    assert not client.outbox.blocked(5), "where nothing can be sent nobody waits"


COST = 2000 + MESSAGE_COST
"""What each of the messages below costs: more than a window."""


def sender() -> Session:
    """A client with three messages on channel 0, of which one is under way."""
    client, _ = pair(Limits(), LIMITS)
    for _ in range(3):
        client.send(FrameType.DATA, 0, 0, bytes(2000))
    assert names(taken(client)) == ["DATA"]
    return client


@pytest.mark.parametrize("returned", [COST + 1, 2 * COST, HUGE])
def test_no_more_is_given_back_than_was_spent(returned: int) -> None:
    client = sender()
    with pytest.raises(RemoteProtocolError, match=f"CREDIT of {returned} bytes in all on channel 0"):
        give(client, credit(returned))
    assert taken(client) == [], "it grants nothing"


def test_what_was_given_back_is_not_taken_again() -> None:
    client = sender()
    give(client, credit(COST))
    assert names(taken(client)) == ["DATA"]
    with pytest.raises(RemoteProtocolError, match=f"CREDIT of {COST - 1} bytes in all on channel 0"):
        give(client, credit(COST - 1))


def test_credit_is_told_as_a_sum_so_twice_the_same_is_nothing_new() -> None:
    client = sender()
    give(client, credit(0))
    assert taken(client) == []
    give(client, credit(COST - 1000))
    assert taken(client) == [], "a credit of 0 is none"
    give(client, credit(COST - 999))
    assert names(taken(client)) == ["DATA"]
    give(client, credit(COST - 999), credit(COST - 999))
    assert taken(client) == []


def test_the_sum_goes_on_and_one_of_a_later_channel_begins_anew() -> None:
    session = server()
    for number in range(1, 4):
        give(session, data(7))
        session.consume(0, 7)
        assert taken(session) == [credit(number * (7 + MESSAGE_COST))]
    for _ in range(2):
        give(session, Frame(FrameType.OPEN, 0, 3), data(9, 3))
        session.consume(3, 9)
        assert taken(session) == [credit(9 + MESSAGE_COST, 3)]
        give(session, Frame(FrameType.CLOSE, 0, 3))
        session.send(FrameType.CLOSE, 3, 0, b"")
        assert names(taken(session)) == ["CLOSE"]
    client, _ = pair(Limits(), LIMITS)
    for _ in range(2):
        client.send(FrameType.OPEN, 1, 0, b"")
        for _ in range(2):
            client.send(FrameType.DATA, 1, 0, bytes(2000))
        assert names(taken(client)) == ["OPEN", "DATA"]
        give(client, credit(COST, 1))
        assert names(taken(client)) == ["DATA"]
        client.send(FrameType.CLOSE, 1, 0, b"")
        give(client, Frame(FrameType.CLOSE, 0, 1))
        assert names(taken(client)) == ["CLOSE"]


def test_credit_of_channels_that_are_not_open_is_void() -> None:
    client = sender()
    give(client, credit(HUGE, 7), Frame(FrameType.CREDIT, 0, 0, 2**32 - 1, CONFIRMATION.pack(HUGE)))
    with pytest.raises(LocalProtocolError, match="channel 7, which is not open"):
        client.send(FrameType.DATA, 7, 0, b"")


def test_a_peer_that_does_not_read_small_frames_is_given_up() -> None:
    session = server()
    answer = bytes(60_000)
    fit = SMALL_FRAMES // (HEADER_SIZE + len(answer))
    for number in range(fit):
        session.send(FrameType.RESULT, 0, number, answer)
    with pytest.raises(ConnectionLost, match=r"the peer does not read: 8\d{6} bytes of small frames"):
        session.send(FrameType.RESULT, 0, fit, answer)


def test_a_long_message_on_its_way_is_no_excuse() -> None:
    session = server()
    session.send(FrameType.RESULT, 0, 0, bytes(20 * 2**20))
    session.take(0, 0.0)
    fit = SMALL_FRAMES // (HEADER_SIZE + 60_000)
    for number in range(1, fit + 1):
        session.send(FrameType.RESULT, 0, number, bytes(60_000))
    with pytest.raises(ConnectionLost, match="the peer does not read"):
        session.send(FrameType.RESULT, 0, fit + 1, bytes(60_000))


def test_long_messages_alone_do_not_mean_that_a_peer_is_stuck() -> None:
    session = server()
    for number in range(3):
        session.send(FrameType.RESULT, 0, number, bytes(8 * 2**20))
    session.send(FrameType.RESULT, 0, 9, b"small")
    assert taken(session, budget=BURST)[0].id == 9


def test_who_waits_for_room_may_fill_the_write_buffer() -> None:
    generous = Place(Role.SERVER, State.OPEN, Limits(write_buffer=20 * 2**20, memory=2**30))
    session = session_at(generous)
    for number in range(300):
        session.send(FrameType.CALL, 0, number, bytes(60_000))
    assert len(taken(session)) == 300


def test_the_peers_greeting_decides() -> None:
    session = session_at(Place(Role.CLIENT, State.GREETING, Limits()))
    session.receive(greeting(Role.SERVER, LIMITS), 0.0)
    assert session.outbox.limits.message_size == 5000
