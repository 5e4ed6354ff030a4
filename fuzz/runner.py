"""Runs the properties of a target in turns until the time is over, and counts."""

from __future__ import annotations

import functools
import importlib
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

CORPUS = Path(__file__).parent / "corpus"

TARGETS: dict[str, tuple[str, ...]] = {
    "codec": ("fuzz.properties.codec",),
    "federation": ("fuzz.properties.world",),
    "hostile": ("fuzz.properties.hostile",),
    "push": ("fuzz.properties.push",),
    "session": ("fuzz.properties.session", "fuzz.properties.heartbeat"),
    "values": (
        "fuzz.properties.serializers",
        "fuzz.properties.segments",
        "fuzz.properties.payload",
        "fuzz.properties.published",
        "fuzz.properties.items",
    ),
}
"""A target's modules; to add one, name it here and write the module."""

EXAMPLES_PER_TURN = 200
"""Examples of one property before the next has its turn: short enough that all have one in a minute."""

PROGRESS_EVERY = 10.0
"""Seconds between two lines of progress."""

Property = Callable[[], None]


@dataclass
class Tally:
    """What one property has done: examples run, and the seconds they took."""

    name: str
    examples: int = 0
    seconds: float = 0.0

    def line(self) -> str:
        """One row of the report."""
        speed = self.examples / self.seconds if self.seconds else 0.0
        return f"{self.name:<56}{self.examples:>12,}{self.seconds:>10.1f} s{speed:>10,.0f} / s"


def properties_of(*modules: ModuleType) -> list[Property]:
    """The properties of these modules, in the order of their definition."""
    return [
        value for module in modules for value in vars(module).values() if hasattr(value, "is_hypothesis_test")
    ]


def load(target: str) -> list[Property]:
    """The properties of a target, set up for long runs.

    A property takes the settings that are the default when its module is imported, so this is for a process
    of its own.
    """
    settings.register_profile(
        "fuzz",
        max_examples=EXAMPLES_PER_TURN,
        database=DirectoryBasedExampleDatabase(CORPUS / target),
        deadline=None,
        derandomize=False,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("fuzz")
    return properties_of(*map(importlib.import_module, TARGETS[target]))


def run(properties: Sequence[Property], *, seconds: float) -> int:
    """Run the properties in turns for so long; prints as it goes and gives the status for the shell.

    0: all held. 1: one failed, its smallest failing input was printed. 130: interrupted.
    """
    tallies = [Tally(prop.__name__) for prop in properties]
    started = time.monotonic()
    try:
        with _interrupted_between_examples() as interrupt:
            _take_turns(properties, tallies, started, started + seconds, interrupt)
    except KeyboardInterrupt:
        status, verdict = 130, "interrupted"
    except Exception as error:
        traceback.print_exception(error)
        status, verdict = 1, "FAILED"
    else:
        status, verdict = 0, "all held"
    for tally in tallies:
        print(tally.line())
    print(Tally(f"total: {verdict}", sum(t.examples for t in tallies), time.monotonic() - started).line())
    return status


class _Interrupt:
    """Ctrl-C that waits for the next example; a second one does not."""

    def __init__(self) -> None:
        self._due = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """Take the signal."""
        if self._due:
            raise KeyboardInterrupt
        self._due = True

    def check(self) -> None:
        """Raise what has been noted."""
        if self._due:
            raise KeyboardInterrupt


@contextmanager
def _interrupted_between_examples() -> Iterator[_Interrupt]:
    """While open, Ctrl-C does not strike in Hypothesis, which may take it for a fault of the property."""
    interrupt = _Interrupt()
    before = signal.signal(signal.SIGINT, interrupt.note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def _take_turns(
    properties: Sequence[Property],
    tallies: list[Tally],
    started: float,
    end: float,
    interrupt: _Interrupt,
) -> None:
    print(f"{len(properties)} properties, {end - started:.0f} s", flush=True)
    report_at = started + PROGRESS_EVERY
    while True:
        for prop, tally in zip(properties, tallies, strict=True):
            now = time.monotonic()
            if now >= end:
                return
            if now >= report_at:
                report_at = now + PROGRESS_EVERY
                print(Tally("…", sum(t.examples for t in tallies), now - started).line(), flush=True)
            interrupt.check()
            with _counted(prop, tally, interrupt):
                prop()


@contextmanager
def _counted(prop: Any, tally: Tally, interrupt: _Interrupt) -> Iterator[None]:
    """While open, every example that the property runs is counted."""
    inner = prop.hypothesis.inner_test

    @functools.wraps(inner)
    def count(*args: Any, **kwargs: Any) -> None:
        interrupt.check()
        tally.examples += 1
        inner(*args, **kwargs)

    prop.hypothesis.inner_test = count
    started = time.monotonic()
    try:
        yield
    finally:
        tally.seconds += time.monotonic() - started
        prop.hypothesis.inner_test = inner
