"""Suspicion: what a silence says, and what the gaps before it taught."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartline.session import Heartbeat
from heartline.session.heartbeat import Pulse
from heartline.session.listening import Listening
from heartline.session.suspicion import Gaps

expected = st.floats(0.003, 1e6)
shares = st.lists(st.floats(0.75, 3), max_size=30)
"""Of the expected gap: what is shorter is not learned from, and three of them are a timeout."""


def taught(gap: float, learned: list[float]) -> Gaps:
    gaps = Gaps(gap)
    for share in learned:
        gaps.learn(share * gap)
    return gaps


@given(expected, shares, st.floats(0, 1e9), st.floats(0, 1e9))
def test_it_grows_from_nothing_with_the_silence(gap: float, learned: list[float], a: float, b: float) -> None:
    gaps = taught(gap, learned)
    assert gaps.suspicion(0.0) == 0
    shorter, longer = sorted((a, b))
    assert 0 <= gaps.suspicion(shorter) <= gaps.suspicion(longer) < math.inf


@given(expected, shares, shares)
def test_it_means_the_share_of_living_peers_that_are_silent_for_so_long(
    gap: float, learned: list[float], silences: list[float]
) -> None:
    """Against the definition, in the range where the plain formula of the distribution can be computed."""
    gaps = taught(gap, learned)
    scale = max(math.sqrt(gaps._variance), gaps._mean / 4) * math.sqrt(3) / math.pi

    def later(silence: float) -> float:
        return 1 / (1 + math.exp((silence - gaps._mean) / scale))

    for silence in silences:
        chance = later(silence * gap) / later(0.0)
        assert gaps.suspicion(silence * gap) == pytest.approx(-math.log10(chance), abs=1e-6)


@given(expected, shares)
def test_a_slow_peer_is_believed(gap: float, learned: list[float]) -> None:
    slow = taught(gap, [2.0] * 50)
    assert slow.suspicion(2 * gap) < 0.4 < 3 < Gaps(gap).suspicion(2 * gap)
    # However it spoke, the heartbeats that it owes do not make it suspect.
    assert taught(gap, learned).suspicion(gap) < 1.1


def test_an_uneven_peer_is_suspected_later_than_a_punctual_one_of_the_same_mean() -> None:
    uneven, punctual = taught(10.0, [0.8, 2.2] * 40), taught(10.0, [1.5] * 80)
    assert uneven._mean == pytest.approx(punctual._mean, rel=0.15)
    assert uneven.suspicion(30.0) < punctual.suspicion(30.0) - 1


def test_what_it_is_when_the_link_is_lost() -> None:
    """About one in two million, with any timeout: three expected gaps, each of a deviation of a quarter."""
    for timeout in (0.3, 30.0, 1e6):
        pulse = Pulse(Heartbeat(interval=timeout / 3, timeout=timeout), now=100.0)
        pulse.agree(timeout)
        assert pulse.suspicion(100.0) == 0
        assert pulse.suspicion(100.0 + timeout / 3) == pytest.approx(0.3, abs=0.01)
        assert pulse.suspicion(100.0 + timeout) == pytest.approx(6.3, abs=0.01)


@given(st.lists(st.floats(0, 7.4), max_size=50))
def test_traffic_teaches_nothing(gaps: list[float]) -> None:
    """Or a peer that chatted, and then had only heartbeats to send, would be suspect."""
    pulse = Pulse(Heartbeat(interval=10, timeout=30), now=0.0)
    now = 0.0
    for gap in gaps:
        now = pulse.heard = now + gap
    assert pulse.suspicion(now + 10.0) == pytest.approx(Gaps(10.0).suspicion(10.0))


def test_a_pulse_learns_from_long_gaps_and_not_from_what_was_missed_here() -> None:
    pulse = Pulse(Heartbeat(interval=10, timeout=30), now=0.0)
    for turn in range(1, 40):
        pulse.heard = 20.0 * turn
    assert pulse.heard == 780.0
    assert pulse.suspicion(800.0) < 0.4
    stalled = Pulse(Heartbeat(interval=10, timeout=30), now=0.0)
    stalled.listening = Listening(30.0)
    stalled.listening.look(0.0)
    for turn in range(1, 40):
        stalled.listening.look(20.0 * turn)
        stalled.heard = 20.0 * turn
    assert stalled.suspicion(780.0 + 0.9) < 0.1
    assert stalled.suspicion(1000.0) < 0.1, "nobody has looked since"
    assert stalled._gaps is None
