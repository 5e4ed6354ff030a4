"""Calls that stream: two sessions, items both ways, every end, and links that are cut at any byte."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import event as reached
from hypothesis import given
from hypothesis import strategies as st

from heartline.errors import LocalProtocolError, RemoteProtocolError
from heartline.session import Session, State
from heartline.session.outbox import FRAGMENT_SIZE, MESSAGE_COST
from heartline.session.session import Event
from heartline.wire import Flag, Frame, FrameType, Limits, encode
from heartline.wire.limits import LEAST_ITEMS
from tests.session.helpers import BURST, give, give_bytes, lose, move, names, pair, reconnect, taken

CALL, RESULT, FAULT, CANCEL = FrameType.CALL, FrameType.RESULT, FrameType.FAULT, FrameType.CANCEL
DATA, CLOSE, RESET = FrameType.DATA, FrameType.CLOSE, FrameType.RESET
ANSWERS = (RESULT, FAULT, RESET)
LONG = bytes(3 * FRAGMENT_SIZE)
LIMITS = Limits(window=1000, channels=2)
ID = 7


def call(payload: bytes = b"target", limits: Limits = LIMITS) -> tuple[Session, Session, int]:
    """A caller, a callee that has received the call, and the number of its lane."""
    caller, callee = pair(limits, limits)
    lane = caller.next_channel()
    caller.send(CALL, lane, ID, payload)
    (frame,) = move(caller, callee, budget=10**6)
    assert frame == Frame(CALL, 0, lane, ID, payload)
    return caller, callee, lane


def frames(sender: Session, receiver: Session) -> list[str]:
    """The names of what one take brings."""
    return names([frame for frame in move(sender, receiver) if isinstance(frame, Frame)])


def is_free(session: Session, lane: int) -> bool:
    return session._lanes.find(lane) is None


def assert_free(lane: int, *sessions: Session) -> None:
    for session in sessions:
        assert is_free(session, lane)
        with pytest.raises(LocalProtocolError, match="not open"):
            session.send(DATA, lane, 0, b"")


# How a call ends


def test_items_both_ways_and_the_answer_is_the_end() -> None:
    caller, callee, lane = call()
    for item in (b"one", b"two"):
        caller.send(DATA, lane, 0, item)
        callee.send(DATA, lane, 0, item)
    caller.send(CLOSE, lane, 0, b"")
    assert frames(caller, callee) == ["DATA", "DATA", "CLOSE"]
    callee.send(DATA, lane, 0, b"three")
    callee.send(RESULT, lane, ID, b"complete")
    assert frames(callee, caller) == ["DATA", "DATA", "DATA", "RESULT"]
    assert_free(lane, caller, callee)


def test_the_answer_waits_for_the_items_before_it() -> None:
    caller, callee, lane = call()
    caller.send(CLOSE, lane, 0, b"")
    move(caller, callee)
    for _ in range(3):
        callee.send(DATA, lane, 0, bytes(1000))
    callee.send(RESULT, lane, ID, b"complete")
    assert (callee.outbox.answers, callee.outbox.blocked(lane)) == (1, True)
    assert frames(callee, caller) == ["DATA"]
    for expected in (["DATA"], ["DATA", "RESULT"]):
        caller.consume(lane, 1000)
        move(caller, callee)
        assert frames(callee, caller) == expected
    assert callee.outbox.answers == 0
    assert_free(lane, caller, callee)


@pytest.mark.parametrize("answer", [RESULT, FAULT])
def test_an_early_answer_ends_the_callers_items(answer: FrameType) -> None:
    """What was on its way is received, and dropped; what waits is not sent."""
    caller, callee, lane = call()
    callee.send(answer, lane, ID, b"early")
    for _ in range(2):
        caller.send(DATA, lane, 0, bytes(1000))
    crossing = taken(caller)
    assert frames(callee, caller) == [answer.name]
    caller.break_off(RESET, lane)
    assert give(callee, *crossing) == [Frame(DATA, 0, lane, 0, bytes(1000))]
    assert frames(caller, callee) == ["RESET"]
    assert_free(lane, caller, callee)


def test_a_call_that_is_refused_leaves_a_free_number() -> None:
    caller, callee, lane = call(limits=Limits(channels=1))
    caller.send(DATA, lane, 0, b"before it knew")
    caller.send(CLOSE, lane, 0, b"")
    crossing = taken(caller)
    callee.break_off(FAULT, lane, ID, b"unknown")
    assert frames(callee, caller) == ["FAULT"]
    assert_free(lane, caller)
    caller.send(CALL, caller.next_channel(), ID + 1, b"another")
    events = give(callee, *crossing) + move(caller, callee)
    assert [event.type for event in events if isinstance(event, Frame)] == [DATA, CLOSE, CALL]
    assert_free(lane, callee)


def test_a_deadline_ends_the_items_at_once() -> None:
    caller, callee, lane = call()
    for _ in range(3):
        callee.send(DATA, lane, 0, LONG)
    assert frames(callee, caller) == ["DATA"]
    callee.break_off(FAULT, lane, ID, b"timeout")
    assert frames(callee, caller) == ["FAULT"]
    assert callee.outbox.size == 0


def test_cancelled_with_items_on_their_way() -> None:
    caller, callee, lane = call()
    for session, end in ((caller, CLOSE), (callee, RESULT)):
        session.send(DATA, lane, 0, LONG)
        session.take(1, 0.0)
        session.send(DATA, lane, 0, b"waits")
        session.send(end, lane, ID, b"")
    caller.break_off(RESET, lane)
    caller.send(CANCEL, lane, ID, b"")
    assert names(taken(caller)) == ["RESET", "CANCEL"], "nothing of the rest, and no word that this was all"
    reset, cancel = Frame(RESET, 0, lane), Frame(CANCEL, 0, lane, ID)
    give(callee, reset, cancel)
    callee.break_off(RESET, lane)
    assert frames(callee, caller) == ["RESET"]
    assert_free(lane, caller, callee)


def test_cancelled_after_the_last_item() -> None:
    caller, callee, lane = call()
    caller.send(CLOSE, lane, 0, b"")
    move(caller, callee)
    caller.break_off(RESET, lane)
    caller.send(CANCEL, lane, ID, b"")
    assert frames(caller, callee) == ["CANCEL"]
    callee.break_off(RESET, lane)
    assert frames(callee, caller) == ["RESET"]
    assert_free(lane, caller, callee)


def test_a_cancellation_that_crosses_the_answer_is_void() -> None:
    caller, callee, lane = call()
    caller.send(CLOSE, lane, 0, b"")
    move(caller, callee)
    callee.send(RESULT, lane, ID, b"complete")
    caller.send(CANCEL, lane, ID, b"")
    assert frames(callee, caller) == ["RESULT"]
    assert frames(caller, callee) == ["CANCEL"]
    assert_free(lane, caller, callee)


def test_an_end_that_the_peer_would_refuse_changes_nothing() -> None:
    caller, _, lane = call(limits=Limits(frame_size=2048, message_size=4000, window=1))
    for _ in range(2):
        caller.send(DATA, lane, 0, b"item")
    caller.send(CLOSE, lane, 0, b"")
    with pytest.raises(LocalProtocolError, match="message_size"):
        caller.break_off(RESET, lane, 0, bytes(5000))
    give(caller, Frame(FrameType.CREDIT, 0, 0, lane, (4 + MESSAGE_COST).to_bytes(8, "big")))
    assert names(taken(caller)) == ["DATA", "DATA", "CLOSE"]


def test_of_long_messages_that_end_in_the_same_bytes_each_is_given_alone() -> None:
    """The ends of hundreds fit in one read, and decoding each may take a while: others have turns between."""
    _, callee = pair(LIMITS, LIMITS)
    long = bytes(LEAST_ITEMS)
    give(callee, *[Frame(CALL, Flag.MORE, 0, number, long) for number in range(3)])
    ends = encode([Frame(CALL, 0, 0, number, b"x") for number in range(5)])
    given = [callee.receive(ends, 0.0)]
    while callee.holds_back:
        given.append(callee.receive(b"", 0.0))
    ids = [[event.id for event in events if isinstance(event, Frame)] for events in given]
    assert ids == [[0], [1], [2], [3, 4]]


def test_nothing_of_a_lane_overtakes_its_call() -> None:
    caller, callee = pair(LIMITS, LIMITS)
    lane = caller.next_channel()
    caller.send(CALL, lane, ID, LONG)
    caller.send(DATA, lane, 0, b"item")
    caller.break_off(RESET, lane, 0, b"enough")
    caller.send(CANCEL, lane, ID, b"")
    caller.send(CALL, 0, ID + 1, b"small")
    sent = [*caller.take(1, 0.0), *caller.take(10**6, 0.0)]
    events = give_bytes(callee, b"".join(sent))
    seen = [(event.type, event.id) for event in events if isinstance(event, Frame)]
    assert seen == [(CALL, ID + 1), (CALL, ID), (RESET, 0), (CANCEL, ID)]


def test_a_lane_is_open_when_its_call_is_whole() -> None:
    caller, callee = pair(LIMITS, LIMITS)
    caller.send(CALL, 1, ID, LONG)
    give(callee, *taken(caller, budget=1))
    with pytest.raises(RemoteProtocolError, match="DATA on channel 1, which is not open"):
        give(callee, Frame(DATA, 0, 1))


def test_after_a_goodbye_what_has_begun_goes_on() -> None:
    caller, callee, lane = call()
    callee.go_away(1, "restart", drain=5.0)
    move(callee, caller)
    caller.send(DATA, lane, 0, b"item")
    caller.send(CLOSE, lane, 0, b"")
    assert frames(caller, callee) == ["DATA", "CLOSE"]
    callee.send(RESULT, lane, ID, b"complete")
    assert frames(callee, caller) == ["RESULT"]
    assert caller.state is callee.state is State.LEAVING
    assert_free(lane, caller, callee)


def test_a_call_that_was_taken_back_never_had_a_lane() -> None:
    caller, callee = pair(LIMITS, LIMITS)
    for payload in (b"small", LONG):
        lane = caller.next_channel()
        caller.send(CALL, lane, lane, payload)
        caller.send(DATA, lane, 0, b"item")
        caller.send(CLOSE, lane, 0, b"")
    caller.send(CANCEL, 0, ID, b"")
    assert caller.outbox.withdraw(CALL) == {1, 3}
    assert caller.outbox.size == len(b"".join(caller.take(BURST, 0.0))), "the CANCEL"
    assert_free(1, caller)
    assert_free(3, caller)
    del callee


# Whatever is said when, over whatever links


@dataclass(frozen=True)
class Plan:
    """One call: how long it is, what both sides send, and how each of them ends."""

    server_calls: bool
    payload: int
    items: tuple[tuple[int, ...], tuple[int, ...]]
    """Bytes of the caller's items, and of the callee's."""
    caller_ends: FrameType
    answer: FrameType
    cancels_after: int | None
    """Items of the callee's after which the caller cancels."""


@dataclass
class End:
    """One side of all calls: a user with the manners of the protocol."""

    session: Session
    sent: dict[tuple[int, FrameType], list[bytes]] = field(default_factory=lambda: defaultdict(list))
    got: dict[tuple[int, FrameType], list[bytes]] = field(default_factory=lambda: defaultdict(list))
    plans: dict[int, Plan] = field(default_factory=dict)
    """The calls that it made, by lane."""
    answers: dict[int, Plan] = field(default_factory=dict)
    """The calls that it has to answer."""
    cancelled: set[int] = field(default_factory=set)

    def say(self, kind: FrameType, lane: int, number: int, payload: bytes) -> None:
        self.session.send(kind, lane, number, payload)
        self.sent[lane, kind].append(payload)

    def begin(self, plan: Plan, payload: Callable[[int], bytes]) -> int:
        lane = self.session.next_channel()
        self.plans[lane] = plan
        self.say(CALL, lane, lane, payload(plan.payload))
        for length in plan.items[0]:
            self.say(DATA, lane, 0, payload(length))
        self.say(plan.caller_ends, lane, 0, b"")
        return lane

    def answer(self, lane: int, plan: Plan, payload: Callable[[int], bytes]) -> None:
        self.answers[lane] = plan
        for length in plan.items[1]:
            self.say(DATA, lane, 0, payload(length))
        self.say(plan.answer, lane, lane, b"the answer")

    def on_frame(self, frame: Frame) -> None:
        lane = frame.channel
        self.got[lane, FrameType(frame.type)].append(bytes(frame.payload))
        if frame.type == DATA:
            self.session.consume(lane, len(frame.payload))
            plan = self.plans.get(lane)
            if plan is not None and plan.cancels_after == len(self.got[lane, DATA]):
                self.cancelled.add(lane)
                self.session.break_off(RESET, lane)
                self.session.send(CANCEL, lane, lane, b"")
        elif frame.type == CANCEL or (lane in self.plans and frame.type in ANSWERS):
            self.session.break_off(RESET, lane)


def _plan(
    server_calls: bool,
    payload: int,
    items: tuple[list[int], list[int]],
    ends: tuple[FrameType, FrameType],
    cancels_after: int | None,
) -> Plan:
    return Plan(server_calls, payload, (tuple(items[0]), tuple(items[1])), *ends, cancels_after)


_lengths = st.sampled_from([0, 1, 900, 1000 - MESSAGE_COST, 3000, 7000])
plans = st.builds(
    _plan,
    st.booleans(),
    _lengths,
    st.tuples(st.lists(_lengths, max_size=4), st.lists(_lengths, max_size=4)),
    st.tuples(st.sampled_from([CLOSE, RESET]), st.sampled_from([RESULT, FAULT])),
    st.none() | st.integers(1, 4),
)
CUT_LIMITS = Limits(frame_size=2048, message_size=8192, window=1000)


@given(
    st.lists(plans, min_size=1, max_size=4),
    st.lists(st.integers(0, 20_000), max_size=6),
    st.sampled_from([1, 5000, BURST]),
)
def test_calls_stream_over_links_that_are_cut_at_any_byte(
    calls: list[Plan], cuts: list[int], budget: int
) -> None:
    """Each side gets what the other sent, all of it or up to a break; and every number is free again."""
    client, server = (End(session) for session in pair(CUT_LIMITS, CUT_LIMITS))
    number = 0

    def payload(length: int) -> bytes:
        nonlocal number
        number += 1
        return (number.to_bytes(4, "big") * (length // 4 + 1))[:length]

    begun: dict[int, Plan] = {}
    for plan in calls:
        begun[(server if plan.server_calls else client).begin(plan, payload)] = plan
    left = list(cuts)

    def hand_over(sender: End, receiver: End) -> int:
        """Some of what was sent arrives; tells how much it is, and -1 for a cut."""
        data = b"".join(sender.session.take(budget, 0.0))
        cut = left and left[0] < len(data)
        if left:
            left[0] -= len(data)
        arriving = data[: left.pop(0) + len(data)] if cut else data
        receive(receiver, give_bytes(receiver.session, arriving))
        assert not receiver.session.failed
        return -1 if cut else len(data)

    def receive(end: End, events: list[Event]) -> None:
        for event in events:
            assert isinstance(event, Frame)
            end.on_frame(event)
            if event.type == CALL:
                end.answer(event.channel, begun[event.channel], payload)

    moved = [1]
    while any(moved):
        moved = [hand_over(client, server), hand_over(server, client)]
        if -1 in moved:
            reached("cut")
            lose(client.session, server.session)
            receive(client, reconnect(client.session, server.session, (CUT_LIMITS, CUT_LIMITS)))
    for lane, plan in begun.items():
        caller, callee = (server, client) if plan.server_calls else (client, server)
        assert callee.got[lane, CALL] == caller.sent[lane, CALL]
        cancelled = lane in caller.cancelled
        up, down = callee.got[lane, DATA], caller.got[lane, DATA]
        assert up == caller.sent[lane, DATA][: len(up)]
        assert down == callee.sent[lane, DATA][: len(down)]
        answered = bool(caller.got[lane, plan.answer])
        assert answered or cancelled
        if answered:
            reached("cancelled too late" if cancelled else "answered")
            assert down == callee.sent[lane, DATA]
        assert is_free(caller.session, lane)
        assert is_free(callee.session, lane)
    assert client.session.outbox.size == server.session.outbox.size == 0
    assert not client.session.has_output
