"""The services that every endpoint serves by itself; their names start with ``$``."""

from __future__ import annotations

from typing import Any

from heartline.connection import current_connection
from heartline.push import PushLayer, SlowPolicy
from heartline.rpc import service

__all__ = ["PushService"]


@service
class PushService:
    """``$push``: subscribing to topics of this endpoint."""

    def subscribe(self, topic: str, since: Any, policy: SlowPolicy, key: int) -> list[Any]:
        """Begin a subscription; the answer is ``[number, epoch, position]``."""
        push = current_connection().push
        assert isinstance(push, PushLayer)
        return push.serve(topic, since, policy, key)
