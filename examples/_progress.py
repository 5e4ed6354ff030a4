"""How the federated demo shows its progress: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol, Self

from rich.bar import Bar
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from heartline.federated import RoundReport

BAR_WIDTH = 24
"""Characters of a full bar: the table then fits into 80 columns."""

FRAME_HEIGHT = 5
"""Lines of the table that are no rounds: title, head and borders."""


class Progress(Protocol):
    """What both kinds can do; a context manager, because a terminal must be left tidy."""

    pace: float
    """Seconds to let pass after a round, so that a person can follow."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def tell(self, message: str) -> None:
        """Something happened."""

    def add_round(self, report: RoundReport, accuracy: float) -> None:
        """A round is over; ``accuracy`` is that of the new model, 0 to 1."""


def make_progress(rounds: int) -> Progress:
    """The kind that fits to where the output goes."""
    console = Console()
    # rich alone would take FORCE_COLOR in a CI job's environment for a terminal.
    return LiveTable(console, rounds) if sys.stdout.isatty() and console.is_interactive else PlainLines()


class PlainLines:
    """One line for each round: for logs and pipes."""

    pace = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def tell(self, message: str) -> None:
        print(message, flush=True)

    def add_round(self, report: RoundReport, accuracy: float) -> None:
        dropped = "".join(f", dropped {name}: {why}" for name, why in report.dropped.items())
        self.tell(
            f"round {report.round:2}: accuracy {accuracy:6.1%}, {len(report.samples)} learners,"
            f" {report.seconds:.2f} s{dropped}"
        )


class LiveTable:
    """A table that grows by a row for each round, and the latest events below it."""

    pace = 0.3

    def __init__(self, console: Console, rounds: int) -> None:
        self._console = console
        self._total = rounds
        self._rounds: list[tuple[RoundReport, float]] = []
        self._events: list[str] = []
        # Drawn when something has changed, not by the clock: that would be a thread.
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        self._refresh()
        return self

    def __exit__(self, *_error: object) -> None:
        # What stays on the screen is the whole table; it may scroll now.
        self._live.update(self._draw(len(self._rounds)))
        self._live.stop()

    def tell(self, message: str) -> None:
        self._events.append(message)
        self._refresh()

    def add_round(self, report: RoundReport, accuracy: float) -> None:
        self._rounds.append((report, accuracy))
        self._refresh()

    def _refresh(self) -> None:
        room = self._console.height - FRAME_HEIGHT - len(self._events)
        self._live.update(self._draw(max(1, room)), refresh=True)

    def _draw(self, rows: int) -> Group:
        """The last ``rows`` rounds, as many as the terminal has room for, and the events."""
        done = f"round {len(self._rounds)} of {self._total}" if self._rounds else "the learners are starting"
        table = Table(title=done, title_justify="left")
        table.add_column("round", justify="right")
        table.add_column("held-out accuracy", no_wrap=True)
        table.add_column("", justify="right")
        table.add_column("learners", justify="right")
        table.add_column("dropped")
        table.add_column("seconds", justify="right")
        for report, accuracy in self._rounds[-rows:]:
            table.add_row(
                str(report.round),
                Bar(size=1, begin=0, end=accuracy, width=BAR_WIDTH, color="green"),
                f"{accuracy:.1%}",
                str(len(report.samples)),
                " ".join(report.dropped),
                f"{report.seconds:.2f}",
                style="bold red" if report.dropped else None,
            )
        return Group(table, *(Text(f"• {event}") for event in self._events))
