"""Messages put together from fragments."""

from __future__ import annotations

import io

from heartline.errors import RemoteProtocolError
from heartline.wire import Flag, Frame, Limits

__all__ = ["LEAST_HALF", "Assembly"]

LEAST_HALF = 1024
"""Bytes that a half counts at least: what the bookkeeping of one takes, however short it is."""


class _Half:
    """What has come of a message, in memory that the whole message can keep.

    It becomes bytes, unless arrays will view it: those are writable, so it becomes a bytearray. A further
    copy would double the memory of a long message, and let everybody wait for it.
    """

    __slots__ = ("_parts", "cost", "size")

    def __init__(self, flags: int) -> None:
        self._parts: bytearray | io.BytesIO = bytearray() if flags & Flag.RAW else io.BytesIO()
        self.size = 0
        self.cost = 0  # what it counts, from its first fragment on

    def add(self, part: bytes) -> None:
        self.size += len(part)
        self.cost = max(LEAST_HALF, self.size)
        if isinstance(self._parts, bytearray):
            self._parts += part
        else:
            self._parts.write(part)

    def whole(self) -> bytes | bytearray:
        return self._parts if isinstance(self._parts, bytearray) else self._parts.getvalue()


class Assembly:
    """The incomplete messages of one session, each bounded in length, and all of them together."""

    __slots__ = ("_limits", "halves", "size")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.size: int = 0
        """Bytes that they hold."""
        self.halves: dict[tuple[int, int, int], _Half] | None = None
        """By type, channel and id; ``None`` while there are none, which costs an idle session nothing."""

    def add(self, frame: Frame) -> Frame | None:
        """The whole message when this frame ends it, otherwise ``None``; raises RemoteProtocolError."""
        key = (frame.type, frame.channel, frame.id)
        if self.halves is None:
            self.halves = {}
        half = self.halves.get(key)
        if half is None:
            if not frame.flags & Flag.MORE:
                return frame
            half = self.halves[key] = _Half(frame.flags)
        elif not frame.payload:
            raise RemoteProtocolError("an empty fragment")
        if half.size + len(frame.payload) > self._limits.message_size:
            raise RemoteProtocolError(
                f"a message longer than {self._limits.message_size} bytes (Limits.message_size)"
            )
        self.size -= half.cost
        half.add(frame.payload)
        self.size += half.cost
        if frame.flags & Flag.MORE:
            if self.size > self._limits.share:
                raise RemoteProtocolError(
                    f"the halves of {len(self.halves)} messages hold more than {self._limits.share} bytes "
                    "(Limits.memory)"
                )
            return None
        self._forget(key)
        return Frame(frame.type, frame.flags, frame.channel, frame.id, half.whole())  # type: ignore[arg-type]

    def drop(self, channel: int) -> None:
        """Forget the halves of a lane on which the peer sends no more."""
        for key in [key for key in self.halves or () if key[1] == channel]:
            self._forget(key)

    def _forget(self, key: tuple[int, int, int]) -> None:
        assert self.halves is not None
        self.size -= self.halves.pop(key).cost
        self.halves = self.halves or None
