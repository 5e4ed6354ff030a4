"""Two pages name a test for all they say; here the names are held to the tests there are."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FEATURES = ROOT / "docs" / "features.md"
PROMISES = ROOT / "docs" / "explanation" / "promises.md"

WANTED = (
    [f"FL-{number:02}" for number in range(1, 58) if number not in (31, 34, 56)]
    + [f"MT-{number:02}" for number in (*range(1, 12), *range(26, 31), 34, 35)]
    + [f"EF-{number:02}" for number in (*range(9, 19), 24, *range(26, 33))]
    + ["IA-34", "IA-58"]
    + [f"PF-{number:02}" for number in (42, 45, 46, 48)]
)

TEST = r"`(tests/[\w/]+\.py::\w+)`"
PLACE = r"`((?:tests|fuzz)/[\w/.]+)`"


def _rows(page: Path) -> list[list[str]]:
    """The cells of each row of the tables whose last column is headed "Shown by"."""
    table = r"^\|(?:.*\|)? Shown by \|\n\|[-|]+\|\n((?:\|.*\|\n)+)"
    tables = re.findall(table, page.read_text(), re.MULTILINE)
    return [row.strip("| ").split(" | ") for table in tables for row in table.splitlines()]


@cache
def _names(path: Path) -> set[str]:
    """The functions of a file of tests."""
    tree = ast.parse(path.read_text())
    return {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_every_feature_is_there() -> None:
    assert [row[0] for row in _rows(FEATURES)] == WANTED


def test_every_kind_of_promise_is_there() -> None:
    assert len(_rows(PROMISES)) > 35


@pytest.mark.parametrize("page", [FEATURES, PROMISES], ids=lambda page: page.stem)
def test_every_row_names_a_test(page: Path) -> None:
    assert not [row for row in _rows(page) if not re.fullmatch(f"{TEST}(, {TEST})*", row[-1])]


@pytest.mark.parametrize("page", [FEATURES, PROMISES], ids=lambda page: page.stem)
def test_every_named_test_exists(page: Path) -> None:
    tests = [test.split("::") for test in re.findall(TEST, page.read_text())]
    missing = [
        f"{path}::{name}"
        for path, name in tests
        if not (ROOT / path).is_file() or name not in _names(ROOT / path)
    ]
    assert not missing


@pytest.mark.parametrize("page", [FEATURES, PROMISES], ids=lambda page: page.stem)
def test_every_named_place_exists(page: Path) -> None:
    assert not [place for place in re.findall(PLACE, page.read_text()) if not (ROOT / place).exists()]
