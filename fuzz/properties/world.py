"""A federation in a simulated world: whatever goes wrong, in any order. A script that fails shrinks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fuzz.world.federation import simulate
from fuzz.world.script import Fault, draw_script

# The faults are drawn from a source that Hypothesis plays, so it can leave them out one by one.
scripts = st.randoms(use_true_random=False).map(draw_script)


@given(st.integers(0, 2**32 - 1), scripts)
def nothing_is_lost_whatever_goes_wrong(seed: int, script: list[Fault]) -> None:
    simulate(seed, script)
