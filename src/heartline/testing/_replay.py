"""How to see a failure again."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from heartline.testing._trace import Trace

__all__ = ["explain"]

LAST = 30
"""Entries of the trace that are told with a failure: what led to it, on one page of a terminal."""


def explain(seed: int, trace: Trace) -> str:
    """A note for an error: the seed, the code it was seen with, and what happened last."""
    last = list(islice(reversed(trace.entries), LAST))[::-1]
    lines = [
        f"seed {seed}, {_origin()}: World({seed}) with the same programs fails in the same way again",
        *(["what happened last:"] if last else []),
        *(f"  {entry}" for entry in last),
    ]
    return "\n".join(lines)


def _origin() -> str:
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
