"""What publishers and subscribers talk about, and the choices they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeAlias, TypeVar, get_args

from heartline.errors import ConfigurationError

__all__ = [
    "MAX_TOPIC_NAME",
    "POLICIES",
    "STARTS",
    "WAITS",
    "Gap",
    "OnGap",
    "Position",
    "Since",
    "SlowPolicy",
    "Update",
    "WaitFor",
    "check_choice",
    "check_topic_name",
    "is_seconds",
]

MAX_TOPIC_NAME = 256
"""Characters in a topic's name."""

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a topic: after the update ``offset`` of the topic's life ``epoch``.

    Keep it, and a later subscription can go on from there. The epoch changes when the history begins again
    from nothing, so offsets of different lives are never mixed up.
    """

    epoch: str
    offset: int


_Start: TypeAlias = Literal["newest", "oldest", "snapshot"]
STARTS: Final = get_args(_Start)

Since: TypeAlias = Position | _Start | None
"""Where a subscription begins: ``None`` with the next update, ``"newest"`` with the newest that is retained,
``"oldest"`` with the oldest, ``"snapshot"`` with the state, or after a :class:`Position`."""

SlowPolicy: TypeAlias = Literal["drop oldest", "keep newest", "block", "disconnect"]
"""What happens to a subscriber that does not keep up: it is left behind and gets a :class:`Gap`, it skips to
the newest update, the publisher waits for it, or its subscription ends."""
POLICIES: Final[tuple[SlowPolicy, ...]] = get_args(SlowPolicy)

OnGap: TypeAlias = Literal["yield", "raise"]
"""How a subscription tells that updates were lost: with a :class:`Gap` item, or by raising."""

_Wait: TypeAlias = Literal["stored", "sent", "confirmed"]
WAITS: Final = get_args(_Wait)

WaitFor: TypeAlias = _Wait | None
"""What ``publish`` waits for."""


def check_topic_name(name: object) -> None:
    """Raise :class:`ConfigurationError` unless this can be the name of a topic."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_TOPIC_NAME or not _is_unicode(name):
        raise ConfigurationError(
            f"a topic's name is Unicode text of 1 to {MAX_TOPIC_NAME} characters, not {name!r:.80}"
        )


def _is_unicode(text: str) -> bool:
    """Whether a text can be sent: one with lone surrogates cannot, and no store takes it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_seconds(value: object) -> bool:
    """Whether this is a number of at least 0; ``True`` is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def check_choice(name: str, value: object, choices: tuple[str, ...], *, or_else: str = "") -> None:
    """Raise :class:`ConfigurationError` unless this is one of the choices; ``or_else`` names what else is."""
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ConfigurationError(f"{name} must be one of {listed}{or_else}, not {value!r:.80}")


@dataclass(frozen=True, slots=True)
class Update(Generic[T_co]):
    """One update of a topic; offsets of an epoch count up from 1 without holes.

    In a subscription ``since="snapshot"`` some are marked as ``snapshot``: their value is the state after the
    update with this offset (0: before the first one), and replaces the state so far.
    """

    topic: str
    epoch: str
    offset: int
    value: T_co
    snapshot: bool = False

    @property
    def position(self) -> Position:
        """The place after this update."""
        return Position(self.epoch, self.offset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Updates that a subscription lost for good: the history forgot them, or they were too long for it.

    It comes where they would have come. The newest update follows, if one is retained.
    """

    topic: str
    epoch: str
    """The life of the topic in which the subscription goes on."""
    first: int
    """The offset of the first update that was lost."""
    last: int
    """That of the last one."""
    anew: bool = False
    """The topic has begun again: its publisher was started without a store or with a backup, or the topic was
    forgotten or deleted. Then ``first`` belongs to the life before, which is lost from there on. ``last``
    belongs to the present one, and is 0 if nothing of that is lost."""

    @property
    def position(self) -> Position:
        """The place after what was lost."""
        return Position(self.epoch, self.last)
