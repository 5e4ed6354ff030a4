"""One seed is one run: in this process, and in any other."""

from __future__ import annotations

import gc
import os
import random
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import trio
import trio._core._run as trio_run

from heartline.testing import Node, World
from heartline.testing._deterministic import deterministic

from .helpers import nothing, storm


def test_trio_still_has_its_private_switch() -> None:
    """If this fails, Trio has changed: find the new way to schedule deterministically."""
    assert isinstance(trio_run._ALLOW_DETERMINISTIC_SCHEDULING, bool)
    assert isinstance(trio_run._r, random.Random)


def test_without_the_switch_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING")
    with pytest.raises(RuntimeError, match=rf"Trio {re.escape(trio.__version__)} has no .* 0\.35"):
        World(1).run(nothing)


def test_everything_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", False)  # Hypothesis sets it too
    before: list[Any] = [
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING,
        trio_run._r.getstate(),
        random.getstate(),
        random.SystemRandom,
    ]
    with pytest.raises(ZeroDivisionError), deterministic("1"):
        assert trio_run._ALLOW_DETERMINISTIC_SCHEDULING
        random.random()
        raise ZeroDivisionError
    assert before == [
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING,
        trio_run._r.getstate(),
        random.getstate(),
        random.SystemRandom,
    ]


def chance(seed: str) -> list[object]:
    """What differs from run to run without a seed."""
    order: list[int] = []

    async def note(number: int) -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
            order.append(number)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(note, number)

    with deterministic(seed):
        trio.run(main)
        system = random.SystemRandom()
        return [order, random.random(), system.random(), system.getrandbits(70), system.randbytes(9)]


def test_scheduling_and_chance_follow_from_the_seed() -> None:
    assert chance("1") == chance("1")
    assert all(one != other for one, other in zip(chance("1"), chance("2"), strict=True))


@pytest.mark.slow
def test_a_seed_is_a_run_in_this_process() -> None:
    first, second, other = storm(1), storm(1), storm(2)
    assert first == second
    assert first[0] != other[0]
    assert len(first[1]) > 50


@pytest.mark.slow
def test_a_seed_is_a_run_in_every_process() -> None:
    code = "from tests.testing.helpers import storm; print(*[storm(seed)[0] for seed in (1, 2)])"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hashing},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashing in ("0", "1", "77")
    }
    assert found == {f"{storm(1)[0]} {storm(2)[0]}\n"}


def test_when_garbage_is_collected_makes_no_difference() -> None:
    """An async generator in a cycle ends when the collector finds it, and may then say something."""

    def simulate(litter: int) -> str:
        kept: list[object] = []

        async def wander(world: World) -> AsyncGenerator[int, None]:
            try:
                while True:
                    yield 1
            finally:
                world.log("finalized")

        async def program(node: Node, world: World) -> None:
            for step in range(30):
                generator = wander(world)
                await anext(generator)
                cycle: list[object] = [generator]
                cycle.append(cycle)
                del generator, cycle
                kept.extend([] for _ in range(litter))
                world.log("step", step)
                await node.sleep(0.1)

        async def main(world: World) -> None:
            world.node("a").start(program, world)
            await trio.sleep(10)

        world = World(1)
        world.run(main)
        return world.digest()

    assert len({simulate(litter) for litter in (0, 60, 500)}) == 1
    assert gc.isenabled()
