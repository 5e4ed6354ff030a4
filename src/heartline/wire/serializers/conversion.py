"""Converts what a serializer returned to the type that an annotation asks for."""

from __future__ import annotations

import sys
from typing import Any, get_origin

import msgspec

from heartline.errors import SerializationError

__all__ = ["convert"]


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
    if isinstance(value, origin):
        return value
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(origin, type) and issubclass(origin, numpy.generic):
        return _as_scalar(numpy, origin, value)
    raise ValueError(f"Expected `{origin.__qualname__}`, got `{type(value).__name__}`")


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
