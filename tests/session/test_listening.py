"""Listened-to time: the clock, less what this side missed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartline.session.listening import SHORTEST_TURN, TURNS, Listening

TIMEOUT = 32.0
"""Turns of a second."""

pauses = st.lists(st.sampled_from([0.25, 0.5, 1.0, 1.25, 3.0, 100.0]) | st.floats(0, 50), max_size=60)


@given(pauses, st.floats(0, 1e6), st.floats(0, 1))
def test_a_pause_counts_for_a_turn_at_most(gaps: list[float], start: float, share: float) -> None:
    listening = Listening(TIMEOUT)
    looks = list(itertools.accumulate(gaps, initial=start))
    for now in looks:
        listening.look(now)
    now = looks[-1]
    since = start + share * (now - start)
    listened = now - since - listening.missed(since, now)
    # By the definition. What was missed is taken from the end of a pause, so only the one in which ``since``
    # lies can be off, and by a turn at most.
    expected = sum(
        max(0.0, min(b - a, listening.turn, b - max(a, since)) if b > since else 0.0)
        for a, b in itertools.pairwise(looks)
    )
    if expected <= TIMEOUT:
        assert expected - 1e-6 - listening.turn <= listened <= expected + 1e-6
    else:
        assert listened >= TIMEOUT - 1e-6, "whatever was before does not matter any more"


def test_the_pause_under_way_counts_like_the_others() -> None:
    listening = Listening(TIMEOUT)
    listening.look(10.0)
    assert listening.missed(10.0, 11.0) == 0
    assert listening.missed(10.0, 15.0) == 4
    assert listening.missed(14.0, 15.0) == 1, "never more than there was"
    listening.look(15.0)
    assert listening.missed(10.0, 15.5) == 4
    assert listening.missed(14.0, 15.5) == 1
    assert listening.missed(15.0, 15.5) == 0
    assert listening.next_look == 16.0


@pytest.mark.parametrize("timeout", [0.01, 0.1, 1.0, 30.0, 1e6])
def test_a_turn_is_a_small_part_of_the_timeout(timeout: float) -> None:
    turn = Listening(timeout).turn
    assert turn == max(timeout / TURNS, SHORTEST_TURN)
    assert turn < timeout / 2


def test_years_of_lateness_take_no_room() -> None:
    listening = Listening(TIMEOUT)
    for number in range(10_000):
        listening.look(2.0 * number)
    assert len(listening._missed) == TURNS + 1
    assert 20_000 - listening.missed(0.0, 20_000.0) >= TIMEOUT
