"""The settings have one set of names and types, wherever they are passed on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import heartline
from heartline import ConnectionSettings, ServerSettings
from heartline.federated import Learner, run_learner


@heartline.service
class Clock: ...


KEYWORD_ONLY, VAR_KEYWORD = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD


def keyword_only(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind is KEYWORD_ONLY}


def types(settings: type) -> dict[str, str]:
    """What a typed dictionary declares, as it is written."""
    return {name: reference.__forward_arg__ for name, reference in settings.__annotations__.items()}


@pytest.mark.parametrize(
    ("settings", "opener"),
    [(ConnectionSettings, heartline.open_connection), (ServerSettings, heartline.open_server)],
)
def test_the_settings_are_those_of_the_function_that_opens(settings: Any, opener: Callable[..., Any]) -> None:
    parameters = keyword_only(opener)
    assert types(settings) == {name: parameter.annotation for name, parameter in parameters.items()}
    assert all(parameter.default is not parameter.empty for parameter in parameters.values())
    assert not settings.__required_keys__, "for each has a default"


@pytest.mark.parametrize(
    ("function", "settings"), [(heartline.serve, ServerSettings), (run_learner, ConnectionSettings)]
)
def test_who_passes_them_on_takes_all_of_them(function: Callable[..., Any], settings: type) -> None:
    (rest,) = (p for p in inspect.signature(function).parameters.values() if p.kind is VAR_KEYWORD)
    assert rest.annotation == f"Unpack[{settings.__name__}]"
    assert not keyword_only(function).keys() & types(settings).keys(), "their defaults stand in one place"


async def test_serve_passes_its_settings_on() -> None:
    with pytest.raises(heartline.ConfigurationError, match="morse"):
        await heartline.serve("memory://", serializer="morse")


@pytest.mark.parametrize("services", [Clock(), None])
async def test_services_are_in_a_list(services: Any) -> None:
    with pytest.raises(
        heartline.ConfigurationError, match=r"^services must be a list of objects: services=\["
    ):
        await heartline.serve("memory://", services=services)


async def test_a_learner_passes_its_settings_on() -> None:
    with pytest.raises(heartline.ConfigurationError, match="morse"):
        await run_learner("memory://nowhere", Learner(), serializer="morse")
