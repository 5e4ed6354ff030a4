"""What every checker raises."""

from __future__ import annotations

__all__ = ["Violation"]


class Violation(AssertionError):
    """A promise was broken; the message says which promise, what broke it, and when that was seen."""
