"""The connection on whose behalf code runs: set where its frames are handled, and in tasks started there."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heartline.link._core import Core

__all__ = ["current"]

current: ContextVar[Core] = ContextVar("heartline_connection")
