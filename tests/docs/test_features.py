"""Three pages name a test for all they say; here the names are held to the tests there are."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FEATURES = ROOT / "docs" / "features.md"
DESIGNS = ROOT / "docs" / "explanation" / "rows.md"
PROMISES = ROOT / "docs" / "explanation" / "promises.md"
MARKED = pytest.mark.parametrize("page", [FEATURES, DESIGNS, PROMISES], ids=lambda page: page.stem)

WANTED = (
    [f"FL-{number:02}" for number in range(1, 58) if number not in (31, 34, 56)]
    + [f"MT-{number:02}" for number in (*range(1, 12), *range(26, 31), 34, 35)]
    + [f"EF-{number:02}" for number in (*range(9, 19), 24, *range(26, 33))]
    + ["IA-34", "IA-58"]
    + [f"PF-{number:02}" for number in (42, 45, 46, 48)]
)

TEST = r"\b(tests/[\w/]+\.py::\w+)"
MARK = re.compile(rf"{{shown-by}}`{TEST}(, {TEST})*`")
PLACE = r"`((?:tests|fuzz)/[\w/.]+)`"


def _rows(page: Path) -> list[str]:
    """The rows of all tables, without their heads, and the items of the lists that bear a mark."""
    text = page.read_text()
    tables: list[str] = re.findall(r"^\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    items = re.findall(r"^- .*{shown-by}.*$", text, re.MULTILINE)
    return [row for table in tables for row in table.splitlines()] + items


@cache
def _names(path: Path) -> set[str]:
    """The functions of a file of tests."""
    tree = ast.parse(path.read_text())
    return {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_every_row_of_the_designs_is_there() -> None:
    assert [row.strip("| ").split(" | ")[0].strip("`") for row in _rows(DESIGNS)] == WANTED


def test_every_kind_of_promise_is_there() -> None:
    assert len(_rows(PROMISES)) > 35


@MARKED
def test_every_row_names_a_test(page: Path) -> None:
    assert not [row for row in _rows(page) if len(MARK.findall(row)) != 1]


@MARKED
def test_every_named_test_exists(page: Path) -> None:
    tests = [test.split("::") for test in re.findall(TEST, page.read_text())]
    missing = [
        f"{path}::{name}"
        for path, name in tests
        if not (ROOT / path).is_file() or name not in _names(ROOT / path)
    ]
    assert not missing


@MARKED
def test_every_named_place_exists(page: Path) -> None:
    assert not [place for place in re.findall(PLACE, page.read_text()) if not (ROOT / place).exists()]
