"""Classes whose objects only a factory makes, which also sees to it that they end."""

from __future__ import annotations

import re
from abc import ABCMeta
from typing import Any, TypeVar

__all__ = ["NoPublicConstructor"]

T = TypeVar("T")


class NoPublicConstructor(ABCMeta):
    """Calling a class of this kind raises :class:`TypeError`; its factory calls ``_create``."""

    def __call__(cls, *_args: object, **_settings: object) -> Any:
        """Refuse."""
        raise TypeError(f"{cls.__qualname__} has no public constructor: {_plain(cls)}")

    def _create(cls: type[T], *args: Any, **settings: Any) -> T:
        return type.__call__(cls, *args, **settings)  # type: ignore[no-any-return]


def _plain(cls: type) -> str:
    """The first line of the docstring, without markup."""
    line = (cls.__doc__ or "").partition("\n")[0]
    return re.sub(r":\w+:(?=`)|`~?", "", line)
