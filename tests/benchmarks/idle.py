"""Server memory per idle connection: private KiB, over 5,000 connections from another process."""

from __future__ import annotations

from tests.benchmarks._process import Child
from tests.benchmarks._report import Report, medians, ratios, say

PEERS = {"heartline": "heartline_", "bare": "bare_push", "websockets": "websockets_push"}
CONNECTIONS = 5_000
WARM_UP = 500
"""Connections before the first measurement: what is loaded or allocated once is not counted."""


def run(peers: list[str], *, quick: bool) -> Report:
    """Measure the growth from the warm-up connections to all of them."""
    repeats = 1 if quick else 3
    samples: dict[str, list[float]] = {peer: [] for peer in peers}
    for repeat in range(repeats):
        for peer in peers:
            size = _measure(PEERS[peer])
            samples[peer].append(size)
            say(f"idle {repeat + 1}/{repeats} {peer:<10} {size:.2f} KiB per connection")
    results = medians(samples, 2)
    return Report(
        scenario="idle",
        unit="KiB/connection",
        results=results,
        ratios=ratios(results, more_is_better=False),
    )


def _measure(module: str) -> float:
    with Child(module, "serve_idle", WARM_UP, WARM_UP + CONNECTIONS) as server:
        port = server.receive()
        with Child("tests.benchmarks._sockets", "hold", module, port, WARM_UP) as early:
            before = server.receive(early)
            with Child("tests.benchmarks._sockets", "hold", module, port, CONNECTIONS) as late:
                after = server.receive(early, late)
    growth: float = (after - before) / CONNECTIONS
    return growth
