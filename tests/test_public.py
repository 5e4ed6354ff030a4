"""The public surface: what is exported is documented, and what the design promises is there."""

from __future__ import annotations

import importlib
import inspect
from typing import get_type_hints

import pytest

import heartline
import heartline.connection
import heartline.federated
import heartline.testing
import heartline.wire

PUBLIC_MODULES = (
    "heartline",
    "heartline.errors",
    "heartline.federated",
    "heartline.testing",
    "heartline.transports",
    "heartline.wire",
)


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_every_public_name_exists_and_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert list(module.__all__) == sorted(module.__all__, key=_by_kind)
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name}.{public} has no docstring"


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


@pytest.mark.parametrize(
    "cls",
    [
        heartline.Channel,
        heartline.Connection,
        heartline.Message,
        heartline.Server,
        heartline.connection.Events,
        heartline.connection.Messages,
        heartline.connection.ReceivedMessages,
    ],
)
def test_what_only_its_factory_makes_has_no_constructor(cls: type) -> None:
    for arguments in ((), (1,), (None, "x", 3)):
        with pytest.raises(TypeError, match=rf"{cls.__name__} has no public constructor"):
            cls(*arguments)
    assert getattr(cls, "__final__", False)


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
