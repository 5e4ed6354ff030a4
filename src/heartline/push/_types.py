"""What publishers and subscribers talk about."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = ["NEWEST", "OLDEST", "SNAPSHOT", "Position", "Since", "SlowPolicy", "Update"]


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a topic: after the update ``offset`` of the topic's life ``epoch``.

    Keep it, and a later subscription can go on from there. The epoch is new whenever the history began anew,
    so offsets of different lives are never mixed up.
    """

    epoch: str
    offset: int


NEWEST: Final = "newest"
"""Begin with the newest update that is retained, if there is one, then go on: for state."""

OLDEST: Final = "oldest"
"""Begin with the oldest update that is retained: for logs."""

SNAPSHOT: Final = "snapshot"
"""Begin with the state of a topic that has a Fold, then go on with the update after it. Where updates are
lost, the state comes again in their place."""

Since = Position | Literal["newest", "oldest", "snapshot"] | None


class SlowPolicy(enum.Enum):
    """What happens when a subscriber does not keep up with its topic."""

    DROP_OLDEST = "drop oldest"
    """It is left behind; what leaves the history before it comes is lost to it, and it is told with a
    :class:`~heartline.HistoryGap`. The default: nobody waits, and no loss is silent."""
    KEEP_NEWEST = "keep newest"
    """It gets the newest update whenever it is ready, and skips those between: for state."""
    BLOCK = "block"
    """The publisher waits before it would lose an update that this subscriber has not got: until its own
    timeout, and for half a minute at most. Then it is as with ``DROP_OLDEST``."""
    DISCONNECT = "disconnect"
    """Its subscription ends with :class:`~heartline.SlowConsumer`."""


@dataclass(frozen=True, slots=True)
class Update:
    """One update of a topic; offsets of an epoch count up from 1 without holes.

    With :data:`heartline.SNAPSHOT` some are marked as ``snapshot``: their value is the state after the update
    with this offset (0: before the first one), and takes the place of the state so far.
    """

    topic: str
    epoch: str
    offset: int
    value: Any
    snapshot: bool = False

    @property
    def position(self) -> Position:
        """The place after this update."""
        return Position(self.epoch, self.offset)
