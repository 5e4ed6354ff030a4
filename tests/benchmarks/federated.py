"""Milliseconds per federated round: 4 clients, a model of 1 MB, training that does nothing."""

from __future__ import annotations

import contextlib
import statistics
import sys

from tests.benchmarks._process import Child
from tests.benchmarks._report import Report, medians, ratios, say
from tests.benchmarks.peers import flower

PEERS = {"heartline": "heartline_", "flower": "flower"}
CLIENTS = 4
PARAMETERS = 250_000
"""float32 values: 1 MB."""
WARM_UP = 3
"""Rounds that are not counted."""


def run(peers: list[str], *, quick: bool) -> Report:
    """Measure from the end of one aggregation to the end of the next."""
    repeats, rounds = (2, 20) if quick else (5, 30)
    pythons = {peer: flower.python() if peer == "flower" else sys.executable for peer in peers}
    samples: dict[str, list[float]] = {peer: [] for peer in peers}
    for repeat in range(repeats):
        for peer in peers:
            took = 1000 * _measure(PEERS[peer], rounds + WARM_UP, pythons[peer])
            samples[peer].append(took)
            say(f"federated {repeat + 1}/{repeats} {peer:<10} {took:.1f} ms per round")
    results = medians(samples, 2)
    return Report(
        scenario="federated",
        unit="ms/round",
        results=results,
        ratios=ratios(results, more_is_better=False),
    )


def _measure(module: str, rounds: int, python: str) -> float:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            Child(module, "serve_federated", CLIENTS, rounds, PARAMETERS, python=python)
        )
        address = server.receive()
        learners = [
            stack.enter_context(Child(module, "learn", address, python=python)) for _ in range(CLIENTS)
        ]
        return float(statistics.median(server.receive(*learners, timeout=120)[WARM_UP:]))
