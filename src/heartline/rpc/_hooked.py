"""Wraps middleware and observers around a method, once, so that an endpoint without any pays nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial, wraps
from types import CoroutineType
from typing import Any

from heartline.errors import Overloaded
from heartline.link import current
from heartline.observe import Hooks, Operation, Tell, Watch
from heartline.rpc._faults import NotBegun
from heartline.rpc._methods import Mode
from heartline.rpc._running import as_async
from heartline.rpc._table import Bound

__all__ = ["hook"]


def hook(hooks: Hooks, bound: Bound, name: str) -> Bound:
    """Return the method wrapped in the middleware, with observers around both.

    A sync method still runs inline, unless there is middleware, which may wait.
    """
    if hooks.middleware:
        bound = replace(bound, function=_inside(hooks, bound, name), mode=Mode.TASK)
    tell = hooks.tell("call_served")
    if tell is not None and hooks.middleware:
        tell = partial(_tell_cause, tell)
    if tell is not None and bound.mode is Mode.INLINE:
        bound = replace(bound, function=_watch_inline(bound, name, tell))
    elif tell is not None:
        bound = replace(bound, function=_watch(bound, name, tell), mode=Mode.TASK)
    return bound


def _inside(hooks: Hooks, bound: Bound, name: str) -> Callable[..., Awaitable[Any]]:
    """The method as an async function that goes through the middleware."""
    method = as_async(bound)

    @wraps(bound.function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        began = False

        async def proceed() -> Any:
            nonlocal began
            began = True
            return await method(*args, **kwargs)

        operation = Operation(kind="call", name=name, peer=current.get().id, subject=(args, kwargs))
        try:
            return await hooks.around(operation, proceed)
        except Overloaded as error:
            # Overloaded tells the caller that nothing was executed. Once the method has begun, it is an error
            # like any other, perhaps from a call that the method made.
            if began:
                raise
            raise NotBegun(str(error)) from error

    return call


def _watch(bound: Bound, name: str, tell: Tell) -> Callable[..., Awaitable[Any]]:
    method = as_async(bound)

    @wraps(bound.function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        with Watch(tell, name):
            return await method(*args, **kwargs)

    return call


def _watch_inline(bound: Bound, name: str, tell: Tell) -> Callable[..., Any]:
    method = bound.function

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with Watch(tell, name) as watch:
            result = method(*args, **kwargs)
            return watch.go_on(result) if type(result) is CoroutineType else result

    return call


def _tell_cause(tell: Tell, name: str, seconds: float, error: BaseException | None) -> None:
    """Tell observers what middleware itself has raised."""
    tell(name, seconds, error.__cause__ if isinstance(error, NotBegun) else error)
