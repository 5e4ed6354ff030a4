"""The reference has every public name, and the site builds without a warning."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.snippets import DOCS

PUBLIC_MODULES = (
    "heartline",
    "heartline.errors",
    "heartline.federated",
    "heartline.session",
    "heartline.testing",
    "heartline.transports",
    "heartline.wire",
)
DIRECTIVE = re.compile(
    r"^ *\.\. (?:auto|py:)(?:class|function|exception|data):: (?P<name>[\w.]+)", re.MULTILINE
)


def _documented() -> list[str]:
    pages = (DOCS / "reference").glob("*.md")
    return [name for page in pages for name in DIRECTIVE.findall(page.read_text())]


def _thing(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_every_public_name_is_documented(module: str) -> None:
    names = set(_documented())
    # A class or function that is exported in several places is documented in one of them.
    things = [thing for name in names if callable(thing := _thing(name))]
    for name in importlib.import_module(module).__all__:
        thing = _thing(f"{module}.{name}")
        assert f"{module}.{name}" in names or any(thing is other for other in things), (
            f"{module}.{name} is in __all__, but not in docs/reference"
        )


def test_nothing_is_documented_twice() -> None:
    names = _documented()
    assert sorted(names) == sorted(set(names))


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", tmp_path / "doctrees", DOCS, tmp_path / "html"],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert built.returncode == 0, built.stderr
    # What a comment asks a later hand to fill in must not be seen by a reader as a hole.
    for page in (tmp_path / "html").rglob("*.html"):
        assert "&lt;!--" not in page.read_text()
