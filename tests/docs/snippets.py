"""The programs in the documentation, found by their fences.

A Python fence is a whole program, unless a comment right before it says something else:

- ``<!-- continued -->``: it goes on where the program above it ends;
- ``<!-- file: NAME -->``: it is put into a file of that name, beside which the page's later programs run.

A text fence behind ``<!-- output -->`` is what the program above it prints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(DOCS.glob("*.md")),
    *sorted((DOCS / "tutorial").glob("*.md")),
    *sorted((DOCS / "patterns").glob("*.md")),
    *sorted((DOCS / "how-to").glob("*.md")),
    *sorted((DOCS / "explanation").glob("*.md")),
    *sorted((DOCS / "reference").glob("*.md")),
]

_FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n\s*)?^```(?P<language>[a-z]+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Program:
    """One program of a page; its lines have the page's numbers, so that a traceback leads there."""

    page: Path
    line: int
    code: str
    files: dict[str, str]
    """What lies beside it, by name."""
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass
class Page:
    """The programs of a page, and its files."""

    path: Path
    programs: list[Program] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> Page:
    """Take a page apart; raises :class:`ValueError` for a mark that means nothing."""
    page = Page(path)
    text = path.read_text()
    for fence in _FENCE.finditer(text):
        mark, language, code = fence["mark"], fence["language"], fence["code"]
        line = text.count("\n", 0, fence.start("code"))
        if language == "python" and mark == "continued":
            program = page.programs[-1]
            program.code += "\n" * (line - program.code.count("\n")) + code
        elif language == "python" and mark is not None and mark.startswith("file: "):
            page.files = page.files | {mark.removeprefix("file: "): code}
        elif language == "python" and mark is None:
            page.programs.append(Program(path, line + 1, "\n" * line + code, page.files))
        elif language == "text" and mark == "output":
            page.programs[-1].output = code
        elif language == "python" or mark == "output":
            raise ValueError(f"{path.name}:{line}: a {language} fence cannot be marked {mark!r}")
    return page
