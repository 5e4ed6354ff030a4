"""Durable publishes per second: small updates of a topic with a store, by 1 and by 64 publishers at once."""

from __future__ import annotations

from tests.benchmarks._process import Child
from tests.benchmarks._report import Report, medians, ratios, say

PEERS = {"heartline": "heartline_", "bare": "bare_store"}
PUBLISHERS = (1, 64)


def run(peers: list[str], *, quick: bool) -> Report:
    """Measure for a fixed time; the peers take turns, since a disk's speed changes by the minute."""
    repeats, seconds = (3, 1.0) if quick else (9, 2.0)
    samples: dict[str, list[float]] = {f"{peer}@{count}": [] for peer in peers for count in PUBLISHERS}
    for repeat in range(repeats):
        for count in PUBLISHERS:
            for peer in peers:
                with Child(PEERS[peer], "publish_durable", count, seconds) as publisher:
                    rate: float = publisher.receive()
                samples[f"{peer}@{count}"].append(rate)
                say(f"durable {repeat + 1}/{repeats} {peer:<10} {count:>3} at once: {rate:,.0f} updates/s")
    results = medians(samples)
    return Report(
        scenario="durable",
        unit="updates/s",
        results=results,
        ratios=ratios(results, more_is_better=True),
    )
