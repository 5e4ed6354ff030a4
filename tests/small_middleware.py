"""Three small pieces of middleware, as an application would write them."""

from __future__ import annotations

from typing import Any

import trio

from heartline import Operation, Overloaded
from heartline.observe import Proceed

__all__ = ["Allowed", "Journal", "TokenBucket"]


class Journal:
    """Writes down what goes on, and how it ends."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    async def __call__(self, operation: Operation, proceed: Proceed) -> Any:
        line = f"{operation.kind} {operation.name}"
        try:
            result = await proceed()
        except BaseException as error:
            self.lines.append(f"{line}: {type(error).__name__}")
            raise
        self.lines.append(line)
        return result


class TokenBucket:
    """So many calls a second for each peer, and a few at once; more of them are refused, or wait."""

    def __init__(self, *, rate: float, size: int, wait: bool = False) -> None:
        self.rate, self.size, self.wait = rate, size, wait
        self._full_at: dict[str, float] = {}
        """When the bucket of a peer will be full."""

    async def __call__(self, operation: Operation, proceed: Proceed) -> Any:
        if operation.kind == "call":
            now = trio.current_time()
            full_at = max(now, self._full_at.get(operation.peer, now)) + 1 / self.rate
            delay = full_at - now - self.size / self.rate
            if delay > 1e-9 and not self.wait:
                raise Overloaded(f"{self.rate:g} calls a second")
            self._full_at[operation.peer] = full_at
            await trio.sleep(max(0.0, delay))
        return await proceed()


class Allowed:
    """Which peers may subscribe to a topic, and which topics may be published; other topics are open."""

    def __init__(self, topics: dict[str, set[str]]) -> None:
        self.topics = topics

    async def __call__(self, operation: Operation, proceed: Proceed) -> Any:
        if operation.kind in ("subscribe", "publish"):
            allowed = self.topics.get(operation.name)
            if allowed is not None and operation.peer not in allowed:
                raise PermissionError(f"{operation.peer or 'the server'} may not {operation.kind} here")
        return await proceed()
