"""Which annotations can be checked: those of which every value arrives as what it was.

msgspec says what a type consists of. What it would convert with a function of ours is looked at here: an
array or a NumPy scalar can be made of what serializers read, and an instance of a plain class cannot, unless
a serializer of the user's own makes it.
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec.inspect as kinds

from heartline.wire.serializers.conversion import WatchedSet
from heartline.wire.serializers.registry import FIRST_FREE_ID, registered

__all__ = ["check_target"]

_UNSENDABLE = (kinds.RawType, kinds.ExtType, kinds.DecimalType, kinds.TimeDeltaType, kinds.TimeType)
_WITH_FIELDS = (kinds.StructType, kinds.DataclassType, kinds.NamedTupleType, kinds.TypedDictType)
_ROWS = (kinds.ListType, kinds.VarTupleType, kinds.SetType, kinds.FrozenSetType)
_UNHASHABLE = (kinds.ListType, kinds.SetType, kinds.DictType, kinds.TypedDictType, kinds.ByteArrayType)


def check_target(target: Any) -> Any:
    """The annotation to convert to: ``target``, with sets that are to be watched.

    Raises :class:`TypeError` if values of it cannot be sent, told apart and made again.
    """
    _check(_kind(target), set())
    return _watch(target)


def _kind(target: Any) -> kinds.Type:
    try:
        return kinds.type_info(target)
    except Exception as error:  # it looks into the fields of classes, whose annotations may be text
        raise TypeError(str(error)) from None


def _check(kind: kinds.Type, seen: set[Any]) -> None:
    if isinstance(kind, _UNSENDABLE):
        raise TypeError(f"not every serializer sends a {_name(kind)}; send text")
    if isinstance(kind, kinds.CustomType):
        _check_class(kind.cls)
    elif isinstance(kind, kinds.DictType) and not _is_text(kind.key_type):
        raise TypeError("the keys of a map that is sent are text: dict[str, ...]")
    elif isinstance(kind, (kinds.SetType, kinds.FrozenSetType)) and not _is_hashable(kind.item_type, set()):
        raise TypeError("what is in a set must be hashable")
    if isinstance(kind, _WITH_FIELDS):
        if kind.cls in seen:
            return
        seen.add(kind.cls)
    for part in _parts(kind):
        _check(part, seen)


def _parts(kind: kinds.Type) -> Iterator[kinds.Type]:
    if isinstance(kind, _WITH_FIELDS):
        yield from (field.type for field in kind.fields)
    elif isinstance(kind, _ROWS):
        yield kind.item_type
    elif isinstance(kind, kinds.TupleType):
        yield from kind.item_types
    elif isinstance(kind, kinds.DictType):
        yield kind.value_type
    elif isinstance(kind, kinds.UnionType):
        yield from kind.types


def _check_class(cls: Any) -> None:
    numpy = sys.modules.get("numpy")
    if cls is object or (numpy is not None and (cls is numpy.ndarray or _is_number(numpy, cls))):
        return
    # What the bytes of such a serializer become is its own affair: perhaps just this class.
    if any(serializer.content_id >= FIRST_FREE_ID for serializer in registered.values()):
        return
    raise TypeError(
        f"no registered serializer reads a {cls.__module__}.{cls.__qualname__}; make it a dataclass, a "
        "TypedDict or a msgspec.Struct"
    )


def _is_number(numpy: Any, cls: Any) -> bool:
    """Whether this is a type of NumPy's numbers whose values Python's own numbers hold exactly."""
    return any(cls is numpy.dtype(code).type for code in "?bhilqBHILQefd")


def _is_text(key: kinds.Type) -> bool:
    if isinstance(key, kinds.LiteralType):
        return all(isinstance(value, str) for value in key.values)
    if isinstance(key, kinds.EnumType):
        return issubclass(key.cls, str)
    return isinstance(key, (kinds.StrType, kinds.AnyType))


def _is_hashable(item: kinds.Type, seen: set[Any]) -> bool:
    if isinstance(item, (kinds.StructType, kinds.DataclassType)):
        return item.cls.__hash__ is not None
    if isinstance(item, kinds.CustomType):
        return bool(item.cls.__hash__)
    if isinstance(item, _UNHASHABLE):
        return False
    if isinstance(item, kinds.NamedTupleType):
        if item.cls in seen:  # it holds its own kind
            return True
        seen.add(item.cls)
    return all(_is_hashable(part, seen) for part in _parts(item))


# Sets

_NUMBERS = (kinds.IntType, kinds.FloatType, kinds.DateTimeType, kinds.DateType)
"""What is hashed as 64 bits, which give one hash to two dozen values at most."""

_TEXTS = (kinds.StrType, kinds.BytesType, kinds.EnumType, kinds.LiteralType, kinds.BoolType, kinds.NoneType)
"""Of which the hashes are secret, or the values few."""


def _freedom(item: kinds.Type, outer: frozenset[Any] = frozenset()) -> int:
    """How many numbers of a hashed item its sender can choose; with two it can give all items one hash."""
    if isinstance(item, _TEXTS):
        return 0
    if isinstance(item, _NUMBERS):
        return 1
    if isinstance(item, _WITH_FIELDS):
        if item.cls in outer:
            return 2
        outer |= {item.cls}
    parts = [_freedom(part, outer) for part in _parts(item)]
    if isinstance(item, kinds.UnionType):
        return max(parts)
    if isinstance(item, (kinds.TupleType, *_WITH_FIELDS)):
        return sum(parts)
    # Texts; else any number of numbers, a UUID, which is one of 128 bits, or anything.
    return 0 if parts == [0] else 2


def _watch(target: Any) -> Any:
    """``target`` with its open sets watched, wherever an annotation can be put together again."""
    origin, args = get_origin(target) or target, get_args(target)
    if origin in (set, frozenset) and _is_open(_kind(target)):
        return WatchedSet[origin[_watch(args[0] if args else Any)]]  # type: ignore[misc]
    if origin in (list, tuple, dict, Union, UnionType):
        inner = tuple(arg if arg is ... else _watch(arg) for arg in args)
        if inner == args:
            return target
        changed = functools.reduce(operator.or_, inner) if origin in (Union, UnionType) else origin[inner]
        _kind(changed)  # raises if a watched set cannot be told apart from what stands beside it
        return changed
    if _holds_open_set(_kind(target), set()):
        raise TypeError("a peer could choose the hashes of what is in a set in it; make that set a list")
    return target


def _is_open(kind: kinds.Type) -> bool:
    return isinstance(kind, (kinds.SetType, kinds.FrozenSetType)) and _freedom(kind.item_type) > 1


def _holds_open_set(kind: kinds.Type, seen: set[Any]) -> bool:
    if isinstance(kind, _WITH_FIELDS):
        if kind.cls in seen:
            return False
        seen.add(kind.cls)
    return _is_open(kind) or any(_holds_open_set(part, seen) for part in _parts(kind))


def _name(kind: kinds.Type) -> str:
    return type(kind).__name__.removesuffix("Type")
