"""Failed rounds: the pauses behind them, and how many in a row are too many."""

from __future__ import annotations

import math
import random

import trio

from heartline.federated._report import FederationFailed, RoundReport, tell_dropped
from heartline.federated._settings import TrainerSettings
from heartline.link import Backoff

__all__ = ["PAUSES", "Failures"]

PAUSES = Backoff(initial=1.0, maximum=60.0)
"""Between failed rounds: a fault that passes costs seconds, and one that stays is told ten times in some
minutes."""


class Failures:
    """Rounds in a row that had too few results."""

    def __init__(self, settings: TrainerSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._count = 0
        self._resume_at = -math.inf
        """When the next round may begin."""

    async def pause(self) -> None:
        """Wait until the pause after a failed round is over."""
        if trio.current_time() < self._resume_at:
            await trio.sleep_until(self._resume_at)

    def count(self, report: RoundReport) -> None:
        """A round is over; raises :class:`FederationFailed` if it is one too many."""
        if report.receipt is not None:
            self._count = 0
            return
        pause = next(self._settings.backoff.delays(self._rng, after=self._count))
        self._resume_at = trio.current_time() + pause
        self._count += 1
        if self._count == self._settings.max_failures:
            self._count = 0
            raise FederationFailed(
                f"{self._settings.max_failures} rounds in a row (max_failures) had fewer than "
                f"{self._settings.minimum} results (minimum); the last one, round {report.round}, went on "
                f"without {tell_dropped(report.dropped)}",
                report=report,
            )
