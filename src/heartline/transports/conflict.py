"""Detects two tasks on one end of a stream, a bug of the caller, which would otherwise get mixed bytes."""

from __future__ import annotations

import trio


class ConflictDetector:
    """A ``with`` block that only one task may be in; a second one gets :exc:`trio.BusyResourceError`."""

    __slots__ = ("_busy", "_message")

    def __init__(self, message: str) -> None:
        self._message = message
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(self._message)
        self._busy = True

    def __exit__(self, *_: object) -> None:
        self._busy = False
