"""The order in which messages leave, and that each of them does."""

from __future__ import annotations

import pytest

from heartline.session import Session
from heartline.session.messages import CONFIRMATION
from heartline.session.outbox import FRAGMENT_SIZE, MESSAGE_COST
from heartline.wire import HEADER_SIZE, Flag, Frame, FrameType, Limits, encode
from tests.session.helpers import frugal, give, move, names, pair, taken

LONG = bytes(3 * FRAGMENT_SIZE)
TWO_PARTS = bytes(2 * FRAGMENT_SIZE)
ONE_HALF = frugal(len(LONG))
"""Of two long messages only one can be under way."""

DEFAULT = Limits()

STEP = 1
"""A budget of a byte: one fragment per take."""


def client(**limits: int) -> Session:
    """A client of a server with these limits; it keeps nothing, so it need not wait for confirmations."""
    return pair(Limits(resume_window=0), Limits(**limits))[0]


def say(session: Session, number: int, payload: bytes = b"", kind: FrameType = FrameType.CALL) -> None:
    session.send(kind, 0, number, payload)


def ids(frames: list[Frame]) -> list[int]:
    return [frame.id for frame in frames]


def test_control_first_then_small_then_long() -> None:
    session = client()
    say(session, 1, LONG)
    say(session, 2)
    session.go_away(0, "bye")
    session.check(15.0)
    frames = taken(session)
    assert names(frames) == ["GOAWAY", "PING", "CALL", "CALL", "CALL", "CALL"]
    assert ids(frames)[2:] == [2, 1, 1, 1]


def test_a_small_message_waits_for_one_fragment_at_most() -> None:
    session = client()
    say(session, 1, bytes(10**6))
    taken(session, budget=STEP)
    say(session, 2)
    assert ids(taken(session, budget=STEP)) == [2, 1]


def test_long_messages_take_turns() -> None:
    session = client()
    say(session, 1, LONG)
    say(session, 2, LONG)
    say(session, 3, TWO_PARTS)
    assert ids(taken(session, budget=10**6)) == [1, 2, 3, 1, 2, 3, 1, 2]


def test_small_frames_without_end_do_not_hold_up_a_long_message() -> None:
    session = client()
    say(session, 1, LONG)
    left = 0
    for number in range(2, 5):
        for _ in range(10):
            say(session, number, bytes(FRAGMENT_SIZE))
        left += ids(taken(session, budget=FRAGMENT_SIZE)).count(1)
    assert left == 3


def test_a_key_keeps_its_order() -> None:
    session = client()
    say(session, 1, LONG)
    say(session, 1, b"behind")
    say(session, 1, b"last", FrameType.CANCEL)
    say(session, 2, b"another")
    frames = taken(session, budget=10**6)
    assert [bytes(frame.payload[:8]) for frame in frames if len(frame.payload) < 10] == [
        b"another",
        b"behind",
        b"last",
    ]


def test_who_waits_for_room_is_not_overtaken_by_newcomers() -> None:
    session, _ = pair(Limits(resume_window=0), ONE_HALF)
    say(session, 0, TWO_PARTS)
    taken(session, budget=STEP)
    say(session, 1, TWO_PARTS)
    started = []
    for newcomer in range(2, 6):
        say(session, newcomer, TWO_PARTS)
        started += [f.id for f in taken(session, budget=2 * FRAGMENT_SIZE) if f.flags & Flag.MORE]
    while frames := taken(session):
        started += [f.id for f in frames if f.flags & Flag.MORE]
    assert started == [1, 2, 3, 4, 5]


def test_a_channel_without_credit_holds_up_nobody() -> None:
    session = client(window=1)
    for number in range(3):
        session.send(FrameType.DATA, 0, number, b"")
    say(session, 7)
    say(session, 8, TWO_PARTS)
    assert ids(taken(session)) == [0, 7, 8, 8]
    assert taken(session) == []
    assert session.outbox.size == 2 * HEADER_SIZE


def test_credit_is_for_whole_messages() -> None:
    """One byte of credit is enough to begin, and what was begun ends."""
    sender, receiver = pair(Limits(), Limits(window=1))
    sender.send(FrameType.DATA, 0, 0, LONG)
    sender.send(FrameType.DATA, 0, 1, LONG)
    (message,) = move(sender, receiver, budget=10**6)
    assert isinstance(message, Frame)
    assert len(message.payload) == len(LONG)
    receiver.consume(0, len(LONG) - 1)  # a reader that gives back one byte too little
    move(receiver, sender)
    assert taken(sender) == []
    give(sender, Frame(FrameType.CREDIT, payload=CONFIRMATION.pack(len(LONG) + MESSAGE_COST)))
    assert ids(taken(sender, budget=10**6)) == [1, 1, 1]


# The end of a channel


def waiting_on_a_channel() -> tuple[Session, Session]:
    """The client has messages on channel 1 for which there is no credit."""
    sender, receiver = pair(Limits(), frugal(len(LONG), window=1))
    sender.send(FrameType.OPEN, 1, 0, b"name")
    for _ in range(3):
        sender.send(FrameType.DATA, 1, 0, b"data")
    move(sender, receiver)
    return sender, receiver


def test_a_close_leaves_although_what_was_before_it_is_dropped() -> None:
    sender, _ = waiting_on_a_channel()
    sender.send(FrameType.CLOSE, 1, 0, b"")
    assert taken(sender) == []
    give(sender, Frame(FrameType.CLOSE, 0, 1))
    sender.abandon(1)
    assert names(taken(sender)) == ["CLOSE"]
    assert sender.outbox.size == 0


def test_a_channel_that_ended_while_it_waited_leaves_nothing_behind() -> None:
    sender, _ = waiting_on_a_channel()
    sender.break_off(FrameType.RESET, 1)
    assert names(taken(sender)) == ["RESET"]
    assert sender.outbox.size == 0
    say(sender, 1, TWO_PARTS)
    say(sender, 2, TWO_PARTS)
    assert ids(taken(sender)) == [1, 1, 2, 2]


def test_a_channel_that_ended_in_its_turn_leaves_nothing_behind() -> None:
    sender, receiver = waiting_on_a_channel()
    receiver.consume(1, 4)
    move(receiver, sender)
    sender.break_off(FrameType.RESET, 1)
    assert names(taken(sender)) == ["RESET"]
    assert not sender.has_output


def half_sent(limits: Limits = DEFAULT) -> tuple[Session, Session]:
    """The client has sent one fragment of a message on channel 1, and has another message behind it."""
    sender, receiver = pair(Limits(), limits)
    sender.send(FrameType.OPEN, 1, 0, b"")
    sender.send(FrameType.DATA, 1, 0, LONG)
    sender.send(FrameType.DATA, 1, 0, b"not begun")
    move(sender, receiver, budget=STEP)
    return sender, receiver


def test_an_end_at_once_comes_in_the_place_of_the_rest_of_a_message() -> None:
    """Whoever waited for its room comes behind the end: until then the peer has the half."""
    sender, receiver = half_sent(ONE_HALF)
    say(sender, 1, TWO_PARTS)
    assert taken(sender, budget=STEP) != [], "the fragment before the last"
    sender.break_off(FrameType.RESET, 1, payload=b"enough")
    frames = taken(sender, budget=10**6)
    assert names(frames) == ["RESET", "CALL", "CALL"]
    reset, call = give(receiver, *frames)
    assert isinstance(reset, Frame)
    assert isinstance(call, Frame)
    assert (reset.payload, call.payload) == (b"enough", TWO_PARTS)
    assert sender.outbox.size == 0


def test_an_end_at_once_goes_in_the_place_of_one_that_waits() -> None:
    sender, _ = half_sent()
    sender.send(FrameType.CLOSE, 1, 0, b"")
    sender.break_off(FrameType.RESET, 1)
    assert names(taken(sender, budget=10**6)) == ["RESET"]
    sender.break_off(FrameType.RESET, 1)
    assert taken(sender) == [], "one end is enough"


def test_a_long_answer_that_began_to_leave_is_the_end() -> None:
    session, _ = pair(Limits(), Limits())
    give(session, Frame(FrameType.CALL, 0, 2, 7))
    session.send(FrameType.RESULT, 2, 7, LONG)
    taken(session, budget=STEP)
    session.break_off(FrameType.RESET, 2)
    assert names(taken(session, budget=10**6)) == ["RESULT", "RESULT"]


def test_a_long_answer_that_waits_is_taken_back() -> None:
    session, _ = pair(Limits(), ONE_HALF)
    give(session, Frame(FrameType.CALL, 0, 2, 7))
    say(session, 1, LONG)
    taken(session, budget=STEP)
    session.send(FrameType.RESULT, 2, 7, LONG)
    assert session.outbox.answers == 1
    session.break_off(FrameType.RESET, 2)
    assert session.outbox.answers == 0
    assert names(taken(session, budget=10**6)) == ["RESET", "CALL", "CALL"]
    assert session.outbox.size == 0


def test_before_a_long_end_a_message_goes_to_its_own() -> None:
    """It is in fragments too, and the half before it would take its room."""
    sender, receiver = pair(Limits(), ONE_HALF)
    give(sender, Frame(FrameType.CALL, 0, 2, 7))
    sender.send(FrameType.DATA, 2, 0, LONG)
    taken(sender, budget=STEP)
    sender.send(FrameType.DATA, 2, 0, LONG)
    sender.break_off(FrameType.FAULT, 2, 7, LONG)
    assert names(taken(sender, budget=10**6)) == ["DATA", "DATA", "FAULT", "FAULT", "FAULT"]
    del receiver


def test_a_channel_that_ended_is_given_no_credit() -> None:
    sender, receiver = waiting_on_a_channel()
    receiver.consume(1, 4)
    give(receiver, Frame(FrameType.CLOSE, 0, 1))
    receiver.consume(1, 4)
    assert taken(receiver) == []
    give(sender, Frame(FrameType.CREDIT, 0, 0, 3, bytes(8)))


# Accounts


@pytest.mark.parametrize("length", [0, 1, FRAGMENT_SIZE, FRAGMENT_SIZE + 1, 2 * FRAGMENT_SIZE, 300_000])
def test_the_size_is_what_will_be_taken(length: int) -> None:
    session = client()
    say(session, 1, LONG)
    say(session, 1, bytes(length))
    say(session, 2, bytes(length))
    session.go_away(0, "bye")
    size = session.outbox.size
    total = 0
    while part := sum(map(len, session.take(STEP, 0.0))):
        total += part
        assert session.outbox.size == size - total
    assert total == size


def test_what_the_peer_cannot_have_seen() -> None:
    session = client()
    say(session, 1, LONG)
    say(session, 2, b"")
    taken(session, budget=STEP)
    say(session, 3, LONG)
    say(session, 1, b"behind")
    say(session, 4, b"")
    say(session, 5, b"", FrameType.PUSH)
    outbox = session.outbox
    assert outbox.has_turns
    assert outbox.holds(FrameType.CANCEL, 0, 3)
    assert not outbox.holds(FrameType.PUSH, 0, 3)
    assert outbox.unsent(FrameType.CALL) == {1, 3, 4}
    assert outbox.unsent(FrameType.PUSH) == {5}
    assert outbox.withdraw(FrameType.CALL) == {1, 3, 4}
    assert ids(taken(session)) == [5, 1, 1]
    assert outbox.size == 0
    assert not outbox.has_turns


def test_what_stands_behind_a_message_that_was_taken_back_is_not_held_up() -> None:
    session, _ = pair(Limits(resume_window=0), ONE_HALF)
    say(session, 1, LONG)
    taken(session, budget=STEP)
    say(session, 2, LONG)
    say(session, 2, TWO_PARTS, FrameType.RESULT)
    assert ids(taken(session, budget=STEP)) == [1], "the other one waits for the stream"
    assert session.outbox.withdraw(FrameType.CALL) == {2}
    assert ids(taken(session, budget=10**6)) == [1, 2, 2]
    assert session.outbox.size == 0


def test_frames_encoded_for_many() -> None:
    session = client(window=100)
    frame = encode([Frame(FrameType.DATA, payload=bytes(90))])
    assert session.outbox.offer(frame)
    assert not session.outbox.offer(frame), "no credit"
    say(session, 1, LONG)
    assert not session.outbox.put_encoded(frame), "something waits that may be of the same key"
    taken(session)
    assert session.outbox.put_encoded(frame)
    assert not session.outbox.put_encoded(encode([Frame(FrameType.PUSH, payload=bytes(FRAGMENT_SIZE + 1))]))
    assert session.outbox.size == len(frame)
    assert session.take(0, 0.0) == [frame]
