"""How suspicious a silence is, as a number: the phi of an accrual failure detector.

After N. Hayashibara, X. Défago, R. Yared and T. Katayama, "The φ Accrual Failure Detector", SRDS 2004:

    phi = -log10 P(a living peer is silent for longer than this)

so 1 means that one living peer in ten would have been silent for that long, 6 one in a million. Their
distribution of the gaps is the normal one; here it is the logistic one of the same mean and variance, cut off
at 0. It has a closed form that neither underflows nor overflows, and a longer tail, as networks have.
"""

from __future__ import annotations

import math

__all__ = ["Gaps"]

WEIGHT = 1 / 8
"""Of the latest gap in mean and variance: about the last fifteen heartbeats count."""

LEAST_DEVIATION = 1 / 4
"""Of the mean: a peer that was punctual so far is not suspected for the first delay of its life."""

_SCALE = math.sqrt(3) / math.pi
"""Of a logistic distribution: its deviation times this is its parameter."""


class Gaps:
    """What is known about the gaps between a peer's words: a mean and a variance, exponentially weighted."""

    __slots__ = ("_mean", "_variance")

    def __init__(self, expected: float) -> None:
        self._mean = expected
        self._variance = 0.0

    def learn(self, gap: float) -> None:
        """The peer was silent for this long, and then spoke."""
        surprise = gap - self._mean
        self._mean += WEIGHT * surprise
        self._variance = (1 - WEIGHT) * (self._variance + WEIGHT * surprise * surprise)

    def suspicion(self, silence: float) -> float:
        """The phi of a silence of so many seconds: 0 for none, growing with it, finite."""
        deviation = max(math.sqrt(self._variance), LEAST_DEVIATION * self._mean)
        scale = deviation * _SCALE
        return (_softplus((silence - self._mean) / scale) - _softplus(-self._mean / scale)) / math.log(10)


def _softplus(x: float) -> float:
    """``log(1 + exp(x))``, for any x."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
