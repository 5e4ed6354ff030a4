"""The page on the architecture is about the tree as it stands."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from docs import _generate_architecture as generator

ROOT = Path(__file__).parent.parent.parent
SOURCES = ROOT / "src" / "heartline"
PAGES = [ROOT / "docs" / "explanation" / name for name in ("architecture.md", "endings.md")]


def test_the_picture_is_up_to_date() -> None:
    assert generator.TARGET.read_text() == generator.render(), "run: python docs/_generate_architecture.py"


def test_every_package_stands_in_a_layer_or_beside_them() -> None:
    layers = {name for row in generator.layers() for name in row}
    packages = {path.name.removesuffix(".py") for path in SOURCES.iterdir() if path.name[0] not in "_."}
    assert packages - layers == {"testing", "py.typed"}


def test_the_files_that_the_pages_name_are_there() -> None:
    for page in PAGES:
        files = re.findall(r"`([a-z]+(?:/[\w]+)*(?:/\w+)?\.py)`", page.read_text())
        assert files
        assert [name for name in files if not (SOURCES / name).exists()] == []


def test_ten_changes_and_their_places() -> None:
    """What stands in brackets behind a file is defined there, or called."""
    rows = [
        line for line in PAGES[0].read_text().splitlines() if line.startswith("| ") and "places" not in line
    ]
    assert len(rows) == 10
    for row in rows:
        for name, place in re.findall(r"`([\w/]+\.py)` \(`(\w+)`\)", row):
            assert place in names_of(SOURCES / name), f"{row}: {name} has no {place}"


def test_the_functions_that_end_something_are_there() -> None:
    places = re.findall(r"`(Link|Core)\.(\w+)`", PAGES[1].read_text())
    assert places
    for cls, function in places:
        assert function in names_of(SOURCES / "link" / f"_{cls.lower()}.py")


def names_of(path: Path) -> set[str]:
    """What a module defines on any level, assigns, or calls."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name):
            names.add(node.id)
    return names
