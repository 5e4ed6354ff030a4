"""The methods of a service: what can be called, with which arguments, and how it runs.

The public methods are those that the class itself declares, or a base that is a service too, under names that
do not start with an underscore. Other inherited methods, attributes of the instance and anything dynamic
cannot be reached from outside: a call runs a method of the class that was found in advance. Nothing that
looks like a public method is left out in silence: what cannot be called is refused by its name.

A sync method runs inline, in the tick in which the call arrived: right for what takes microseconds. An async
method runs in a task of its own, a sync method with ``thread=True`` in a worker thread.
"""

from __future__ import annotations

import enum
import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from heartline.errors import ConfigurationError, SerializationError
from heartline.rpc._service import METHOD, SERVICE, MethodOptions, check_name
from heartline.wire import convert
from heartline.wire.serializers.annotations import check_target

__all__ = ["MethodSpec", "Mode", "describe"]

_SPECS = "__heartline_specs__"

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Mode(enum.Enum):
    """How a method runs."""

    INLINE = "inline"
    TASK = "task"
    THREAD = "thread"


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """A method as its class declares it."""

    name: str
    function: Any
    """What stands in the class: a function, or another descriptor that becomes one for an instance."""
    options: MethodOptions
    mode: Mode
    signature: inspect.Signature
    positional: Any
    """The tuple type of arguments that are all given by position; ``Any`` where there is no such type."""
    count: int
    annotations: dict[str, Any]
    returns: Any

    def bind(self, instance: Any) -> Callable[..., Any]:
        """The method of this instance, whatever its attributes are."""
        bound: Callable[..., Any] = self.function.__get__(instance, type(instance))
        hides_async = self.mode is Mode.TASK and not inspect.iscoroutinefunction(_undecorated(self.function))
        return _awaiting(bound) if hides_async else bound

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


def describe(cls: type) -> dict[str, MethodSpec]:
    """The public methods of a service class, by name; raises :class:`ConfigurationError`."""
    if SERVICE not in cls.__dict__:
        raise ConfigurationError(f"{cls.__qualname__} is not a service: decorate it with @heartline.service")
    specs: dict[str, MethodSpec] | None = cls.__dict__.get(_SPECS)
    if specs is None:
        # Kept on the class: a server that calls its clients needs the specs for each of them.
        specs = {name: _spec(cls, name, declared) for name, declared in _public(cls).items()}
        setattr(cls, _SPECS, specs)
    return specs


# What is a method

_DESCRIPTORS = (staticmethod, classmethod, functools.partialmethod, functools.singledispatchmethod)


def _public(cls: type) -> dict[str, Any]:
    """What services among the bases declare under public names; one overridden by ``None`` is not public."""
    names = {
        name: None
        for base in reversed(cls.__mro__)
        if SERVICE in base.__dict__
        for name, declared in base.__dict__.items()
        if not name.startswith("_") and _is_for_calling(declared)
    }
    found = {name: next(b.__dict__[name] for b in cls.__mro__ if name in b.__dict__) for name in names}
    return {name: declared for name, declared in found.items() if declared is not None}


def _is_for_calling(declared: object) -> bool:
    """Whether somebody may expect that this can be called; constants, properties and classes are data."""
    return isinstance(declared, _DESCRIPTORS) or (callable(declared) and not isinstance(declared, type))


def _is_method(declared: object) -> bool:
    if isinstance(declared, (functools.partial, functools.singledispatchmethod)):
        return False  # what one of them does in a class depends on Python's version, or on the arguments
    return _is_for_calling(declared) and hasattr(declared, "__get__")


def _spec(cls: type, name: str, declared: Any) -> MethodSpec:
    where = f"{cls.__qualname__}.{name}"
    check_name(f"{cls.__qualname__}: method name", name)
    if not _is_method(declared):
        raise ConfigurationError(
            f"{where}: a {type(declared).__name__} cannot be called remotely; write a def that uses it, or "
            "begin its name with an underscore to keep it private"
        )
    function = _undecorated(declared)
    options: MethodOptions = getattr(function, METHOD, MethodOptions())
    signature = _signature(where, cls, declared)
    is_async = _check_kind(where, function)
    if is_async and options.thread:
        raise ConfigurationError(f"{where} is async: thread=True is for sync methods")
    hints = _hints(where, function)
    parameters = signature.parameters.values()
    annotations = {p.name: _checked(where, hints.get(p.name, Any)) for p in parameters}
    plain = all(p.kind in _POSITIONAL for p in parameters)
    return MethodSpec(
        name=name,
        function=declared,
        options=options,
        mode=Mode.TASK if is_async else Mode.THREAD if options.thread else Mode.INLINE,
        signature=signature,
        positional=tuple[tuple(annotations.values())] if plain else Any,  # type: ignore[misc]
        count=len(parameters),
        annotations=annotations,
        returns=_checked(where, hints.get("return", Any)),
    )


# Decorated methods


def _undecorated(declared: Any) -> Any:
    """The function in a static method, a class method or a partial one."""
    while isinstance(declared, (staticmethod, classmethod, functools.partialmethod)):
        declared = declared.func if isinstance(declared, functools.partialmethod) else declared.__func__
    return declared


def _check_kind(where: str, function: Any) -> bool:
    """Refuse what gives no single result; returns whether the method is async, perhaps inside decorators."""
    if inspect.iscoroutinefunction(function):
        return True
    inside = [function]
    while hasattr(inside[-1], "__wrapped__"):  # the mark of functools.wraps
        inside.append(inside[-1].__wrapped__)
    inmost = inside[-1]
    if inspect.isgeneratorfunction(inmost) or inspect.isasyncgenfunction(inmost):
        raise ConfigurationError(
            f"{where}: generators cannot be served; return a list, or publish to a topic"
        )
    if not inspect.iscoroutinefunction(inmost):
        return False
    if any(hasattr(one, "cache_info") for one in inside):  # functools.cache, or one like it
        raise ConfigurationError(
            f"{where}: functools.cache keeps the coroutine of an async method, which can be awaited only "
            "once; keep its results in a dictionary"
        )
    return True


def _awaiting(function: Callable[..., Any]) -> Callable[..., Any]:
    """A sync decorator around an async method as an async function."""

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return call


# Signatures and annotations


def _signature(where: str, cls: type, declared: Any) -> inspect.Signature:
    """The signature that callers see: without ``self``."""
    unbound = declared.__get__(None, cls)
    try:
        signature = inspect.signature(unbound)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{where}: its parameters are not known ({error}); write a def that calls it"
        ) from None
    if isinstance(declared, (staticmethod, classmethod)):
        return signature
    parameters = list(signature.parameters.values())
    if not parameters or parameters.pop(0).kind not in _POSITIONAL:
        raise ConfigurationError(
            f"{where}: the first parameter of a method is self; if a decorator hides it, let that use "
            "functools.wraps"
        )
    return signature.replace(parameters=parameters)


def _hints(where: str, function: Any) -> dict[str, Any]:
    try:
        return (
            typing.get_type_hints(function, include_extras=True)
            if hasattr(function, "__annotations__")
            else {}
        )
    except Exception as error:  # annotations that are text are evaluated, which may raise anything
        raise ConfigurationError(
            f"{where}: an annotation cannot be resolved ({error}); it must name a type that the service's "
            "module can see when it runs"
        ) from None


def _checked(where: str, hint: Any) -> Any:
    """The annotation, or a clear error now rather than at the first call."""
    if hint is typing.NoReturn or hint is typing.Never:
        return Any
    try:
        return check_target(hint)
    except TypeError as error:
        raise ConfigurationError(
            f"{where}: {hint!r:.200} cannot be checked: {error}; or annotate it with Any, and check it in "
            "the method"
        ) from None
