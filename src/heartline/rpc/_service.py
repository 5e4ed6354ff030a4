"""Declaring services: the decorators, and the names that can stand on the wire."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from heartline.errors import ConfigurationError
from heartline.wire.text import is_name

__all__ = [
    "MAX_NAME",
    "METHOD",
    "SERVICE",
    "MethodOptions",
    "check_name",
    "check_service_name",
    "method",
    "service",
    "service_name",
]

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

SERVICE = "__heartline_service__"
METHOD = "__heartline_method__"
"""The attributes of a class and of a function that say what was declared."""

MAX_NAME = 256
"""Characters in the name of a service, and of a method: both stand in the head of every call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodOptions:
    """The arguments of :func:`method`."""

    idempotent: bool = False
    timeout: float | None = None
    thread: bool = False


@overload
def service(cls: C, /) -> C: ...
@overload
def service(*, name: str | None = None, version: str | None = None) -> Callable[[C], C]: ...
def service(
    cls: C | None = None, /, *, name: str | None = None, version: str | None = None
) -> C | Callable[[C], C]:
    """Declare a class to be a service.

    Its name on the wire is ``name``, by default that of the class, followed by ``@version`` if there is one:
    two versions are two services that can be served side by side. Raises :class:`ConfigurationError` for a
    name that cannot be used.
    """

    def mark(cls: C) -> C:
        if not isinstance(cls, type):
            raise ConfigurationError(f"@service is for classes, not for {cls!r}")
        own = cls.__name__ if name is None else name
        check_name("service name", own)
        if "@" in own or own.startswith("$"):
            raise ConfigurationError(
                f"service name {own!r}: @ is for versions and a leading $ for built-in services"
            )
        if version is not None:
            check_name("service version", version, dots=True)
        setattr(cls, SERVICE, own if version is None else f"{own}@{version}")
        return cls

    return mark if cls is None else mark(cls)


def check_name(what: str, name: object, *, dots: bool = False) -> None:
    """Refuse a name that cannot stand on the wire."""
    if not is_name(name, MAX_NAME):
        raise ConfigurationError(f"{what} {name!r}: 1 to {MAX_NAME} printable characters")
    if "." in name and not dots:
        raise ConfigurationError(f"{what} {name!r} has a dot, which separates a service from its method")


def check_service_name(full: str) -> None:
    """Refuse what cannot be the name of a service, with or without ``@version``."""
    name, at, version = full.partition("@")
    check_name("service name", name)
    if at:
        check_name("service version", version, dots=True)


@overload
def method(function: F, /) -> F: ...
@overload
def method(
    *, idempotent: bool = False, timeout: float | None = None, thread: bool = False
) -> Callable[[F], F]: ...
def method(
    function: F | None = None,
    /,
    *,
    idempotent: bool = False,
    timeout: float | None = None,
    thread: bool = False,
) -> F | Callable[[F], F]:
    """Say more about a method of a service.

    ``idempotent``: executing it twice does no harm, so :class:`Retry` may repeat it. ``timeout``: seconds
    after which a call fails with :class:`CallTimeout`, unless the caller's own deadline is earlier.
    ``thread``: run a sync method in a worker thread, because it blocks or computes for long. Raises
    :class:`ConfigurationError` for what cannot be such a method.
    """
    options = MethodOptions(idempotent=idempotent, timeout=timeout, thread=thread)
    if timeout is not None and not (
        isinstance(timeout, (int, float)) and timeout > 0 and timeout is not True
    ):
        raise ConfigurationError(f"method timeout must be seconds above 0, not {timeout!r}")

    for name, flag in (("idempotent", idempotent), ("thread", thread)):
        if not isinstance(flag, bool):
            raise ConfigurationError(f"method {name} must be True or False, not {flag!r:.80}")

    def mark(function: F) -> F:
        if not inspect.isfunction(function) or function.__name__.startswith("_"):
            raise ConfigurationError(
                "@method is for functions with a public name, not for "
                f"{function!r:.80}; it stands right above the def, below all other decorators"
            )
        if thread and inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{function.__qualname__} is async: thread=True is for sync methods")
        setattr(function, METHOD, options)
        return function

    return mark if function is None else mark(function)


def service_name(cls: type) -> str:
    """The name of a service class on the wire."""
    return str(cls.__dict__.get(SERVICE, cls.__name__))
