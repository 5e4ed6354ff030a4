"""How much may be under way: never too little for the line, and not much more than it needs."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartline.session.messages import CONFIRMATION
from heartline.session.outbox import FRAGMENT_SIZE
from heartline.session.pace import LEAST, QUEUE, Pace
from heartline.wire import Frame, FrameType, Limits
from tests.session.helpers import give, pair, taken

MOST = 64 * 2**20


@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(1, 100), st.floats(0, 100)), max_size=200),
    most=st.integers(1, MOST),
)
def test_it_stays_between_the_least_and_what_is_kept(steps: list[tuple[bool, int, float]], most: int) -> None:
    pace = Pace(most)
    now, position = 0.0, 0
    for sent, frames, seconds in steps:
        now += seconds
        if sent:
            position += frames
            pace.sent(position, most, now)
        else:
            pace.confirmed(position, now)
        assert min(LEAST, most) <= pace.limit <= most


def steady(rate: float, delay: float, *, seconds: float = 20.0) -> tuple[float, float]:
    """Send all the time on a line of so many bytes a second: the longest wait, and the share that is used.

    Both in the second half of the time.
    """
    pace = Pace(MOST)
    under_way: deque[tuple[int, float, float]] = deque()
    now = free = longest = 0.0
    position = arrived = 0
    while now < seconds:
        while len(under_way) * FRAGMENT_SIZE < pace.limit:
            position += 1
            waited = max(0.0, free - now)
            free = max(now, free) + FRAGMENT_SIZE / rate
            under_way.append((position, free + delay, waited))
            pace.sent(position, len(under_way) * FRAGMENT_SIZE, now)
        number, now, waited = under_way.popleft()
        pace.confirmed(number, now)
        if now > seconds / 2:
            arrived += FRAGMENT_SIZE
            longest = max(longest, waited)
    return longest, arrived / (seconds / 2) / rate


@pytest.mark.parametrize("delay", [0.0001, 0.01, 0.1, 0.3])
@pytest.mark.parametrize("rate", [1e6, 1e7, 1e8])
def test_a_line_is_used_and_its_queue_is_short(rate: float, delay: float) -> None:
    """From a megabyte a second to a hundred, next door and around the world."""
    longest, used = steady(rate, delay)
    assert used > 0.95
    # The least is allowed anyway; a queue is seen a round trip after it began, and has grown until then.
    assert longest < 1.3 * LEAST / rate + 1.3 * (QUEUE + delay)


def test_fragments_wait_and_small_messages_pass() -> None:
    client, server = pair(Limits(), Limits())
    client.send(FrameType.CALL, 0, 1, bytes(3 * LEAST))
    sent = [frame for _ in range(100) for frame in taken(client, budget=1)]
    assert sum(len(frame.payload) for frame in sent) == LEAST
    assert not client.has_turns, "a writer that went on would go round and round"
    client.send(FrameType.CALL, 0, 2, b"small")
    assert [frame.id for frame in taken(client)] == [2]
    give(server, *sent)
    give(client, Frame(FrameType.ACK, payload=CONFIRMATION.pack(2)))
    assert client.has_turns
    assert [frame.id for frame in taken(client, budget=1)] == [1]


def test_who_keeps_nothing_hears_of_nothing_and_does_not_wait() -> None:
    client, _ = pair(Limits(resume_window=0), Limits())
    client.send(FrameType.CALL, 0, 1, bytes(3 * LEAST))
    assert sum(len(frame.payload) for _ in range(100) for frame in taken(client, budget=1)) == 3 * LEAST
