"""What heartline logs as an error: an exception that was caught where none is expected."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_logged_errors"]


@contextmanager
def no_logged_errors() -> Iterator[None]:
    """Fail at the end of the block if there was one in it."""
    errors = _Errors()
    logger = logging.getLogger("heartline")
    logger.addHandler(errors)
    try:
        yield
    finally:
        logger.removeHandler(errors)
    assert not errors.messages, errors.messages


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))
