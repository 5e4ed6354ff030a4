"""Services: which methods of an object can be called, with which arguments, and how they run.

The public methods are those that the class itself declares: functions defined in the body of the class, or of
a base that is a service too, whose names do not start with an underscore. Other inherited methods, attributes
of the instance and anything dynamic cannot be reached from outside: a call runs a function of the class that
was found in advance.

A sync method runs inline, in the tick in which the call arrived: right for what takes microseconds. An async
method runs in a task of its own, a sync method with ``thread=True`` in a worker thread.
"""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from heartline.errors import ConfigurationError, SerializationError
from heartline.wire import convert
from heartline.wire.serializers.conversion import check_target
from heartline.wire.text import is_name

__all__ = [
    "MAX_NAME",
    "MethodOptions",
    "MethodSpec",
    "Mode",
    "ServiceTable",
    "check_name",
    "check_service_name",
    "describe",
    "method",
    "service",
    "service_name",
]

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

_SERVICE = "__heartline_service__"
_SPECS = "__heartline_specs__"
_METHOD = "__heartline_method__"

MAX_NAME = 256
"""Characters in the name of a service, and of a method: both stand in the head of every call."""


class Mode(enum.Enum):
    """How a method runs."""

    INLINE = "inline"
    TASK = "task"
    THREAD = "thread"


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
        setattr(cls, _SERVICE, own if version is None else f"{own}@{version}")
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
    if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
        raise ConfigurationError(f"method timeout must be seconds above 0, not {timeout!r}")

    for name, flag in (("idempotent", idempotent), ("thread", thread)):
        if not isinstance(flag, bool):
            raise ConfigurationError(f"method {name} must be True or False, not {flag!r:.80}")

    def mark(function: F) -> F:
        if not inspect.isfunction(function) or function.__name__.startswith("_"):
            raise ConfigurationError(f"@method is for functions with a public name, not for {function!r}")
        if thread and inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{function.__qualname__} is async: thread=True is for sync methods")
        setattr(function, _METHOD, options)
        return function

    return mark if function is None else mark(function)


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """A method as its class declares it."""

    name: str
    function: Callable[..., Any]
    options: MethodOptions
    mode: Mode
    signature: inspect.Signature
    positional: Any
    """The tuple type of arguments that are all given by position; ``Any`` where there is no such type."""
    count: int
    annotations: dict[str, Any]
    returns: Any

    def arguments(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Convert the arguments; raises :class:`TypeError` or :class:`SerializationError` for a wrong one."""
        if not kwargs and len(args) == self.count and self.positional is not Any:
            try:
                return convert(args, self.positional), {}
            except SerializationError:
                pass  # converted one by one, below, the wrong one is named
        bound = self.signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            kind = self.signature.parameters[name].kind
            annotation = self.annotations[name]
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(_argument(f"*{name}", item, annotation) for item in value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {key: _argument(key, item, annotation) for key, item in value.items()}
            else:
                bound.arguments[name] = _argument(name, value, annotation)
        return bound.args, bound.kwargs


def _argument(name: str, value: Any, annotation: Any) -> Any:
    try:
        return convert(value, annotation)
    except SerializationError as error:
        raise SerializationError(f"argument {name!r}: {error}") from None


def service_name(cls: type) -> str:
    """The name of a service class on the wire."""
    return str(cls.__dict__.get(_SERVICE, cls.__name__))


def describe(cls: type) -> dict[str, MethodSpec]:
    """The public methods of a service class, by name; raises :class:`ConfigurationError`."""
    if _SERVICE not in cls.__dict__:
        raise ConfigurationError(f"{cls.__qualname__} is not a service: decorate it with @heartline.service")
    specs: dict[str, MethodSpec] | None = cls.__dict__.get(_SPECS)
    if specs is None:
        # Kept on the class: a server that calls its clients needs the specs for each of them.
        specs = {name: _spec(name, function) for name, function in _public(cls).items()}
        setattr(cls, _SPECS, specs)
    return specs


def _public(cls: type) -> dict[str, types.FunctionType]:
    """The methods that services among the bases declare; one overridden by something else is not public."""
    names = [
        name
        for base in reversed(cls.__mro__)
        if _SERVICE in base.__dict__
        for name, value in base.__dict__.items()
        if not name.startswith("_") and inspect.isfunction(value)
    ]
    found = {name: next(b.__dict__[name] for b in cls.__mro__ if name in b.__dict__) for name in names}
    return {name: value for name, value in found.items() if inspect.isfunction(value)}


def _spec(name: str, function: types.FunctionType) -> MethodSpec:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{function.__qualname__}: generators cannot be served; publish to a topic")
    check_name("method name", name)
    options: MethodOptions = getattr(function, _METHOD, MethodOptions())
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if not parameters or parameters.pop(0).kind not in _POSITIONAL:
        raise ConfigurationError(f"{function.__qualname__}: the first parameter of a method is self")
    hints = _hints(function)
    annotations = {p.name: _checkable(function, hints.get(p.name, Any)) for p in parameters}
    plain = all(p.kind in _POSITIONAL for p in parameters)
    is_async = inspect.iscoroutinefunction(function)
    return MethodSpec(
        name=name,
        function=function,
        options=options,
        mode=Mode.TASK if is_async else Mode.THREAD if options.thread else Mode.INLINE,
        signature=signature.replace(parameters=parameters),
        positional=tuple[tuple(annotations.values())] if plain else Any,  # type: ignore[misc]
        count=len(parameters),
        annotations=annotations,
        returns=_checkable(function, hints.get("return", Any)),
    )


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # annotations that are text are evaluated, which may raise anything
        raise ConfigurationError(
            f"{function.__qualname__}: an annotation cannot be resolved ({error}); it must name a type that "
            "the service's module can see when it runs"
        ) from None


def _checkable(function: Callable[..., Any], hint: Any) -> Any:
    """The annotation, or a clear error now rather than at the first call."""
    if hint is typing.NoReturn or hint is typing.Never:
        return Any
    try:
        check_target(hint)
    except TypeError as error:
        raise ConfigurationError(f"{function.__qualname__}: {hint!r} cannot be checked: {error}") from None
    return hint


@dataclass(frozen=True, slots=True)
class Bound:
    """A method of one service object, ready to be called."""

    spec: MethodSpec
    function: Callable[..., Any]
    mode: Mode
    """How the function runs: as the method was declared, or as the middleware around it needs."""
    small: bool = False
    """Whether its arguments are short and anybody may send them: long ones are not even decoded."""


class ServiceTable:
    """The services of an endpoint: which function each target (``Service.method``) runs."""

    def __init__(self, hook: Callable[[Bound, str], Bound] | None = None) -> None:
        self._hook = hook
        self.methods: dict[bytes, Bound] = {}
        self.names: set[str] = set()

    def add(self, instance: Any, name: str | None = None) -> None:
        """Serve an object whose class is a service; raises :class:`ConfigurationError`."""
        cls = type(instance)
        if isinstance(instance, type):
            raise ConfigurationError(f"services are objects: {instance.__qualname__}(), not the class itself")
        specs = describe(cls)
        name = name or service_name(cls)
        if name in self.names:
            raise ConfigurationError(f"service {name!r} is served twice; give one of them another name")
        self.names.add(name)
        for spec in specs.values():
            target = f"{name}.{spec.name}"
            built_in = name.startswith("$")
            bound = Bound(spec, types.MethodType(spec.function, instance), spec.mode, small=built_in)
            # Built-in services are not wrapped as calls: a subscription has hooks of its own.
            if self._hook is not None and not built_in:
                bound = self._hook(bound, target)
            self.methods[target.encode()] = bound
