"""Push: however links break and servers restart, every update comes once and in order, or a gap is told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fuzz.push_world import CLIENTS, SIZES, STARTS, TOPICS, Plan, World, simulate
from heartline.push._types import POLICIES

Command = Callable[[World], None]

_clients = st.integers(0, len(CLIENTS) - 1)
_topics = st.sampled_from(TOPICS)
_followers = st.integers(0, 3)

_waits = st.sampled_from([(None, None), (None, 5.0), ("sent", None), ("confirmed", None), ("confirmed", 5.0)])


def _command(method: Callable[..., None], **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Command]:
    return st.fixed_dictionaries(arguments).map(lambda drawn: partial(method, **drawn))


_publishes = _command(
    World.publish,
    topic=_topics,
    size=st.sampled_from(SIZES),
    count=st.sampled_from([1, 1, 1, 2, 5, 20]),
    wait=_waits,
)
_bursts = _command(
    World.publish,
    topic=_topics,
    size=st.just(SIZES[0]),
    count=st.sampled_from([100, 300, 600]),
    wait=st.just((None, None)),
)
_cuts = _command(
    World.cut,
    client=_clients,
    by_server=st.booleans(),
    after=st.sampled_from([0, 0, 1]) | st.integers(0, 500) | st.integers(0, 300_000),
)
_flaws = _command(
    World.make_flaky,
    flaws=st.lists(
        st.tuples(st.booleans(), st.integers(100, 700) | st.integers(1, 10_000)), min_size=1, max_size=4
    ),
)
_delays = _command(World.set_delay, follower=_followers, delay=st.sampled_from([0.0, 0.01, 0.3, 7.0]))
_failures = _command(World.fail, follower=_followers)
_restarts = _command(World.restart, gently=st.booleans())

_commands: st.SearchStrategy[Command] = st.one_of(
    _publishes, _publishes, _bursts, _cuts, _cuts, _flaws, _delays, _failures, _restarts
)
_scripts = st.lists(st.lists(_commands, max_size=8), max_size=8).map(
    lambda parts: list(chain.from_iterable(parts))
)
"""Of lists, because one list alone is short on average."""

_plans = st.builds(Plan, _clients, _topics, st.sampled_from(POLICIES), st.sampled_from(sorted(STARTS)))


@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 3, 40, 1000]),
    st.lists(_plans, min_size=1, max_size=4),
    _scripts,
)
def every_update_comes_once_and_in_order_or_a_gap_is_told(
    seed: int, history: int, plans: list[Plan], script: list[Command]
) -> None:
    simulate(seed, history, plans, script)
