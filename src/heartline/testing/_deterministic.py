"""A run of Trio that depends on its seed alone."""

from __future__ import annotations

import gc
import importlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

__all__ = ["deterministic"]


@contextmanager
def deterministic(seed: str) -> Iterator[None]:
    """Within the block, everything that ``trio.run`` and ``random`` do follows from ``seed``.

    Trio wakes the tasks of one tick in an arbitrary order on purpose. For tests it has a private switch that
    sorts them before it shuffles, and a private source for the shuffle: both are set here and put back
    afterwards. :class:`random.SystemRandom`, from which programs take ids and jitter when nobody gave them a
    source, is a seeded source meanwhile. The garbage collector rests: when it finds a cycle, and ends an
    async generator in it, depends on all that the process did before. All of this belongs to the process, so
    do not do it in two threads at a time.

    Raises :class:`RuntimeError` if this version of Trio has no such switch.
    """
    run: Any = importlib.import_module("trio._core._run")
    switch = getattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", None)
    shuffler = getattr(run, "_r", None)
    if not isinstance(switch, bool) or not isinstance(shuffler, random.Random):
        raise RuntimeError(
            f"Trio {trio.__version__} has no _ALLOW_DETERMINISTIC_SCHEDULING and _r in trio._core._run, so a "
            "run cannot be repeated: heartline.testing needs another version for this, such as Trio 0.35"
        )
    scheduling, chance, system = shuffler.getstate(), random.getstate(), random.SystemRandom
    seeds = random.Random(f"{seed} system")

    class SeededRandom(system):  # type: ignore[misc, valid-type]
        """A source that the run's seed feeds, in place of the system's."""

        def __init__(self, _ignored: object = None) -> None:
            self._source = random.Random(seeds.getrandbits(64))

        def random(self) -> float:
            return self._source.random()

        def getrandbits(self, k: int, /) -> int:
            return self._source.getrandbits(k)

        def randbytes(self, n: int) -> bytes:
            return self._source.randbytes(n)

    run._ALLOW_DETERMINISTIC_SCHEDULING = True
    shuffler.seed(f"{seed} scheduling")
    random.seed(f"{seed} random")
    random.SystemRandom = SeededRandom  # type: ignore[misc, assignment]
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        run._ALLOW_DETERMINISTIC_SCHEDULING = switch
        shuffler.setstate(scheduling)
        random.setstate(chance)
        random.SystemRandom = system  # type: ignore[misc]
