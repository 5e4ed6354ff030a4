"""What programs say and do in a world, without their knowing: their log lines, their calls and updates."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from heartline.errors import CallError
from heartline.observe import Observer

__all__ = ["Witness", "logs_told_to"]

LEVEL = logging.INFO
"""The least level of a line that is told: what happens on a normal day, and not each attempt."""

LINE_SIZE = 300
"""Characters of a message that are told: it is to stay one line on a screen, or a few."""

Tell = Callable[[str], None]


class Witness(Observer):
    """An observer of all endpoints of a world.

    It is told of calls and updates. What becomes of connections heartline itself logs.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def call_made(self, name: str, seconds: float, error: BaseException | None) -> None:
        """A call has come back."""
        outcome = f" ({error.outcome.value})" if isinstance(error, CallError) else ""
        self._tell(f"called {name}: {_ending(error, 'answered')} after {seconds:.3f} s{outcome}{_why(error)}")

    def call_served(self, name: str, seconds: float, error: BaseException | None) -> None:
        """A call was executed."""
        self._tell(f"served {name}: {_ending(error, 'done')} after {seconds:.3f} s{_why(error)}")

    def update_published(self, topic: str, offset: int, size: int) -> None:
        """An update is out."""
        self._tell(f"published {topic!r}, update {offset}, {size} bytes")


def _ending(error: BaseException | None, well: str) -> str:
    if error is None:
        return well
    return "cancelled" if isinstance(error, trio.Cancelled) else "failed"


def _why(error: BaseException | None) -> str:
    return "" if error is None or isinstance(error, trio.Cancelled) else f": {_describe(error)}"


def _describe(error: BaseException) -> str:
    return _one_line(f"{type(error).__name__}: {error}".removesuffix(": "))


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LINE_SIZE else f"{text[:LINE_SIZE]}…"


@contextmanager
def logs_told_to(tell: Tell) -> Iterator[None]:
    """Within the block, tell what is logged in this thread at :data:`LEVEL` or above.

    What is told must follow from the seed alone, and not from how the process is set up to log: so the levels
    of the root and of heartline are set meanwhile. Handlers that are there get what they would have got.
    """
    loggers = [logging.getLogger(), logging.getLogger("heartline")]
    levels = {logger: logger.level for logger in loggers}
    handlers = [handler for logger in loggers for handler in logger.handlers]
    teller = _Teller(tell)

    def as_before(record: logging.LogRecord) -> bool:
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            level = levels.get(logger, logger.level)
            if level:
                return record.levelno >= level
            logger = logger.parent
        return True

    for handler in handlers:
        handler.addFilter(as_before)
    loggers[0].addHandler(teller)
    for logger in loggers:
        logger.setLevel(LEVEL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
        loggers[0].removeHandler(teller)
        for handler in handlers:
            handler.removeFilter(as_before)


class _Teller(logging.Handler):
    def __init__(self, tell: Tell) -> None:
        super().__init__(LEVEL)
        self._told = tell
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread != self._thread:
            return
        try:
            text = _one_line(record.getMessage())
        except Exception:
            self.handleError(record)
            return
        error = record.exc_info[1] if record.exc_info else None
        cause = f" ({_describe(error)})" if error is not None else ""
        level = "" if record.levelno == LEVEL else f"{record.levelname} "
        self._told(f"{level}{record.name}: {text}{cause}")
