"""The built-in services of every endpoint; their names start with ``$``."""

from __future__ import annotations

from typing import Any

import trio

from heartline.errors import Overloaded
from heartline.link import Core, current
from heartline.observe import Hooks, Operation
from heartline.push import Push, SlowPolicy
from heartline.rpc import Calls, NotBegun, service

__all__ = ["ask_for_topic", "make_push_service"]


@service
class PushService:
    """``$push``: subscribing to topics of this endpoint."""

    def subscribe(self, topic: str, since: Any, policy: SlowPolicy, key: int) -> list[Any]:
        """Begin a subscription; the answer is ``[number, epoch, position]``."""
        return current.get().part(Push).serve(topic, since, policy, key)


@service
class GuardedPushService:
    """``$push`` inside the endpoint's middleware."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    async def subscribe(self, topic: str, since: Any, policy: SlowPolicy, key: int) -> list[Any]:
        """Begin a subscription; one that is refused, or cancelled meanwhile, leaves nothing behind."""
        core = current.get()
        push = core.part(Push)
        with push.request(key) as request:

            async def serve() -> list[Any]:
                if request.given_up:
                    raise PermissionError("the subscription was given up")
                return push.serve(topic, since, policy, key)

            operation = Operation(kind="subscribe", name=topic, peer=core.id, subject=since)
            try:
                answer: list[Any] = await self._hooks.guard(operation, serve)
            except Overloaded as error:
                raise NotBegun(str(error)) from None
            # The call may have been cancelled while middleware shielded itself.
            await trio.lowlevel.checkpoint_if_cancelled()
            return answer


def make_push_service(hooks: Hooks) -> PushService | GuardedPushService:
    """The service ``$push`` of an endpoint."""
    return GuardedPushService(hooks) if hooks.middleware else PushService()


async def ask_for_topic(core: Core, topic: str, since: Any, policy: str, key: int) -> Any:
    """Ask the peer's ``$push`` for a subscription."""
    # Not through a proxy: its errors would begin with the name of a method that the user has not called.
    name = f"subscribe to {topic!r}"
    return await core.part(Calls).call(name, b"$push.subscribe", (topic, since, policy, key), {}, Any)
