"""Middleware and observers around a method: bound with it once, so that none costs none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import trio

from heartline.errors import Overloaded
from heartline.link import current
from heartline.observe import Hooks, Operation, Tell
from heartline.rpc._faults import NotBegun
from heartline.rpc._service import Bound, Mode

__all__ = ["hook"]


def hook(hooks: Hooks, bound: Bound, name: str) -> Bound:
    """The bound method inside the middleware, and all of it under the eyes of the observers."""
    if hooks.middleware:
        bound = replace(bound, function=_inside(bound, name, hooks), mode=Mode.TASK)
    tell = hooks.tell("call_served")
    if tell is not None:
        watch = _watch_async if bound.mode is Mode.TASK else _watch_sync
        bound = replace(bound, function=watch(bound.function, name, tell))
    return bound


def _inside(bound: Bound, name: str, hooks: Hooks) -> Callable[..., Any]:
    """The method as an async function that goes through the middleware."""

    @wraps(bound.function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        began = False

        async def proceed() -> Any:
            nonlocal began
            began = True
            if bound.mode is Mode.TASK:
                return await bound.function(*args, **kwargs)
            if bound.mode is Mode.THREAD:
                return await trio.to_thread.run_sync(partial(bound.function, *args, **kwargs))
            return bound.function(*args, **kwargs)

        operation = Operation(kind="call", name=name, peer=current.get().id, subject=(args, kwargs))
        try:
            return await hooks.around(operation, proceed)
        except Overloaded as error:
            if began:  # it came from a call of the method's own, and this one was executed
                raise
            raise NotBegun(str(error)) from None

    return call


def _watch_async(function: Callable[..., Any], name: str, tell: Tell) -> Callable[..., Any]:
    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        started = trio.current_time()
        error: BaseException | None = None
        try:
            return await function(*args, **kwargs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            tell(name, trio.current_time() - started, error)
            del error  # or its traceback would hold it in a cycle

    return call


def _watch_sync(function: Callable[..., Any], name: str, tell: Tell) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        started = trio.current_time()
        error: BaseException | None = None
        try:
            return function(*args, **kwargs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            tell(name, trio.current_time() - started, error)
            del error  # or its traceback would hold it in a cycle

    return call
