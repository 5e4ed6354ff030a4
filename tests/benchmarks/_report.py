"""What a scenario hands back: figures, the ratios to each peer, and the table drawn from them."""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import time
from pathlib import Path

OURS = "heartline"

QUIET = 0.25
"""Busy cores up to which a machine counts as quiet. With a core taken, peers whose two ends work at the same
time lose half their rate and those that take turns nothing, so ratios no longer compare the libraries."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Medians by peer (or `peer@load`), and ours against each peer: above 1 is better for heartline."""

    scenario: str
    unit: str
    results: dict[str, float]
    ratios: dict[str, float]
    latency: dict[str, float] | None = None
    """Microseconds of a call with no other in flight (rpc only)."""
    rate: dict[str, float] | None = None
    """MB/s of the upload (upload only)."""
    busy_cores: float = 0.0
    """Processor cores that other programs kept busy, just before or after the measurement."""

    def as_json(self) -> dict[str, object]:
        """Return the fields that apply to this scenario."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


def ratios(results: dict[str, float], *, more_is_better: bool) -> dict[str, float]:
    """Compare `heartline` or `heartline@load` with each peer of the same load."""
    found = {}
    for key, value in results.items():
        peer, separator, load = key.partition("@")
        ours = results.get(OURS + separator + load)
        if peer != OURS and ours is not None:
            found[key] = round(ours / value if more_is_better else value / ours, 3)
    return found


def medians(samples: dict[str, list[float]], digits: int | None = None) -> dict[str, float]:
    """Return the median of each list."""
    return {key: round(statistics.median(values), digits) for key, values in samples.items()}


def busy_cores(seconds: float = 0.3) -> float:
    """Return how many cores are busy right now; called while no child of ours runs."""

    def ticks() -> int:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(
            int, Path("/proc/stat").read_text().split()[1:9]
        )
        return user + nice + system + irq + softirq + steal

    before, start = ticks(), time.monotonic()
    time.sleep(seconds)
    return round((ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - start), 2)


def say(text: str) -> None:
    """Write a line of progress."""
    print(text, file=sys.stderr, flush=True)


def table(report: Report) -> str:
    """Draw the figures as aligned columns."""
    rows = [(report.scenario, report.unit, f"{OURS}'s ratio")]
    for key, value in report.results.items():
        rows.append((key, f"{value:,}", f"{report.ratios[key]:.2f}" if key in report.ratios else ""))
    if report.latency:
        rows.append(("one at a time", "µs", ""))
        rows += [(key, f"{value:,}", "") for key, value in report.latency.items()]
    if report.rate:
        rows.append(("upload", "MB/s", ""))
        rows += [(key, f"{value:,.0f}", "") for key, value in report.rate.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
