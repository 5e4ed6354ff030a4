"""The state of a topic: a fold over its updates, kept up to date by the publisher."""

from __future__ import annotations

import logging
from typing import Any

from heartline.errors import PushError, SerializationError
from heartline.observe import own_error
from heartline.push._settings import Fold
from heartline.push._store import SavedState
from heartline.push._wire import PUSH_HEAD, stamp
from heartline.wire import Serializer, convert, decode_value, encode_value
from heartline.wire.payload import ItemCount

__all__ = ["State", "warn_of_end"]

logger = logging.getLogger("heartline.push")


def warn_of_end(topic: str, saved: int) -> None:
    """Nothing goes on from the state that a store has, after the update ``saved``: say until when it can."""
    logger.warning(
        "topic %r: the state in its store is lost once the history forgets update %d; "
        "open the topic with a fold that can apply it before that happens",
        topic,
        saved + 1,
    )


class State:
    """The state of one topic, after the update ``offset``."""

    __slots__ = (
        "_cause",
        "_due",
        "_durable",
        "_encoded",
        "_fold",
        "_lost",
        "_serializer",
        "_stamped",
        "_topic",
        "_value",
        "offset",
        "saved",
    )

    def __init__(self, topic: str, fold: Fold, serializer: Serializer, *, durable: bool) -> None:
        self._topic = topic
        self._fold = fold
        self._durable = durable
        self._serializer = serializer
        self._value = fold.initial()
        self._encoded: SavedState | None = None
        self._stamped: tuple[bytes, ItemCount] | None = None
        self._lost = ""
        """Why there is no state any more."""
        self._cause: BaseException | None = None
        self._due: int = 0
        """Bytes of updates until the state is looked at again: as many as it had itself the last time."""
        self.offset: int = 0
        self.saved: int = 0
        """The offset of the state that the topic's store has; it needs the updates after it."""

    @property
    def value(self) -> object:
        """The state itself; raises :class:`PushError` when an update could not be applied."""
        if self._lost:
            raise PushError(f"topic {self._topic!r}: there is no state: {self._lost}") from self._cause
        return self._value

    def restore(self, saved: SavedState) -> None:
        """Begin with a state that was saved; raises :class:`SerializationError`."""
        if saved.payload:
            self._value = decode_value(saved.payload, saved.flags)
        self.offset = self.saved = saved.offset

    def apply(self, offset: int, value: bytes, flags: int) -> None:
        """Go on by one update; an error of the function must not stop the topic."""
        if self._lost:
            return
        self._encoded = self._stamped = None
        try:
            update = decode_value(value, flags)
            if self._fold.type is not Any:
                update = convert(update, self._fold.type)
            self._value = self._fold.apply(self._value, update)
            self.offset = offset
        except BaseException as error:
            own_error(error)  # Ctrl-C goes on
            self._end(f"update {offset} could not be applied: {error!r:.200}", error)
            return
        self._due -= len(value)
        if self._due <= 0:  # in the long run the look costs no more than the updates themselves
            self._look()

    def _look(self) -> None:
        """See whether the state can be sent and read."""
        try:
            self.encode()
        except PushError:
            pass  # it is lost, and the log says why

    def _end(self, reason: str, cause: BaseException) -> None:
        self.fail(reason, cause)
        if self._durable:
            warn_of_end(self._topic, self.saved)

    def fail(self, reason: str, cause: BaseException | None = None) -> None:
        """There is no state any more, and asking for it raises."""
        logger.error("topic %r has no state any more: %s", self._topic, reason, exc_info=cause)
        self._lost, self._cause = reason, cause
        self._encoded = self._stamped = None

    def encode(self) -> SavedState:
        """The state as it is now, encoded once; raises :class:`PushError` if none can be read."""
        if self._encoded is None:
            value = self.value
            try:
                payload, flags = encode_value(self._serializer, value)
                decode_value(payload, flags)
            except SerializationError as error:
                why = f"the one after update {self.offset} cannot be sent: {error}"
                self._end(why, error)
                raise PushError(f"topic {self._topic!r}: there is no state: {why}") from error
            self._encoded = SavedState(offset=self.offset, payload=payload, flags=flags)
            self._due = len(payload)
        return self._encoded

    def payload(self) -> tuple[bytes, ItemCount]:
        """The payload of the frame with the state and its items, made once for all subscribers; raises as
        ``encode``.
        """
        state = self.encode()
        if self._stamped is None:
            payload = stamp(state.offset, state.payload)
            items = ItemCount(state.payload[0], payload, state.flags, PUSH_HEAD.size)
            self._stamped = payload, items
        return self._stamped
