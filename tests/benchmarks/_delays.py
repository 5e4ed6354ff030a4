"""Round trips while an upload runs, as every peer reports them.

Whoever waits when the upload ends is waited for: where all stand behind it, there is no other.
"""

from __future__ import annotations

import statistics

PAUSE = 0.002
"""Seconds between two calls, and between two PINGs: a trickle beside the upload."""


def figures(size: int, count: int, seconds: float, **delays: list[float]) -> dict[str, float]:
    """The rate of an upload in MB/s, and the median and the 99th percentile of each kind of delay in ms."""
    found = {"rate": size * count / 1e6 / seconds}
    for name, values in delays.items():
        ordered = sorted(values)
        found[f"{name} median"] = statistics.median(ordered) * 1e3
        found[f"{name} p99"] = ordered[int(len(ordered) * 0.99)] * 1e3
    return found
