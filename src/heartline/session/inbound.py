"""The frames of one link as they come, and those that are held back while it shakes hands."""

from __future__ import annotations

from collections.abc import Sequence

from heartline.errors import RemoteProtocolError
from heartline.wire import Frame, FrameDecoder, Limits

__all__ = ["Inbound"]


class Inbound(FrameDecoder):
    """A decoder that a session takes over with the link."""

    __slots__ = ("held_back", "offence")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.held_back: Sequence[Frame] = ()
        """Decoded, and not looked at."""
        self.offence: RemoteProtocolError | None = None
        """What the peer did wrong with a frame: nothing of the link is looked at any more."""

    def feed_held_back(self, data: bytes, *, one: bool) -> list[Frame]:
        """What was held back and what these bytes bring, or only the first of it.

        Raises the error of the bytes after the last good frame, like :meth:`feed`.
        """
        frames, self.held_back = [*self.held_back], ()
        try:
            frames += self.feed(data)
        except RemoteProtocolError:
            if not frames:  # otherwise the next feed raises it again
                raise
        if one:
            frames, self.held_back = frames[:1], frames[1:]
        return frames

    @property
    def has_offence(self) -> bool:
        """Whether the peer broke the protocol, and no good frame comes before that."""
        return self.offence is not None or (self.failed and not self.held_back)
