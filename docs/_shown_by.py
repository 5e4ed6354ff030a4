"""The role ``{shown-by}``: the tests that show a row of a table, behind a small mark that opens on a click.

A column of test names would leave no room for what the row says.
"""

from __future__ import annotations

from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


class ShownBy(nodes.General, nodes.Inline, nodes.Element):
    """The mark, with the names of its tests."""


def shown_by_role(
    _name: str, rawtext: str, text: str, _line: int, _inliner: Any, *_: Any, **__: Any
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Make the mark of ``{shown-by}`tests/a.py::one, tests/b.py::two```."""
    return [ShownBy(rawtext, tests=text.split(", "))], []


def leave_paragraph(_app: Sphinx, doctree: nodes.document) -> None:
    """Put each mark before its paragraph, for it floats: HTML has no ``<details>`` inside of a ``<p>``."""
    for mark in list(doctree.findall(ShownBy)):
        paragraph = mark.parent
        paragraph.remove(mark)
        paragraph.parent.insert(paragraph.parent.index(paragraph), mark)


def visit(translator: Any, node: ShownBy) -> None:
    """Write the mark."""
    tests = node["tests"]
    count = f"{len(tests)} tests" if len(tests) > 1 else "1 test"
    items = "".join(f"<li><code>{escape(test)}</code></li>" for test in tests)
    summary = f'<summary title="{count}" aria-label="{count}">✓ {len(tests)}</summary>'
    translator.body.append(f'<details class="shown-by">{summary}<ul>{items}</ul></details>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the role."""
    app.add_node(ShownBy, html=(visit, None))
    app.add_role("shown-by", shown_by_role)
    app.connect("doctree-read", leave_paragraph)
    return {"parallel_read_safe": True}
