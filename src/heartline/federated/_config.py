"""What learners get with their orders: the same in all rounds, or made for each round or each learner."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from heartline.errors import ConfigurationError
from heartline.federated._values import pack, unpack
from heartline.observe import is_async

__all__ = ["Config", "ConfigSource", "configs_of"]

ConfigSource: TypeAlias = (
    Mapping[str, Any] | Callable[[int], Mapping[str, Any]] | Callable[[int, str], Mapping[str, Any]] | None
)
"""A config for all, or a function that makes it for a round, or for a round and a learner."""


class Config:
    """The setting ``config`` of a trainer; every config of it is checked before anybody can depend on it."""

    def __init__(self, source: ConfigSource) -> None:
        self._source = source
        self._for_each = False
        if callable(source):
            self._for_each = _takes_learner(source)
        elif source is None or isinstance(source, Mapping):
            pack("config", dict(source or {}))
        else:
            raise ConfigurationError(
                "config must be a mapping, or a function of the round, or of the round and the learner's "
                f"name, that gives one; not {source!r:.80}"
            )

    def make(self, round: int, learners: Sequence[str]) -> list[bytes]:
        """One config for all of the learners, or one for each, packed.

        Raises :class:`ConfigurationError` for what is no mapping, and :class:`SerializationError`, with
        ``config`` in front, for what cannot be sent.
        """
        if self._for_each:
            each = cast(Callable[[int, str], Any], self._source)
            return [_pack(f"config({round}, {learner!r})", each(round, learner)) for learner in learners]
        if callable(self._source):
            made = cast(Callable[[int], Any], self._source)
            return [_pack(f"config({round})", made(round))]
        return [_pack("config", self._source or {})]


def configs_of(packed: Sequence[bytes], learners: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The configs by learner."""
    if len(packed) == 1:
        return dict.fromkeys(learners, unpack(packed[0]))
    return {learner: unpack(config) for learner, config in zip(learners, packed, strict=True)}


def _pack(name: str, config: Any) -> bytes:
    if not isinstance(config, Mapping):
        raise ConfigurationError(f"{name} must give a mapping, not {config!r:.80}")
    return pack(name, dict(config))


def _takes_learner(function: Callable[..., Any]) -> bool:
    """Whether a function needs the learner's name too; raises :class:`ConfigurationError` for another one."""
    if is_async(function):
        raise ConfigurationError(f"config must be a sync function: nobody awaits {function!r:.80}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have none
        return False
    for arguments in ((1,), (1, "")):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments) == 2
    raise ConfigurationError(
        "config must be a function of the round, or of the round and the learner's name, "
        f"not {function!r:.80}"
    )
