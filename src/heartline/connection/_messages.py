"""The messages of all connections of a server, as users read them."""

from __future__ import annotations

from typing import Any, final

import trio

from heartline.connection._channels import decode_message
from heartline.connection._connection import Connection, face_of
from heartline.connection._inbox import SharedInbox
from heartline.link import NoPublicConstructor
from heartline.wire import Frame

__all__ = ["Message", "Messages"]


@final
class Message(metaclass=NoPublicConstructor):
    """A message that arrived on the default channel of a connection."""

    __slots__ = ("_frame", "connection")

    def __init__(self, connection: Connection, frame: Frame) -> None:
        self.connection: Connection = connection
        """Where it arrived."""
        self._frame = frame

    @property
    def value(self) -> Any:
        """The message: bytes, or a value; raises :class:`SerializationError` if it cannot be decoded."""
        return decode_message(self._frame)


@final
class Messages(metaclass=NoPublicConstructor):
    """An async iterator of every :class:`Message` whose connection has no reader; ends with the server.

    Connections with messages take turns. Nothing is dropped: a peer may send on when its message was read
    here. It may be read by several tasks; cancelling the wait loses nothing.
    """

    __slots__ = ("_shared",)

    def __init__(self, shared: SharedInbox) -> None:
        self._shared = shared
        shared.has_reader = True

    def __aiter__(self) -> Messages:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> Message:
        await trio.lowlevel.checkpoint()
        while True:
            taken = self._shared.take()
            if taken is not None:
                core, frame = taken
                return Message._create(face_of(core), frame)
            if self._shared.ended:
                raise StopAsyncIteration
            await self._shared.changed.park()
