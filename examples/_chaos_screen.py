"""How the chaos demo shows its world: drawn again and again on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self

from _chaos_records import CLIENTS, LEARNERS, Records
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from heartline.testing import TraceEntry, World

EVENTS = 7
"""Lines of what happened last: all of it then fits into 24 lines."""

DULL = ("connects to", "listens on", "no answer from", "round ")
"""What begins so in the trace is left out: there is much of it."""

COLOURS = {"up": "green", "open": "green", "done": "green", "crashed": "bold red"}
"""Of the nodes' states; any other is on its way to something better."""

FRAME = 0.3
"""Seconds of the world between two pictures."""

PACE = 6.0
"""Seconds of the world in a real second: so a person can follow."""


class Screen(Protocol):
    """What both kinds can do; a context manager, because a terminal must be left tidy."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, world: World, records: Records, faults: dict[str, str]) -> None:
        """Show the present moment; ``faults`` is what is wrong with the links, by node."""


def make_screen(*, fast: bool) -> Screen:
    """The kind that fits to where the output goes."""
    console = Console()
    # rich alone would take FORCE_COLOR in a CI job's environment for a terminal.
    on_terminal = sys.stdout.isatty() and console.is_interactive
    return LiveScreen(console, pace=float("inf") if fast else PACE) if on_terminal else PlainLines()


class News:
    """Gives each time what has happened since the last."""

    def __init__(self) -> None:
        self._seen = 0

    def take(self, world: World) -> list[TraceEntry]:
        """The new entries of the trace that are worth a line."""
        entries = world.trace[self._seen :]
        self._seen += len(entries)
        return [entry for entry in entries if not entry.text.startswith(DULL)]


class PlainLines:
    """A line for everything that happens: for logs and pipes."""

    def __init__(self) -> None:
        self._news = News()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def show(self, world: World, records: Records, faults: dict[str, str]) -> None:
        for entry in self._news.take(world):
            print(_line(entry), flush=True)


class LiveScreen:
    """The nodes, the counters and the last events."""

    def __init__(self, console: Console, *, pace: float) -> None:
        self._pace = pace
        self._next = time.monotonic()
        self._news = News()
        self._events: list[TraceEntry] = []
        # Drawn when we say so, not by the clock: that would be a thread.
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    def show(self, world: World, records: Records, faults: dict[str, str]) -> None:
        self._events = [*self._events, *self._news.take(world)][-EVENTS:]
        self._live.update(self._draw(world, records, faults), refresh=True)
        # In the world no time passes meanwhile, and nobody there can tell.
        now = time.monotonic()
        self._next = max(self._next + FRAME / self._pace, now)
        time.sleep(self._next - now)

    def _draw(self, world: World, records: Records, faults: dict[str, str]) -> Group:
        struck = records.faults.total()
        what = "healed, and coming to rest" if records.closing else "in trouble"
        head = f"second {world.time():.0f} of the world, seed {world.seed}: {what}, {struck} faults so far"
        events = [Text(_line(entry), "dim", no_wrap=True, overflow="ellipsis") for entry in self._events]
        nodes = draw_nodes(world, records, faults)
        return Group(Text(head, "bold"), nodes, "", draw_counters(records, "open"), "", *events)


def draw_nodes(world: World, records: Records, faults: dict[str, str]) -> Table:
    """A line for each node: its state, and what is wrong with its link to the hub."""
    table = Table.grid(padding=(0, 4))
    table.add_row("hub", _coloured(state_of(world, records, "hub")), draw_sessions(records))
    for name in CLIENTS + LEARNERS:
        table.add_row(name, _coloured(state_of(world, records, name)), Text(faults.get(name, ""), "red"))
    return table


def draw_sessions(records: Records) -> str:
    """What became of the sessions so far."""
    return "sessions: {began} begun, {lost} lost their link, {resumed} resumed".format_map(records.sessions)


def state_of(world: World, records: Records, name: str) -> str:
    """How a node is, as it sees itself."""
    if not world.nodes[name].alive:
        return "done" if name in records.finished else "crashed"
    if name == "hub":
        return "up"
    connection = records.connections.get(name)
    # The connection may be that of a life before this one.
    return connection.state.value if connection and connection.state.value != "closed" else "connecting"


def draw_counters(records: Records, gap: str) -> Table:
    """The rows of the records; ``gap`` says what it means that something has not ended."""
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for title in ("begun", "ended", gap, "twice"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", style="dim")
    for row in records.rows():
        numbers = (row.begun, row.ended, row.open, row.twice)
        table.add_row(row.what, *map(str, numbers), row.note)
    return table


def _coloured(state: str) -> Text:
    return Text(f"{state:10}", COLOURS.get(state, "yellow"))


def _line(entry: TraceEntry) -> str:
    return f"{entry.time:6.1f}  {entry.node}: {entry.text}"
