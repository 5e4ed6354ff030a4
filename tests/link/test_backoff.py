"""The delays between attempts, for every setting."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartline import Backoff, ConfigurationError
from tests.connection.helpers import Highest

backoffs = st.builds(
    lambda initial, growth, factor, attempts: Backoff(
        initial=initial, maximum=initial * growth, factor=factor, attempts=attempts
    ),
    st.floats(0.001, 10),
    st.floats(1, 1000),
    st.floats(1, 10),
    st.none() | st.integers(1, 50),
)


def ceilings(backoff: Backoff, count: int = 60) -> list[float]:
    return list(itertools.islice(backoff.delays(Highest()), count))


@given(backoffs, st.integers())
def test_each_delay_is_between_zero_and_its_ceiling(backoff: Backoff, seed: int) -> None:
    delays = list(itertools.islice(backoff.delays(random.Random(seed)), 60))
    assert all(0 <= d <= c for d, c in zip(delays, ceilings(backoff), strict=True))


@given(backoffs)
def test_the_ceiling_grows_from_initial_to_maximum(backoff: Backoff) -> None:
    values = ceilings(backoff)
    assert values[0] == backoff.initial
    assert max(values) <= backoff.maximum
    for one, following in itertools.pairwise(values):
        assert following == pytest.approx(min(backoff.maximum, one * backoff.factor))


@given(backoffs, st.integers(0, 20))
def test_after_failures_the_ceiling_goes_on_where_it_was(backoff: Backoff, after: int) -> None:
    endless = dataclasses.replace(backoff, attempts=None)
    later = list(itertools.islice(endless.delays(Highest(), after=after), 10))
    assert later == pytest.approx(ceilings(endless, after + 10)[after:])


@given(backoffs)
def test_attempts_bound_the_number_of_delays(backoff: Backoff) -> None:
    expected = 60 if backoff.attempts is None else backoff.attempts
    assert len(ceilings(backoff)) == min(60, expected)


@given(backoffs, st.integers())
def test_the_same_seed_gives_the_same_delays(backoff: Backoff, seed: int) -> None:
    one, two = (list(itertools.islice(backoff.delays(random.Random(seed)), 20)) for _ in range(2))
    assert one == two


def test_the_jitter_is_full() -> None:
    """Drawn evenly from the whole range: a herd of clients is spread, not only shifted."""
    rng = random.Random(1)
    first = [next(Backoff(initial=1.0).delays(rng)) for _ in range(2000)]
    for low in (0.0, 0.25, 0.5, 0.75):
        assert 400 < sum(low <= delay < low + 0.25 for delay in first) < 600


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"initial": -0.1}, "initial"),
        ({"initial": 0.0}, "initial"),
        ({"initial": float("nan")}, "initial"),
        ({"initial": "1"}, "initial"),
        ({"initial": 2.0, "maximum": 1.0}, r"maximum \(1\.0\) must be at least Backoff.initial \(2\.0\)"),
        ({"maximum": "1"}, "maximum"),
        ({"maximum": float("inf")}, "maximum"),
        ({"factor": 0.9}, "factor"),
        ({"attempts": 0}, "attempts"),
        ({"attempts": 2.5}, "attempts"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Backoff.{field}"):
        Backoff(**settings)
