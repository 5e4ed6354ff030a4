"""The messages of all connections of a server, as users read them."""

from __future__ import annotations

from functools import partial
from typing import Any, final

import trio

from heartline.connection._channels import decode_message
from heartline.connection._connection import Connection, face_of
from heartline.connection._inbox import SharedInbox
from heartline.connection._lanes import Lanes
from heartline.connection._middleware import Dropped, let_in
from heartline.errors import SerializationError
from heartline.link import Core, NoPublicConstructor
from heartline.wire import Frame

__all__ = ["Message", "Messages"]


@final
class Message(metaclass=NoPublicConstructor):
    """A message that arrived on the default channel of a connection."""

    __slots__ = ("_frame", "_most", "_value", "connection")

    def __init__(self, connection: Connection, frame: Frame | None, most: int = 0, value: Any = None) -> None:
        self.connection: Connection = connection
        """The connection on which it arrived."""
        self._frame = frame
        self._most = most
        self._value = value

    @property
    def value(self) -> Any:
        """The message: bytes, or a value; raises :class:`SerializationError` if it cannot be decoded."""
        if self._frame is not None:
            self._value, self._frame = decode_message(self._frame, self._most), None
        return self._value


def _undecoded(core: Core, frame: Frame) -> Message:
    return Message._create(face_of(core), frame, core.setup.limits.items)


async def _let_in(core: Core, frame: Frame) -> Message:
    """Pass a message through the middleware, which does not see messages that cannot be decoded."""
    try:
        value = decode_message(frame, core.setup.limits.items)
    except SerializationError:
        return _undecoded(core, frame)
    inbox = core.part(Lanes).inbox
    value = await let_in(core, "", value, partial(inbox.put_back, frame))
    return Message._create(face_of(core), None, value=value)


@final
class Messages(metaclass=NoPublicConstructor):
    """An async iterator of every :class:`Message` whose connection has no reader; ends with the server.

    Connections with messages take turns. Nothing is dropped while its connection is open: a peer may send
    more once its message was read here. ``Limits.lost_buffer`` bounds what all connections that have ended
    left behind; beyond that, the messages of those that ended first are dropped. Several
    tasks may read it; cancelling the wait loses nothing.
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
                if not core.setup.hooks.middleware:
                    return _undecoded(core, frame)
                try:
                    return await _let_in(core, frame)
                except Dropped:
                    continue
            if self._shared.ended:
                raise StopAsyncIteration
            await self._shared.changed.park()
