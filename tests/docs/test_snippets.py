"""Every program in the documentation runs, and prints what its page says."""

from __future__ import annotations

import logging
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from heartline.transports import _registry
from heartline.wire.serializers.registry import registered
from tests.docs.snippets import PAGES, ROOT, Program, read

COLUMNS = 100

PROGRAMS = [program for page in PAGES for program in read(page).programs]


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Other tests must not meet what a page sets up: transports, serializers, logging."""
    monkeypatch.setattr(_registry, "_transports", dict(_registry._transports))
    serializers = dict(registered)
    loggers = [logging.getLogger(), logging.getLogger("heartline")]
    logged = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    registered.clear()
    registered.update(serializers)
    for logger, level, handlers in logged:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
@pytest.mark.usefixtures("as_before")
def test_program(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in program.files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    try:
        # Without this module's own future: annotations are evaluated, as in the reader's program.
        exec(compile(program.code, str(program.page), "exec", dont_inherit=True), main.__dict__)
    finally:
        for name in program.files:
            sys.modules.pop(name.removesuffix(".py"), None)
    if program.output is not None:
        assert capsys.readouterr().out == program.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_fences_are_closed_and_marked(page: Path) -> None:
    text = "\n" + page.read_text()
    assert text.count("\n```") % 2 == 0
    found = read(page)
    opened = text.count("\n```python\n")
    continued = text.count("\n<!-- continued -->\n")
    assert len(found.programs) + len(found.files) + continued == opened


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_of_code_is_cut(page: Path) -> None:
    """On the site, which the README is no part of, in a window of 1,400 pixels: see docs/_static/site.css.

    Lines of text are wrapped.
    """
    blocks = re.findall(r"^```(?!text)\w+\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert not [line for block in blocks for line in block.splitlines() if len(line) > COLUMNS]
