"""``python -m heartline``: what is there, for a report of a bug or a first look."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec

import heartline
from heartline.transports import known_schemes
from heartline.wire.serializers.registry import registered

DOCUMENTATION = "https://heartline.readthedocs.io"

EXTRAS: dict[str, tuple[str, ...]] = {
    "federated": ("numpy",),
    "demo": ("numpy", "sklearn", "rich", "matplotlib"),
}
"""The modules that make up each extra."""

PAGES: dict[str, str] = {
    "tutorial": "tutorial/index.html",
    "how to": "how-to/index.html",
    "reference": "reference/index.html",
    "promises": "explanation/promises.html",
}


def describe() -> list[str]:
    """The lines that are printed."""
    names = {serializer.name for serializer in registered.values()}
    facts = {
        "heartline": heartline.__version__,
        "Python": f"{platform.python_version()} ({platform.python_implementation()}, {sys.platform})",
        "Trio": version("trio"),
        "transports": ", ".join(f"{scheme}://" for scheme in known_schemes()),
        "serializers": ", ".join(sorted(names)),
        **{f"[{extra}]": _state(modules) for extra, modules in EXTRAS.items()},
        **{page: f"{DOCUMENTATION}/{path}" for page, path in PAGES.items()},
    }
    width = max(map(len, facts))
    return [f"{name:<{width}}  {fact}" for name, fact in facts.items()]


def _state(modules: tuple[str, ...]) -> str:
    missing = [module for module in modules if find_spec(module) is None]
    return f"not installed: no {', '.join(missing)}" if missing else "installed"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is there; takes no arguments but ``--help`` and ``--version``."""
    parser = argparse.ArgumentParser(
        prog="python -m heartline", description="Say which heartline this is, and what it can use here."
    )
    parser.add_argument("--version", action="version", version=heartline.__version__)
    parser.parse_args(arguments)
    print("\n".join(describe()))


if __name__ == "__main__":
    main()
