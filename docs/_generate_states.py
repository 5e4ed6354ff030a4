"""Draws the states of a session from their table: ``python docs/_generate_states.py``.

The places are chosen by hand; which arrows there are, and what stands on them, comes from the table. A pair
of states without a place for its arrow ends in a ``KeyError``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

from heartline.session import TRANSITIONS, Role, State, Step

TARGET = Path(__file__).parent / "_static" / "session-states.svg"

WIDTH, HEIGHT = 960, 470
BOX_WIDTH, BOX_HEIGHT = 130, 44
COLUMN = 355
LOST_COLUMN = 95
"""On the left of the row of the open session."""
ROWS = {State.NEW: 92, State.GREETING: 202, State.OPEN: 312, State.LEAVING: 422}
CLOSED_LEFT, CLOSED_WIDTH = 695, 125
LINE = 16
"""Pixels from one line of text to the next."""

COLOURS = {Role.CLIENT: "#1a66a6", Role.SERVER: "#a8500f", None: "#3d4852"}
"""What only the client does, only the server, and both."""

HEAD = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"
width="{WIDTH}" height="{HEIGHT}">
<title>The states of a session</title>
<style>
text {{ font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }}
.name {{ font-size: 15px; font-weight: 600; text-anchor: middle; fill: #1f2933; }}
.box {{ fill: #f2f5f8; stroke: #52606d; stroke-width: 1.5; }}
.arrow {{ fill: none; stroke: #7b8794; stroke-width: 1.5; marker-end: url(#head); }}
</style>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">\
<path d="M0 0.5 L10 5 L0 9.5 z" fill="#7b8794"/></marker></defs>
<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#ffffff"/>
"""


class Label(NamedTuple):
    """What stands on an arrow: a step, and the only side that takes it (``None``: both do)."""

    role: Role | None
    step: Step

    @property
    def text(self) -> str:
        return f"{self.role.value}: {self.step.value}" if self.role else self.step.value


def labels() -> dict[tuple[State, State], list[Label]]:
    """The arrows of the table, each with its labels: the client's, the server's, and what both do."""
    found: dict[tuple[State, State], list[Label]] = {}
    for role, before, step in product((*Role, None), State, Step):
        client, server = (TRANSITIONS.get((side, before, step)) for side in Role)
        both = client is server
        after = client if role in (Role.CLIENT, None) else server
        if after is not None and both == (role is None):
            found.setdefault((before, after), []).append(Label(role, step))
    return found


def text(label: Label, x: float, y: float, anchor: str) -> str:
    """One line of text."""
    colour = COLOURS[label.role]
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}">{label.text}</text>'


def arrow(path: str) -> str:
    return f'<path class="arrow" d="{path}"/>'


def down(before: State, after: State, lines: list[Label]) -> Iterator[str]:
    """From one row to the next; the client's steps on the left, all others on the right."""
    top, bottom = ROWS[before] + BOX_HEIGHT / 2, ROWS[after] - BOX_HEIGHT / 2
    yield arrow(f"M{COLUMN} {top:g} V{bottom - 1:g}")
    left = [label for label in lines if label.role is Role.CLIENT]
    right = [label for label in lines if label.role is not Role.CLIENT]
    for side, x, anchor in ((left, COLUMN - 10, "end"), (right, COLUMN + 10, "start")):
        first = (top + bottom) / 2 - LINE * (len(side) - 1) / 2
        for number, label in enumerate(side):
            yield text(label, x, first + LINE * number + 4, anchor)


def across(before: State, lines: list[Label]) -> Iterator[str]:
    """To the box on the right, with the labels on top of each other above the arrow."""
    start, y = COLUMN + BOX_WIDTH / 2, ROWS[before]
    yield arrow(f"M{start:g} {y} H{CLOSED_LEFT - 1}")
    for number, label in enumerate(reversed(lines)):
        yield text(label, CLOSED_LEFT - 14, y - 7 - LINE * number, "end")


def aside(after: State, lines: list[Label]) -> Iterator[str]:
    """Between the open session and the lost one on its left: there on the upper way, back on the lower."""
    left, right = LOST_COLUMN + BOX_WIDTH / 2, COLUMN - BOX_WIDTH / 2
    away = after is State.LOST
    y = ROWS[State.OPEN] + (-8 if away else 8)
    yield arrow(f"M{right:g} {y} H{left + 1:g}" if away else f"M{left:g} {y} H{right - 1:g}")
    for number, label in enumerate(reversed(lines) if away else lines):
        yield text(
            label, (left + right) / 2, y + (-7 - LINE * number if away else 17 + LINE * number), "middle"
        )


def loop(state: State, lines: list[Label]) -> Iterator[str]:
    """From a box to itself, on its left side."""
    x, y = COLUMN - BOX_WIDTH / 2, ROWS[state]
    bend = x - 42
    yield arrow(f"M{x:g} {y - 11:g} C{bend:g} {y - 26:g} {bend:g} {y + 26:g} {x - 1:g} {y + 11:g}")
    first = y - LINE * (len(lines) - 1) / 2
    for number, label in enumerate(lines):
        yield text(label, bend, first + LINE * number + 4, "end")


def boxes() -> Iterator[str]:
    yield f'<circle cx="{COLUMN}" cy="32" r="6" fill="{COLOURS[None]}"/>'
    yield arrow(f"M{COLUMN} 38 V{ROWS[State.NEW] - BOX_HEIGHT / 2 - 1:g}")
    places = {state: (COLUMN, y) for state, y in ROWS.items()}
    for state, (x, y) in (places | {State.LOST: (LOST_COLUMN, ROWS[State.OPEN])}).items():
        yield (
            f'<rect class="box" x="{x - BOX_WIDTH / 2:g}" y="{y - BOX_HEIGHT / 2:g}" '
            f'width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="10"/>'
        )
        yield f'<text class="name" x="{x}" y="{y + 5}">{state.value}</text>'
    top, bottom = ROWS[State.NEW], ROWS[State.GREETING]
    yield (
        f'<rect class="box" x="{CLOSED_LEFT}" y="{top - BOX_HEIGHT / 2:g}" '
        f'width="{CLOSED_WIDTH}" height="{bottom - top + BOX_HEIGHT}" rx="10"/>'
    )
    yield (
        f'<text class="name" x="{CLOSED_LEFT + CLOSED_WIDTH / 2:g}" y="{(top + bottom) / 2 + 5:g}">'
        f"{State.CLOSED.value}</text>"
    )


LOOPS = {(State.LEAVING, State.LEAVING): State.LEAVING}
ASIDE = {(State.OPEN, State.LOST), (State.LOST, State.OPEN)}
DOWN = set(pairwise(ROWS))


def render() -> str:
    """The picture, always the same for the same table."""
    drawn = [*boxes()]
    for (before, after), lines in labels().items():
        if (before, after) in DOWN:
            drawn += down(before, after, lines)
        elif (before, after) in ASIDE:
            drawn += aside(after, lines)
        elif before is not after and after is State.CLOSED:
            drawn += across(before, lines)
        else:
            drawn += loop(LOOPS[before, after], lines)
    return HEAD + "\n".join(drawn) + "\n</svg>\n"


if __name__ == "__main__":
    TARGET.write_text(render())
