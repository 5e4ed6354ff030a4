"""What is public: one list, by which tests, the check of types, and the documentation go."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import heartline
from heartline.link import NoPublicConstructor

__all__ = ["INNER_PACKAGES", "PUBLIC_MODULES", "is_made_by_heartline", "public_names", "walk"]

PUBLIC_MODULES = (
    "heartline",
    "heartline.errors",
    "heartline.federated",
    "heartline.session",
    "heartline.testing",
    "heartline.transports",
    "heartline.wire",
)
"""The modules whose ``__all__`` is meant for users. The docstring of ``heartline`` names them."""

INNER_PACKAGES = (
    "heartline.connection",
    "heartline.endpoints",
    "heartline.link",
    "heartline.observe",
    "heartline.push",
    "heartline.rpc",
    "heartline.server",
)
"""The others. What users need of them is exported by ``heartline``."""


def walk() -> Iterator[ModuleType]:
    """Every module of the package."""
    yield heartline
    for info in pkgutil.walk_packages(heartline.__path__, "heartline."):
        yield importlib.import_module(info.name)


def public_names() -> dict[str, Any]:
    """Everything public, by its full name: ``heartline.wire.Frame``."""
    modules = [importlib.import_module(name) for name in PUBLIC_MODULES]
    return {
        f"{module.__name__}.{name}": getattr(module, name) for module in modules for name in module.__all__
    }


_MADE_BY_HEARTLINE = {
    "heartline.federated.LearnerStub",
    "heartline.push.Subscription",
    "heartline.testing.Link",
    "heartline.transports.MemoryStream",
}


def is_made_by_heartline(thing: Any) -> bool:
    """Whether how this class is called is an inside: users get its objects from elsewhere."""
    package = ".".join(getattr(thing, "__module__", "").split(".")[:2])
    return isinstance(thing, NoPublicConstructor) or (
        f"{package}.{getattr(thing, '__name__', '')}" in _MADE_BY_HEARTLINE
    )
