"""The state of a topic: a fold over its updates, kept up to date by the publisher."""

from __future__ import annotations

import logging

from heartline.errors import PushError, SerializationError
from heartline.push._settings import Fold
from heartline.push._store import SavedState
from heartline.push._wire import decode_update, encode_update
from heartline.wire import Frame, FrameType, Serializer

__all__ = ["State"]

logger = logging.getLogger("heartline")


class State:
    """The state of one topic, after the update ``offset``."""

    __slots__ = ("_encoded", "_failed", "_fold", "_serializer", "_topic", "_value", "offset", "saved")

    def __init__(self, topic: str, fold: Fold, serializer: Serializer) -> None:
        self._topic = topic
        self._fold = fold
        self._serializer = serializer
        self._value = fold.initial()
        self._encoded: SavedState | None = None
        self._failed: Exception | None = None
        self.offset: int = 0
        self.saved: int = 0
        """The offset of the state that the topic's store has; it needs the updates after it."""

    @property
    def value(self) -> object:
        """The state itself; raises :class:`PushError` when an update could not be applied."""
        if self._failed is not None:
            raise PushError(
                f"topic {self._topic!r} has no state: after update {self.offset} came {self._failed!r:.200}"
            ) from self._failed
        return self._value

    def restore(self, saved: SavedState) -> None:
        """Begin with a state that was saved; raises :class:`SerializationError`."""
        self._value = decode_update(Frame(FrameType.PUSH, saved.flags, 0, 0, saved.payload))
        self.offset = self.saved = saved.offset

    def apply(self, offset: int, payload: bytes, flags: int) -> None:
        """Go on by one update; an error of the function must not stop the topic."""
        if self._failed is not None:
            return
        self._encoded = None
        try:
            self._value = self._fold.apply(
                self._value, decode_update(Frame(FrameType.PUSH, flags, 0, 0, payload))
            )
            self.offset = offset
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """There is no state any more; whoever asks for it is told."""
        logger.error("topic %r has no state any more", self._topic, exc_info=error)
        self._failed = error
        self._encoded = None

    def encode(self) -> SavedState:
        """The state as it is now, encoded once; raises :class:`PushError` if there is none that can be."""
        if self._encoded is None:
            try:
                payload, flags = encode_update(self._serializer, self.offset, self.value)
            except SerializationError as error:
                raise PushError(f"the state of topic {self._topic!r} cannot be sent: {error}") from error
            self._encoded = SavedState(offset=self.offset, payload=payload, flags=flags)
        return self._encoded
