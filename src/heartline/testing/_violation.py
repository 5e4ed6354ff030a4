"""What every checker raises."""

from __future__ import annotations

__all__ = ["Violation"]


class Violation(AssertionError):
    """A promise was broken; the message says which one, by whom and when it was seen."""
