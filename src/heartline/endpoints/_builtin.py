"""The services that every endpoint serves by itself; their names start with ``$``."""

from __future__ import annotations

from typing import Any

from heartline.link import Core, current
from heartline.observe import Hooks, Operation
from heartline.push import Push, SlowPolicy
from heartline.rpc import Calls, service

__all__ = ["PushService", "ask_for_topic"]


@service
class PushService:
    """``$push``: subscribing to topics of this endpoint."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    async def subscribe(self, topic: str, since: Any, policy: SlowPolicy, key: int) -> list[Any]:
        """Begin a subscription; the answer is ``[number, epoch, position]``."""
        core = current.get()

        async def serve() -> list[Any]:
            return core.part(Push).serve(topic, since, policy, key)

        operation = Operation(kind="subscribe", name=topic, peer=core.id, subject=since)
        answer: list[Any] = await self._hooks.around(operation, serve)
        return answer


async def ask_for_topic(core: Core, topic: str, since: Any, policy: str, key: int) -> Any:
    """Ask the peer's ``$push`` for a subscription."""
    return await core.part(Calls).proxy("$push", None).subscribe(topic, since, policy, key)
