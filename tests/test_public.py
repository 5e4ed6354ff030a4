"""The public surface: what is exported is documented, and what the design promises is there."""

from __future__ import annotations

import ast
import builtins
import collections.abc
import dataclasses
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from typing import Any, TypeVar, get_type_hints

import pytest

import heartline
import heartline.federated
import heartline.wire
from heartline.link import NoPublicConstructor
from tests.public import INNER_PACKAGES, PUBLIC_MODULES, is_made_by_heartline, public_names, walk


def test_every_package_is_public_or_not() -> None:
    below = [name for module in walk() if "." in (name := module.__name__) and name.count(".") == 1]
    assert [name for name in below if not name.startswith("heartline._")] == sorted(
        PUBLIC_MODULES[1:] + INNER_PACKAGES
    )


def test_the_docstring_names_the_public_modules() -> None:
    for name in PUBLIC_MODULES[1:]:
        assert f"``{name.removeprefix('heartline.')}``" in (heartline.__doc__ or "")


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_every_public_name_exists_and_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert list(module.__all__) == sorted(module.__all__, key=_by_kind)
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name}.{public} has no docstring"


SETTINGS = [
    heartline.Backoff,
    heartline.Fold,
    heartline.Heartbeat,
    heartline.History,
    heartline.Limits,
    heartline.Retry,
    heartline.TopicSettings,
    heartline.TransportOptions,
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.__name__)
def test_help_explains_every_field_of_the_settings(settings: type[Any]) -> None:
    described = re.findall(r"^ *- ``(\w+)``: ", settings.__doc__ or "", re.MULTILINE)
    assert sorted(described) == sorted(field.name for field in dataclasses.fields(settings))


def _by_kind(name: str) -> tuple[int, str]:
    """The order that the linter keeps: constants, classes, the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (
            heartline.Connection,
            "id peer state service open_channel accept_channel subscribe send send_nowait receive messages "
            "events wait_open statistics aclose",
        ),
        (
            heartline.Server,
            "send_to broadcast publish topic_state close_connection messages events drain statistics",
        ),
        (heartline.wire.FrameDecoder, "feed"),
        (heartline.federated.Learner, "train evaluate get_model on_model"),
        (heartline.federated.LearnerProxy, "train evaluate get_model on_push wait_model"),
    ],
)
def test_the_promised_names_are_there(owner: type, names: str) -> None:
    missing = [name for name in names.split() if not hasattr(owner, name)]
    assert not missing


MADE_BY_FACTORIES = [thing for thing in public_names().values() if isinstance(thing, NoPublicConstructor)]


@pytest.mark.parametrize("cls", MADE_BY_FACTORIES)
def test_what_only_its_factory_makes_has_no_constructor(cls: Any) -> None:
    for arguments in ((), (1,), (None, "x", 3)):
        with pytest.raises(TypeError, match=rf"^{cls.__name__} has no public constructor: [^`\n]+$"):
            cls(*arguments)
    assert getattr(cls, "__final__", False) or cls is heartline.RemoteMethod


def test_what_users_hold_has_no_constructor() -> None:
    held = {
        "Channel",
        "Connection",
        "Message",
        "Server",
        "Events",
        "Messages",
        "ReceivedMessages",
        "RemoteMethod",
    }
    assert all(isinstance(getattr(heartline, name), NoPublicConstructor) for name in held)
    assert isinstance(heartline.federated.LearnerProxy, NoPublicConstructor)


def test_settings_are_keyword_only() -> None:
    settings = (
        heartline.Backoff,
        heartline.Heartbeat,
        heartline.History,
        heartline.Limits,
        heartline.Retry,
        heartline.TopicSettings,
    )
    for cls in settings:
        kinds = {p.kind for p in inspect.signature(cls).parameters.values()}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}, cls
        with pytest.raises(AttributeError):
            setattr(cls(), next(iter(get_type_hints(cls))), 1)


def test_nothing_is_imported_that_only_an_extra_brings() -> None:
    """``import heartline`` works without NumPy and whatever else the extras install."""
    import subprocess
    import sys

    code = "import heartline, sys; print({'numpy', 'rich', 'sklearn', 'asyncio'} & sys.modules.keys())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def _annotations(thing: Any) -> Iterator[tuple[str, str]]:
    """The annotations that a user of a function or class meets, with the module in which each stands."""
    if isinstance(thing, property):
        thing = thing.fget
    thing = inspect.unwrap(getattr(thing, "__func__", thing))
    if inspect.isfunction(thing):
        texts = list(thing.__annotations__.values())
        # Those of a method that a decorator of the standard library made are types, of the fields seen below.
        yield from ((thing.__module__, text) for text in texts if isinstance(text, str))
    elif inspect.isclass(thing):
        fields = inspect.get_annotations(thing).items()
        written = [
            getattr(text, "__forward_arg__", text) for name, text in fields if not name.startswith("_")
        ]
        yield from ((thing.__module__, text) for text in written if isinstance(text, str))
        made_by_users = not is_made_by_heartline(thing)
        for name, value in vars(thing).items():
            if (not name.startswith("_") or (name == "__init__" and made_by_users)) and not inspect.isclass(
                value
            ):
                yield from _annotations(value)


def _own_names(module: str, text: str) -> Iterator[str]:
    """The names of heartline's own types and aliases in an annotation."""
    known = vars(sys.modules[module])
    for node in ast.walk(ast.parse(text, mode="eval")):
        if isinstance(node, ast.Name) and not hasattr(builtins, node.id) and node.id not in _OTHERS:
            value = known.get(node.id)
            elsewhere = getattr(value, "__module__", "heartline").partition(".")[0] not in {
                "heartline",
                "typing",
            }
            if not (elsewhere or inspect.ismodule(value) or isinstance(value, TypeVar)):
                yield node.id


_OTHERS = {*typing.__all__, *collections.abc.__all__}


@pytest.mark.parametrize("name", sorted(public_names()))
def test_what_a_signature_names_is_public(name: str) -> None:
    """A user can write down the type of everything that is passed in or handed out."""
    exported = {full.rpartition(".")[2] for full in public_names()}
    for module, text in _annotations(public_names()[name]):
        missing = set(_own_names(module, text)) - exported
        assert not missing, f"{name} has to do with {missing}, which no public module exports"
