"""Converts what a serializer returned to the type that an annotation asks for."""

from __future__ import annotations

from typing import Any, get_origin

import msgspec

from heartline.errors import SerializationError

__all__ = ["check_target", "convert"]


def convert(value: Any, target: Any) -> Any:
    """``value`` as an instance of the annotation ``target``; raises :class:`SerializationError`.

    What msgspec knows is converted by its rules (lax only where a format lacks the type: text to datetime or
    UUID, arrays to sets and tuples); any other class accepts its own instances as they are.
    """
    try:
        return msgspec.convert(value, target, dec_hook=_accept_instance)
    except msgspec.ValidationError as error:
        raise SerializationError(str(error)) from None
    except Exception as error:
        # The annotation's own code raised: a list cannot be in a set, or a class refuses its arguments.
        raise SerializationError(f"cannot make this a {target}: {error}") from error


def check_target(target: Any) -> None:
    """Raise :class:`TypeError` if nothing can be converted to this; text and numbers are no annotations."""
    try:
        msgspec.convert(object(), target, dec_hook=lambda _type, value: value)
    except msgspec.ValidationError:
        pass


def _accept_instance(cls: Any, value: Any) -> Any:
    # An annotation with parameters, as NDArray[float32], is checked by its class alone.
    origin = get_origin(cls) or cls
    if isinstance(value, origin):
        return value
    raise ValueError(f"Expected `{origin.__qualname__}`, got `{type(value).__name__}`")
