"""``docs/features.md`` names a test for every row; here the names are held to the tests there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "features.md"

WANTED = (
    [f"FL-{number:02}" for number in range(1, 58) if number not in (31, 34, 56)]
    + [f"MT-{number:02}" for number in (*range(1, 12), *range(26, 31), 34, 35)]
    + [f"EF-{number:02}" for number in (*range(9, 19), 24, *range(26, 33))]
)


def _rows() -> dict[str, list[str]]:
    """The tests that each row names."""
    rows = re.findall(r"^\| ([A-Z]{2}-\d+) \|.*\|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    return {row: re.findall(r"`(tests/[\w/]+\.py::\w+)`", tests) for row, tests in rows}


def test_every_row_is_there_with_a_test() -> None:
    rows = _rows()
    assert list(rows) == WANTED
    assert not [row for row, tests in rows.items() if not tests]


def test_every_named_test_exists() -> None:
    missing = []
    for row, tests in _rows().items():
        for test in tests:
            path, name = test.split("::")
            tree = ast.parse((ROOT / path).read_text()) if (ROOT / path).exists() else ast.Module([], [])
            names = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}
            if name not in names:
                missing.append(f"{row}: {test}")
    assert not missing
