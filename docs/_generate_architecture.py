"""Draws the layers of the package from its imports: ``python docs/_generate_architecture.py``.

The rows are those of the contract in ``pyproject.toml``; the arrows are read from the sources. Where one
package reaches another over a third the direct arrow is left out, or nothing could be seen.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src" / "heartline"
TARGET = Path(__file__).parent / "_static" / "architecture.svg"

WIDTH = 1030
LEFT = 130
ROW, BOX_HEIGHT, TOP = 78, 46, 46
BOX_WIDTH = 150

HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
width="{width}" height="{height}">
<title>The layers of heartline</title>
<style>
text {{ font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #3d4852; }}
.name {{ font-size: 15px; font-weight: 600; text-anchor: middle; fill: #1f2933; }}
.what {{ font-size: 12px; }}
.box {{ fill: #f2f5f8; stroke: #52606d; stroke-width: 1.5; }}
.arrow {{ fill: none; stroke: #7b8794; stroke-width: 1.3; marker-end: url(#head); }}
</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0.5 L10 5 L0 9.5 z" fill="#7b8794"/></marker></defs>
<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>
"""


class Place(NamedTuple):
    """The middle of a box."""

    x: float
    y: float


def layers() -> list[list[str]]:
    """The packages by row, the highest first."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = configuration["tool"]["importlinter"]["contracts"]
    (rows,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return [[name.strip().removeprefix("heartline.") for name in row.split("|")] for row in rows]


def imports() -> dict[str, set[str]]:
    """Which packages each package imports, for types too."""
    known = {name for row in layers() for name in row}
    found: dict[str, set[str]] = {name: set() for name in sorted(known)}
    for path in SOURCES.rglob("*.py"):
        package = path.relative_to(SOURCES).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("heartline."):
                imported = str(node.module).split(".")[1]
                if package in known and imported in known - {package}:
                    found[package].add(imported)
    return found


def arrows() -> dict[str, set[str]]:
    """The imports without those that another way leads to as well."""
    direct = imports()

    def reached(name: str) -> set[str]:
        return {further for one in direct[name] for further in {one, *reached(one)}}

    return {
        name: {one for one in found if not any(one in reached(other) for other in found - {one})}
        for name, found in direct.items()
    }


def summary(name: str) -> str:
    """The first sentence of a package's own description."""
    path = SOURCES / name / "__init__.py"
    text = ast.get_docstring(ast.parse((path if path.exists() else SOURCES / f"{name}.py").read_text())) or ""
    sentence = text.split("\n")[0].split(". ")[0].rstrip(".")
    return re.sub(r":\w+:`([^`]*)`", r"\1", sentence)


def places() -> dict[str, Place]:
    """Where each package stands."""
    found = {}
    for number, row in enumerate(layers()):
        for column, name in enumerate(row):
            x = LEFT + BOX_WIDTH * (column - (len(row) - 1) / 2) * 1.1
            found[name] = Place(x + 100, TOP + ROW * number)
    return found


def lines() -> Iterator[str]:
    """Boxes, descriptions and arrows."""
    at = places()
    for row in layers():
        for name in row:
            x, y = at[name]
            yield (
                f'<rect class="box" x="{x - BOX_WIDTH / 2:g}" y="{y - BOX_HEIGHT / 2:g}" '
                f'width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="10"/>'
            )
            yield f'<text class="name" x="{x:g}" y="{y + 5:g}">{name}</text>'
        right = max(at[name].x for name in row) + BOX_WIDTH / 2 + 18
        for number, name in enumerate(row):
            offset = 5 + 16 * (number - (len(row) - 1) / 2)
            prefix = f"{name}: " if len(row) > 1 else ""
            y = at[name].y + offset
            yield f'<text class="what" x="{right:g}" y="{y:g}">{prefix}{summary(name)}</text>'
    for name, found in arrows().items():
        for other in sorted(found):
            yield arrow(at[name], at[other])


def arrow(start: Place, end: Place) -> str:
    """Straight down to the next row, on the left around those between."""
    above, below = start.y + BOX_HEIGHT / 2, end.y - BOX_HEIGHT / 2 - 1
    rows = round((end.y - start.y) / ROW)
    if rows == 1:
        return f'<path class="arrow" d="M{start.x:g} {above:g} L{end.x:g} {below:g}"/>'
    edge, far = start.x - BOX_WIDTH / 2, end.x - BOX_WIDTH / 2
    between = [place.x for place in places().values() if start.y < place.y < end.y]
    # A curve comes three quarters of the way to where its handles are.
    bend = edge - (edge - min(between) + BOX_WIDTH / 2 + 14 * rows) * 4 / 3
    path = f"M{edge:g} {start.y:g} C{bend:g} {start.y:g} {bend:g} {end.y:g} {far - 1:g} {end.y:g}"
    return f'<path class="arrow" d="{path}"/>'


def render() -> str:
    """The picture, always the same for the same sources."""
    height = TOP + ROW * (len(layers()) - 1) + BOX_HEIGHT
    return HEAD.format(width=WIDTH, height=height) + "\n".join(lines()) + "\n</svg>\n"


if __name__ == "__main__":
    TARGET.write_text(render())
