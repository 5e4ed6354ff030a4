"""Services: which methods of an object can be called, with what, and how they run.

Public is what the class itself declares: functions defined in the body of the class or of a base that is a
service too, whose names do not start with an underscore. What is inherited from other bases, attributes of
the instance and everything dynamic cannot be reached from outside.

A sync method runs inline, in the tick in which the call arrived: right for what takes microseconds. An async
one runs in a task of its own, a sync one with ``thread=True`` in a worker thread.
"""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import msgspec

from heartline.errors import ConfigurationError, SerializationError
from heartline.wire import convert

__all__ = [
    "MethodOptions",
    "MethodSpec",
    "Mode",
    "ServiceTable",
    "describe",
    "method",
    "service",
    "service_name",
]

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

_SERVICE = "__heartline_service__"
_METHOD = "__heartline_method__"


class Mode(enum.Enum):
    """How a method runs."""

    INLINE = "inline"
    TASK = "task"
    THREAD = "thread"


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodOptions:
    """What :func:`method` was given."""

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

    Its name on the wire is ``name`` or the class's own, followed by ``@version`` if there is one: two
    versions are two services that can be served side by side.
    """

    def mark(cls: C) -> C:
        full = (name or cls.__name__) + (f"@{version}" if version else "")
        if not full.isprintable() or "." in full or full.startswith("$"):
            raise ConfigurationError(
                f"service name {full!r}: no dots, no leading $, only printable characters"
            )
        setattr(cls, _SERVICE, full)
        return cls

    return mark if cls is None else mark(cls)


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
    ``thread``: run a sync method in a worker thread, because it blocks or computes for long.
    """
    options = MethodOptions(idempotent=idempotent, timeout=timeout, thread=thread)
    if timeout is not None and not timeout > 0:
        raise ConfigurationError(f"method timeout must be seconds above 0, not {timeout!r}")

    def mark(function: F) -> F:
        if thread and inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{function.__qualname__} is async: thread=True is for sync methods")
        setattr(function, _METHOD, options)
        return function

    return mark if function is None else mark(function)


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """A method as its class declares it."""

    name: str
    options: MethodOptions
    mode: Mode
    signature: inspect.Signature
    positional: Any
    """The tuple type of a call with all parameters positional; ``None`` if there are keyword-only ones."""
    count: int
    annotations: dict[str, Any]
    returns: Any

    def arguments(self, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Converted arguments; raises :class:`TypeError` or :class:`SerializationError`."""
        if not kwargs and self.positional is not None and len(args) == self.count:
            return convert(args, self.positional), {}
        bound = self.signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            kind = self.signature.parameters[name].kind
            annotation = self.annotations[name]
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(convert(item, annotation) for item in value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {key: convert(item, annotation) for key, item in value.items()}
            else:
                bound.arguments[name] = convert(value, annotation)
        return bound.args, bound.kwargs


def service_name(cls: type) -> str:
    """The name of a service class on the wire."""
    return str(cls.__dict__.get(_SERVICE, cls.__name__))


def describe(cls: type) -> dict[str, MethodSpec]:
    """The public methods of a service class, by name."""
    if _SERVICE not in cls.__dict__:
        raise ConfigurationError(f"{cls.__qualname__} is not a service: decorate it with @heartline.service")
    specs: dict[str, MethodSpec] = {}
    for base in reversed(cls.__mro__):
        if _SERVICE in base.__dict__:
            for name, function in base.__dict__.items():
                if not name.startswith("_") and inspect.isfunction(function):
                    specs[name] = _spec(name, function)
    return specs


def _spec(name: str, function: Callable[..., Any]) -> MethodSpec:
    options: MethodOptions = getattr(function, _METHOD, MethodOptions())
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1:]
    hints = _hints(function)
    annotations = {p.name: hints.get(p.name, Any) for p in parameters}
    plain = all(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    positional = tuple[tuple(annotations.values())] if plain and parameters else None  # type: ignore[misc]
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{function.__qualname__}: generators cannot be served; publish to a topic")
    is_async = inspect.iscoroutinefunction(function)
    return MethodSpec(
        name=name,
        options=options,
        mode=Mode.TASK if is_async else Mode.THREAD if options.thread else Mode.INLINE,
        signature=signature.replace(parameters=parameters),
        positional=positional,
        count=len(parameters),
        annotations=annotations,
        returns=hints.get("return", Any),
    )


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise ConfigurationError(
            f"{function.__qualname__}: an annotation cannot be resolved ({error}); it must name a type that the "
            "service's module can see when it runs"
        ) from None
    return {
        name: Any if hint is inspect.Parameter.empty else _checkable(function, hint)
        for name, hint in hints.items()
    }


def _checkable(function: Callable[..., Any], hint: Any) -> Any:
    """The annotation, or a clear error now rather than at the first call."""
    try:
        convert(object(), hint)
    except (SerializationError, msgspec.ValidationError):
        pass
    except TypeError as error:
        raise ConfigurationError(f"{function.__qualname__}: {hint!r} cannot be checked: {error}") from None
    return hint


@dataclass(frozen=True, slots=True)
class Bound:
    """A method of one service object, ready to be called."""

    spec: MethodSpec
    function: Callable[..., Any]


class ServiceTable:
    """The services of an endpoint: targets (``Service.method``) and what they run."""

    def __init__(self) -> None:
        self.methods: dict[bytes, Bound] = {}
        self.names: set[str] = set()

    def add(self, instance: Any, name: str | None = None) -> None:
        """Serve an object whose class is a service; raises :class:`ConfigurationError`."""
        name = name or service_name(type(instance))
        if name in self.names:
            raise ConfigurationError(f"service {name!r} is served twice; give one of them another name")
        self.names.add(name)
        for spec in describe(type(instance)).values():
            function: Callable[..., Awaitable[Any] | Any] = getattr(instance, spec.name)
            self.methods[f"{name}.{spec.name}".encode()] = Bound(spec, function)
