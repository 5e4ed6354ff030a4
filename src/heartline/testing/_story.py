"""The story of a run for a person, and how to see it again."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path

from heartline.testing._trace import Trace, TraceEntry

__all__ = ["LAST", "explain", "origin", "tell_story"]

LAST = 30
"""Lines that are told with a failure, beside the faults: what led to it, on one page of a terminal."""


def tell_story(entries: Collection[TraceEntry], last: int | None = None) -> str:
    """A line each: of all but the ``last`` entries only the faults, and where something is left out."""
    width = max((len(entry.node) for entry in entries), default=0)
    first = 0 if last is None else len(entries) - last
    lines = []
    left_out = 0
    for number, entry in enumerate(entries):
        if number < first and not entry.fault:
            left_out += 1
            continue
        if left_out:
            lines.append(f"{'…':>10}  {left_out} line{'s' * (left_out > 1)}")
            left_out = 0
        lines.append(f"{entry.time:10.3f}  {entry.node:<{width}}  {entry.text}")
    return "\n".join(lines)


def explain(seed: int, trace: Trace) -> str:
    """A note for an error: the seed, the code it was seen with, and the story."""
    head = f"seed {seed}, {origin()}: World({seed}) with the same programs fails in the same way again"
    return "\n".join([head, *(["what happened:", tell_story(trace.entries, LAST)] if trace.entries else [])])


def origin() -> str:
    """The commit of heartline's source, if it is a checkout, and the version if not."""
    root = Path(__file__).parents[3]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    # An installed package may lie in somebody else's checkout, whose commits say nothing about heartline.
    if (root / ".git").exists() and (root / "src" / "heartline").is_dir():
        try:
            found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
            return f"commit {found.stdout.strip()}"
        except (OSError, subprocess.SubprocessError):
            pass  # no git here: the version has to do
    return f"heartline {version('heartline')}"
