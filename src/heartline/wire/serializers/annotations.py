"""Which annotations can be checked: those of which every value arrives as what it was.

msgspec says what a type consists of. What it would convert with a function of ours is looked at here: an
array or a NumPy scalar can be made of what serializers read, and an instance of a plain class cannot, unless
a serializer of the user's own makes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import msgspec.inspect as kinds

from heartline.wire.serializers.registry import FIRST_FREE_ID, registered

__all__ = ["check_target"]

_UNSENDABLE = (kinds.RawType, kinds.ExtType, kinds.DecimalType, kinds.TimeDeltaType, kinds.TimeType)
_WITH_FIELDS = (kinds.StructType, kinds.DataclassType, kinds.NamedTupleType, kinds.TypedDictType)
_ROWS = (kinds.ListType, kinds.VarTupleType, kinds.SetType, kinds.FrozenSetType)
_UNHASHABLE = (kinds.ListType, kinds.SetType, kinds.DictType, kinds.TypedDictType, kinds.ByteArrayType)


def check_target(target: Any) -> None:
    """Raise :class:`TypeError` if values of this annotation cannot be sent, told apart and made again."""
    try:
        kind = kinds.type_info(target)
    except Exception as error:  # it looks into the fields of classes, whose annotations may be text
        raise TypeError(str(error)) from None
    _check(kind, set())


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


def _name(kind: kinds.Type) -> str:
    return type(kind).__name__.removesuffix("Type")
