"""Messages put together from fragments."""

from __future__ import annotations

import io

from heartline.errors import RemoteProtocolError
from heartline.wire import Flag, Frame, Limits

__all__ = ["Assembly"]


class _Half:
    """What has come of a message, in memory that the whole message can keep.

    It becomes bytes, unless arrays will view it: those are writable, so it becomes a bytearray. A further
    copy would double the memory of a long message, and let everybody wait for it.
    """

    __slots__ = ("_parts", "size")

    def __init__(self, flags: int) -> None:
        self._parts: bytearray | io.BytesIO = bytearray() if flags & Flag.RAW else io.BytesIO()
        self.size = 0

    def add(self, part: bytes) -> None:
        self.size += len(part)
        if isinstance(self._parts, bytearray):
            self._parts += part
        else:
            self._parts.write(part)

    def whole(self) -> bytes | bytearray:
        return self._parts if isinstance(self._parts, bytearray) else self._parts.getvalue()


class Assembly:
    """The incomplete messages of one session, each bounded in length, all bounded in number."""

    __slots__ = ("_limits", "halves")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
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
            if len(self.halves) >= self._limits.streams:
                raise RemoteProtocolError(
                    f"more than {self._limits.streams} messages in fragments at a time (Limits.streams)"
                )
            half = self.halves[key] = _Half(frame.flags)
        elif not frame.payload:
            raise RemoteProtocolError("an empty fragment")
        if half.size + len(frame.payload) > self._limits.message_size:
            raise RemoteProtocolError(
                f"a message longer than {self._limits.message_size} bytes (Limits.message_size)"
            )
        half.add(frame.payload)
        if frame.flags & Flag.MORE:
            return None
        self._forget(key)
        return Frame(frame.type, frame.flags, frame.channel, frame.id, half.whole())  # type: ignore[arg-type]

    def drop(self, channel: int) -> None:
        """Forget the halves of a lane on which the peer sends no more."""
        for key in [key for key in self.halves or () if key[1] == channel]:
            self._forget(key)

    def _forget(self, key: tuple[int, int, int]) -> None:
        assert self.halves is not None
        del self.halves[key]
        self.halves = self.halves or None
