"""The page of the logs has the loggers and levels of the code, and each package logs under its own name."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import heartline
from tests.docs.snippets import DOCS

SOURCES = Path(heartline.__file__).parent
LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR"}


def _modules() -> Iterator[tuple[str, ast.Module]]:
    """Each module that logs, with the name of its package, or its own at the top."""
    for path in sorted(SOURCES.rglob("*.py")):
        tree = ast.parse(path.read_text())
        if any(isinstance(node, ast.Import) and node.names[0].name == "logging" for node in tree.body):
            yield path.relative_to(SOURCES).parts[0].removesuffix(".py"), tree


def _told() -> set[tuple[str, str]]:
    page = (DOCS / "reference" / "logs.md").read_text()
    rows = re.findall(r"^\| `(heartline\.\w+)` \| (\w+) \| .+ \|$", page, re.MULTILINE)
    assert len(rows) == len(set(rows))
    return set(rows)


def test_every_module_logs_under_the_name_of_its_package() -> None:
    for package, tree in _modules():
        loggers = [
            node.args[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "getLogger"
            and node.args  # a simulated world listens to all of them
            and isinstance(node.args[0], ast.Constant)
        ]
        assert set(loggers) <= {f"heartline.{package}", "heartline"}


def test_the_page_has_the_loggers_and_levels_of_the_code() -> None:
    used = {
        (f"heartline.{package}", LEVELS[node.attr])
        for package, tree in _modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "logger"
        and node.attr in LEVELS
    } | {
        (f"heartline.{package}", level)
        for package, tree in _modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "report"
        for level in ("ERROR", *("DEBUG" for keyword in node.keywords if keyword.arg == "admit"))
    }
    assert _told() == used


def test_nothing_is_set_up_for_the_application() -> None:
    for name, logger in logging.root.manager.loggerDict.items():
        if name.partition(".")[0] == "heartline" and isinstance(logger, logging.Logger):
            assert not logger.handlers
            assert logger.level == logging.NOTSET
            assert logger.propagate
