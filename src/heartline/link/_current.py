"""On whose behalf code runs: what handles a connection's frames knows it, and so do the tasks begun there."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heartline.link._core import Core

__all__ = ["current"]

current: ContextVar[Core] = ContextVar("heartline_connection")
