"""The settings have one set of names and types, wherever they are passed on."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, Unpack

import pytest
import trio

import heartline
from heartline import ConnectionSettings, ServerSettings
from heartline.federated import run_learner

KEYWORD_ONLY, VAR_KEYWORD = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD


def hints(thing: Any) -> dict[str, Any]:
    return typing.get_type_hints(inspect.unwrap(thing), include_extras=True)


@pytest.mark.parametrize(
    ("settings", "opener"),
    [(ConnectionSettings, heartline.open_connection), (ServerSettings, heartline.open_server)],
)
def test_the_settings_are_those_of_the_function_that_opens(
    settings: type, opener: Callable[..., Any]
) -> None:
    parameters = inspect.signature(opener).parameters.values()
    annotations = hints(opener)
    wanted = {p.name: annotations[p.name] for p in parameters if p.kind is KEYWORD_ONLY}
    assert hints(settings) == wanted
    assert not settings.__required_keys__, "each has a default"  # type: ignore[attr-defined]
    assert all(p.default is not p.empty for p in parameters if p.kind is KEYWORD_ONLY)


@pytest.mark.parametrize(
    ("function", "settings"), [(heartline.serve, ServerSettings), (run_learner, ConnectionSettings)]
)
def test_who_passes_them_on_takes_all_of_them(function: Callable[..., Any], settings: type) -> None:
    parameters = inspect.signature(function).parameters.values()
    (rest,) = (p.name for p in parameters if p.kind is VAR_KEYWORD)
    assert hints(function)[rest] == Unpack[settings]
    own = {p.name for p in parameters if p.kind is KEYWORD_ONLY}
    assert not own & hints(settings).keys()


async def test_serve_passes_its_settings_on() -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(ExceptionGroup) as info:
            async with trio.open_nursery() as inner:
                await inner.start(lambda **status: heartline.serve("memory://", serializer="morse", **status))
        assert info.group_contains(heartline.ConfigurationError, match="morse")
        nursery.cancel_scope.cancel()
