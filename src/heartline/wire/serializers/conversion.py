"""Converts what a serializer returned to the type that an annotation asks for."""

from __future__ import annotations

import abc
import sys
from collections import Counter
from typing import Any, Generic, TypeVar, get_args, get_origin

import msgspec

from heartline.errors import SerializationError

__all__ = ["WatchedSet", "convert"]

ALIKE = 8
"""Items of a set that may have one hash. Honest ones hardly ever have three; a peer that chooses them can
give all the same one, and then a set of 8,000 takes seconds."""

S = TypeVar("S")


class WatchedSet(abc.ABC, Generic[S]):
    """Stands in an annotation for a set of this type, of which a peer can choose the hashes of the items."""


WatchedSet.register(set)
WatchedSet.register(frozenset)


def convert(value: Any, target: Any) -> Any:
    """``value`` as an instance of the annotation ``target``; raises :class:`SerializationError`.

    What msgspec knows is converted by its rules (lax only where a format lacks the type: text to datetime or
    UUID, arrays to sets and tuples). A NumPy scalar is made of a number that it can hold, and any other class
    accepts its own instances as they are.
    """
    try:
        return msgspec.convert(value, target, dec_hook=_accept_instance)
    except msgspec.ValidationError as error:
        raise SerializationError(str(error)) from None
    except Exception as error:
        # The annotation's own code raised: a list cannot be in a set, or a class refuses its arguments.
        raise SerializationError(f"cannot make this a {target}: {error}") from error


def _accept_instance(cls: Any, value: Any) -> Any:
    # An annotation with parameters, as NDArray[float32], is checked by its class alone.
    origin = get_origin(cls) or cls
    if origin is WatchedSet:
        return _as_set(get_args(cls)[0], value)
    if isinstance(value, origin):
        return value
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(origin, type) and issubclass(origin, numpy.generic):
        return _as_scalar(numpy, origin, value)
    raise ValueError(f"Expected `{origin.__qualname__}`, got `{type(value).__name__}`")


def _as_set(target: Any, value: Any) -> Any:
    """Items as a set, or frozen set, of this type; raises :class:`ValueError` for too many of one hash."""
    items = msgspec.convert(value, list[get_args(target)[0]], dec_hook=_accept_instance)  # type: ignore[misc]
    if len(items) > ALIKE:
        ((_, most),) = Counter(map(hash, items)).most_common(1)
        if most > ALIKE:
            raise ValueError(f"{most} items of a set have the same hash, and {ALIKE} are the most")
    return get_origin(target)(items)


_NUMBERS = {"b": (bool,), "i": (int,), "u": (int,), "f": (int, float)}
"""What becomes a NumPy scalar, by the kind of its dtype."""


def _as_scalar(numpy: Any, cls: Any, value: Any) -> Any:
    """A number as a NumPy scalar of this type; raises :class:`ValueError` for one that does not fit."""
    kind = numpy.dtype(cls).kind
    if type(value) not in _NUMBERS.get(kind, ()):
        raise ValueError(f"Expected `{cls.__name__}`, got `{type(value).__name__}`")
    if kind in "iu" and not numpy.iinfo(cls).min <= value <= numpy.iinfo(cls).max:
        raise ValueError(f"Expected `{cls.__name__}`, got {value}, which is beyond its range")
    try:
        with numpy.errstate(over="raise"):
            return cls(value)
    except ArithmeticError:
        raise ValueError(f"Expected `{cls.__name__}`, got {value}, which is beyond its range") from None
