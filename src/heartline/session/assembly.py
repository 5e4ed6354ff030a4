"""Messages put together from fragments."""

from __future__ import annotations

from heartline.errors import RemoteProtocolError
from heartline.wire import Flag, Frame, Limits

__all__ = ["Assembly"]


class Assembly:
    """The incomplete messages of one link, each bounded in length, all bounded in number."""

    __slots__ = ("_limits", "parts")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.parts: dict[tuple[int, int, int], bytearray] = {}

    def add(self, frame: Frame) -> Frame | None:
        """The whole message when this frame ends it, otherwise ``None``; raises RemoteProtocolError."""
        key = (frame.type, frame.channel, frame.id)
        parts = self.parts.get(key)
        if parts is None:
            if not frame.flags & Flag.MORE:
                return frame
            if len(self.parts) >= self._limits.streams:
                raise RemoteProtocolError(
                    f"more than {self._limits.streams} messages in fragments at a time (Limits.streams)"
                )
            parts = self.parts[key] = bytearray()
        elif not frame.payload:
            raise RemoteProtocolError("an empty fragment")
        if len(parts) + len(frame.payload) > self._limits.message_size:
            raise RemoteProtocolError(
                f"a message longer than {self._limits.message_size} bytes (Limits.message_size)"
            )
        parts += frame.payload
        if frame.flags & Flag.MORE:
            return None
        del self.parts[key]
        # A bytearray, not bytes: no further copy, and arrays that view it are writable.
        return Frame(frame.type, frame.flags, frame.channel, frame.id, parts)  # type: ignore[arg-type]

    def drop(self, channel: int) -> None:
        """Forget the halves of a channel that was reset."""
        for key in [key for key in self.parts if key[1] == channel]:
            del self.parts[key]
