"""Who waits for whom: control for nobody, small messages for a fragment, long ones for each other's turns."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartline.errors import RemoteProtocolError
from heartline.session.messages import CONFIRMATION
from heartline.session.outbox import FRAGMENT_SIZE, MESSAGE_COST
from heartline.session.reports import ACK_SIZE
from heartline.wire import Flag, Frame, FrameType, Limits
from tests.session.helpers import give, move, names, pair, taken

CALL, DATA = FrameType.CALL, FrameType.DATA
STEP = 1
"""A budget of a byte: one fragment per take."""


# Control


@given(
    queued=st.lists(
        st.tuples(st.sampled_from([CALL, DATA, FrameType.PUSH, FrameType.RESULT]), st.integers(0, 200_000)),
        max_size=20,
    ),
    takes=st.integers(0, 3),
    replay_buffer=st.sampled_from([1, 100_000, 1 << 30]),
)
def test_control_leaves_first_whatever_is_queued(
    queued: list[tuple[FrameType, int]], takes: int, replay_buffer: int
) -> None:
    """Also with nothing confirmed, when as much is kept as may be."""
    client, server = pair(Limits(replay_buffer=replay_buffer, memory=1 << 36), Limits())
    for number, (kind, length) in enumerate(queued):
        client.send(kind, 0, number, bytes(length))
    for _ in range(takes):
        taken(client, budget=STEP)
    server.ping()
    move(server, client)
    client.ping()
    client.go_away(0, "bye", drain=1.0)
    frames = taken(client, budget=STEP)
    assert {"GOAWAY", "PONG", "PING"} == {*names(frames[:3])}


# Turns


@given(
    parts=st.lists(st.integers(2, 6), min_size=1, max_size=8),
    small=st.lists(st.integers(0, 3), max_size=40),
)
def test_long_messages_take_turns_with_each_other_and_with_the_small_ones(
    parts: list[int], small: list[int]
) -> None:
    """However many small ones come: all of them leave with the next write, and a fragment behind them."""
    client, _ = pair(Limits(resume_window=0), Limits(memory=1 << 30))
    for number, count in enumerate(parts):
        client.send(CALL, 0, number, bytes(count * FRAGMENT_SIZE))
    sent: Counter[int] = Counter()
    next_small = 1000
    for count in [*small, *[0] * sum(parts)]:
        fresh = [*range(next_small, next_small + count)]
        next_small += count
        for number in fresh:
            client.send(CALL, 0, number, b"small")
        ids = [frame.id for frame in taken(client, budget=STEP)]
        assert ids[:count] == fresh
        left = [number for number, whole in enumerate(parts) if sent[number] < whole]
        assert len(ids) - count == bool(left)
        for number in ids[count:]:
            assert sent[number] == min(sent[n] for n in left), "nobody is a turn ahead of who waits"
            sent[number] += 1
    assert [sent[number] for number in range(len(parts))] == parts


# Credit

actions = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3000)),
        st.tuples(st.just("read"), st.integers(1, 5)),
        st.tuples(st.just("credit"), st.just(0)),
    ),
    max_size=60,
)


@given(plan=actions, channel=st.sampled_from([0, 1]), window=st.integers(1, 5000))
def test_credit_is_exact_whatever_is_read_when(
    plan: list[tuple[str, int]], channel: int, window: int
) -> None:
    sender, receiver = pair(Limits(replay_buffer=1 << 30, memory=1 << 36), Limits(window=window))
    if channel:
        sender.send(FrameType.OPEN, channel, 0, b"")
        move(sender, receiver)
    credit = window
    unread: list[int] = []
    unpaid = 0

    def read(count: int) -> None:
        nonlocal unpaid
        for length in unread[:count]:
            receiver.consume(channel, length)
            unpaid += length + MESSAGE_COST
        del unread[:count]

    def pay() -> None:
        nonlocal credit, unpaid
        move(receiver, sender)
        credit, unpaid = credit + unpaid, 0

    for action, amount in plan:
        if action == "send" and not sender.outbox.blocked(channel):
            sender.send(DATA, channel, 0, bytes(amount))
            credit -= amount + MESSAGE_COST
            (event,) = move(sender, receiver)
            assert isinstance(event, Frame)
            unread.append(len(event.payload))
        elif action == "read":
            read(amount)
        elif action == "credit":
            pay()
        assert sender.outbox.blocked(channel) == (credit <= 0)
    read(len(unread))
    pay()
    assert credit == window
    # The last byte of it: one less spent, and there is still some.
    for spent, blocked in ((1, window <= 1 + MESSAGE_COST), (window - 1 - 2 * MESSAGE_COST, True)):
        if not sender.outbox.blocked(channel) and spent >= 0:
            sender.send(DATA, channel, 0, bytes(spent))
            move(sender, receiver)
            assert sender.outbox.blocked(channel) == blocked


@given(window=st.integers(1, 5000), lengths=st.lists(st.integers(0, 2000), max_size=10))
def test_credit_for_more_than_was_spent_is_refused(window: int, lengths: list[int]) -> None:
    sender, _ = pair(Limits(), Limits(window=window))
    spent = 0
    for length in lengths:
        if not sender.outbox.blocked(0):
            sender.send(DATA, 0, 0, bytes(length))
            spent += length + MESSAGE_COST
    give(sender, Frame(FrameType.CREDIT, payload=CONFIRMATION.pack(spent)))
    with pytest.raises(RemoteProtocolError, match="the peer's window"):
        give(sender, Frame(FrameType.CREDIT, payload=CONFIRMATION.pack(spent + 1)))


# Confirmations


def arrived(replay_buffer: int, length: int) -> Any:
    """What a server says of itself after a message of this length from a client that keeps so much."""
    client, server = pair(Limits(replay_buffer=replay_buffer, memory=1 << 36), Limits())
    client.send(CALL, 0, 1, bytes(length))
    move(client, server, budget=1 << 30)
    return names(taken(server))


@pytest.mark.parametrize(
    ("replay_buffer", "ack"), [(4000, 1000), (40_000, 10_000), (1 << 30, ACK_SIZE), (1, 1)]
)
def test_a_quarter_of_what_the_peer_keeps_is_confirmed_by_itself(replay_buffer: int, ack: int) -> None:
    """Otherwise it would stand still with its buffer full."""
    assert arrived(replay_buffer, ack) == ["ACK"]
    if ack > 1:
        assert arrived(replay_buffer, ack // 2) == []


def test_nothing_new_is_sent_while_as_much_is_kept_as_may_be() -> None:
    client, server = pair(Limits(replay_buffer=3 * FRAGMENT_SIZE), Limits())
    client.send(CALL, 0, 1, bytes(10 * FRAGMENT_SIZE))
    sent = [frame for _ in range(20) for frame in taken(client, budget=STEP)]
    assert len(sent) == 3
    assert all(frame.flags & Flag.MORE for frame in sent)
    client.send(CALL, 0, 2, b"small")
    assert taken(client) == []
    assert not client.has_turns, "a writer that went on would go round and round"
    give(server, *sent)
    give(client, Frame(FrameType.ACK, payload=CONFIRMATION.pack(1)))
    assert [frame.id for frame in taken(client, budget=STEP)] == [2, 1]
