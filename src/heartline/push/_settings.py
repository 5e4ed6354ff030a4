"""What a publisher knows about a topic before anybody can ask for it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from heartline.errors import ConfigurationError
from heartline.observe import check_function
from heartline.push._log import History
from heartline.push._store import Store
from heartline.push._types import POLICIES, SlowPolicy, check_choice
from heartline.wire.serializers.annotations import check_target

__all__ = ["USUAL_POLICIES", "Fold", "TopicSettings", "check_policies"]

USUAL_POLICIES: Final = frozenset[SlowPolicy](POLICIES) - {"block"}
"""Those with which no subscriber can hold up a publisher."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """How the updates of a topic make up a state, so that a subscriber can begin with ``since="snapshot"``.

    The publisher applies each update at the moment it is published, with the value as a subscriber decodes
    it. So the state belongs to exactly one offset, and subscribers that apply the same function to
    what follows a snapshot have the same state.

    - ``apply``: ``(state, value) -> state``, the state after an update.
    - ``initial``: makes the state before the first update, by default an empty dictionary.
    - ``type``: what each value is converted to before ``apply`` gets it; by default it stays as it is, and a
      dataclass is a dictionary.
    """

    apply: Callable[[Any, Any], Any]
    """``(state, value) -> state``: the state after an update. May change the given state and return it. If it
    raises, the topic has no state until it is opened with a function that does not, and asking for it says
    so; updates go on."""
    initial: Callable[[], Any] = dict
    """Makes the state before the first update. States are values that can be serialized."""
    type: Any = Any
    """What each value is converted to before ``apply`` gets it: a class or another annotation, as for
    :meth:`Connection.subscribe`. As it is, a dataclass that was published is a dictionary."""

    def __post_init__(self) -> None:
        try:
            check_target(self.type)
        except TypeError as error:
            raise ConfigurationError(f"Fold.type={self.type!r:.80} cannot be checked: {error}") from None
        check_function("Fold.apply", self.apply, "state", "value")
        check_function("Fold.initial", self.initial)


@dataclass(frozen=True, kw_only=True)
class TopicSettings:
    """A topic of :func:`heartline.open_server` or :func:`heartline.open_connection`.

    - ``history``: how much of it is retained; by default as much as the server or connection says.
    - ``store``: where it is kept, so that it goes on after a restart; by default in memory only.
    - ``fold``: how its updates make up a state, for ``since="snapshot"``; by default they do not.
    - ``policies``: what a slow subscriber may ask for; by default all but ``"block"``.

    A bad value raises :class:`ConfigurationError`.
    """

    history: History | None = None
    """``None``: that of the server or connection."""
    store: Store | None = None
    """Where it is kept, an open :class:`heartline.SqliteStore` or any other :class:`heartline.Store`;
    ``None``: in memory only."""
    fold: Fold | None = None
    """How its updates make up a state; ``None``: they do not."""
    policies: Collection[SlowPolicy] = USUAL_POLICIES
    """What a subscriber may ask for. By default all but ``"block"``, which lets a subscriber hold up every
    publish, so it is for subscribers that the publisher trusts."""

    def __post_init__(self) -> None:
        kinds = {"history": (History, "heartline.History"), "fold": (Fold, "heartline.Fold")}
        for name, (kind, called) in kinds.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ConfigurationError(
                    f"TopicSettings.{name} must be a {called} or None, not {value!r:.80}"
                )
        if self.store is not None and not all(hasattr(self.store, name) for name in ("load", "append")):
            raise ConfigurationError(
                f"TopicSettings.store must have the methods of heartline.Store, not {self.store!r:.80}"
            )
        check_policies("TopicSettings.policies", self.policies)


def check_policies(name: str, policies: Collection[SlowPolicy]) -> None:
    """Raise :class:`ConfigurationError` unless these are policies, at least one."""
    if isinstance(policies, str) or not isinstance(policies, Collection) or not policies:
        raise ConfigurationError(f"{name} must be a set of policies, at least one, not {policies!r:.80}")
    for policy in policies:
        check_choice(f"a policy in {name}", policy, POLICIES)
