"""How long to wait before the next attempt."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from heartline.errors import ConfigurationError

__all__ = ["Backoff"]


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter: each delay is drawn evenly from 0 to a growing ceiling.

    Full jitter spreads the clients of a restarted server best (Marc Brooker, "Exponential Backoff and
    Jitter", 2015). The ceiling is ``initial * factor ** n``, at most ``maximum``; in seconds.

    - ``initial``: the first ceiling.
    - ``maximum``: the last ceiling.
    - ``factor``: how much higher each ceiling is than the one before.
    - ``attempts``: attempts in a row before giving up; by default they go on for ever.
    """

    initial: float = 0.2
    """The first ceiling: a blink for a person, long enough for a process that restarts at once."""
    maximum: float = 30.0
    """The last ceiling: an outage of hours costs a client two attempts a minute."""
    factor: float = 2.0
    """How much higher each ceiling is than the one before."""
    attempts: int | None = None
    """Attempts in a row before giving up; ``None``: never give up, connections live for days."""

    def __post_init__(self) -> None:
        for name, least in (("initial", 0.0), ("maximum", 0.0), ("factor", 1.0)):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not least <= value < float("inf"):
                raise ConfigurationError(
                    f"Backoff.{name} must be a number of at least {least:g}, not {value!r}"
                )
        if self.initial == 0:
            raise ConfigurationError("Backoff.initial must be above 0: nothing grows from there")
        if self.maximum < self.initial:
            raise ConfigurationError(
                f"Backoff.maximum ({self.maximum!r}) must be at least Backoff.initial ({self.initial!r})"
            )
        if self.attempts is not None and not (type(self.attempts) is int and self.attempts > 0):
            raise ConfigurationError(f"Backoff.attempts must be at least 1 or None, not {self.attempts!r}")

    def ceiling(self, failures: int) -> float:
        """The longest delay after so many failed attempts, in seconds."""
        ceiling = self.initial
        while failures and ceiling < self.maximum and self.factor > 1:
            ceiling, failures = min(self.maximum, ceiling * self.factor), failures - 1
        return ceiling

    def delays(self, rng: random.Random, *, after: int = 0) -> Iterator[float]:
        """The delay before each attempt in a row, in seconds; ends after ``attempts``.

        ``after`` attempts have failed before: the ceiling begins where these have left it.
        """
        ceiling, count = self.ceiling(after), 0
        while self.attempts is None or count < self.attempts:
            yield rng.uniform(0, ceiling)
            ceiling = min(self.maximum, ceiling * self.factor)
            count += 1
