"""Whole federations under faults, each from a seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.world.federation import simulate
from fuzz.world.script import Fault
from fuzz.world.seeds import CORPUS, MARKS, Total, known_seeds, replay
from heartline.testing import World

ROOT = Path(__file__).parents[2]
LEAST, MOST = 10, 100
"""How many seeds run: as many as it takes to reach everything."""

pytestmark = pytest.mark.slow


def test_the_first_seeds() -> None:
    """All hold, and together they reach what may go wrong in the code; ``python -m fuzz world`` runs more."""
    total, missed = Total(), list(MARKS)
    while total.seeds < LEAST or (missed and total.seeds < MOST):
        total.add(simulate(total.seeds))
        missed = [mark for mark in MARKS if not total.seen[mark]]
    assert not missed, f"{total.line()} never reached {missed}"
    assert total.faults > 10 * total.seeds
    assert total.messages > 100 * total.seeds


def test_what_failed_once_holds() -> None:
    assert CORPUS.is_file()
    for seed in known_seeds():
        simulate(seed)


@pytest.mark.parametrize("seed", [2, 19])
def test_a_seed_is_a_run(seed: int) -> None:
    """Twice in this process, and once more in another with other hashes: the same story."""
    first, again, next_one = World(seed), World(seed), World(seed + 1)
    assert simulate(seed, world=first) == simulate(seed, world=again)
    assert first.digest() == again.digest()
    program = (
        "from fuzz.world.federation import live; from heartline.testing import World; "
        f"world = World({seed}); world.run(live); print(world.story())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout == f"{first.story()}\n"
    simulate(seed + 1, world=next_one)
    assert next_one.digest() != first.digest()


def test_a_replay_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(2) == 0
    told = capsys.readouterr().out
    assert " hub      starts" in told
    assert " connects to memory://hub" in told
    assert told.splitlines()[-1].startswith("seed 2: all held, digest ")


def test_a_failure_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.world.federation.PEACE", 0.5)
    world = World(3)
    with pytest.raises(AssertionError, match=r"not within 0\.5 s") as caught:
        simulate(3, [Fault(0.0, "partition", "ada")], world)
    assert "seed 3" in "".join(caught.value.__notes__)
