"""Deliveries per second of small messages, published one by one to 500 subscribers."""

from __future__ import annotations

from tests.benchmarks._process import Child
from tests.benchmarks._report import Report, medians, ratios, say
from tests.benchmarks._sockets import MESSAGE_SIZE

PEERS = {"heartline": "heartline_", "bare": "bare_push", "websockets": "websockets_push"}
SUBSCRIBERS = 500


def run(peers: list[str], *, quick: bool) -> Report:
    """Measure from the first publish to the last subscriber's last byte."""
    repeats, count = (3, 250) if quick else (9, 500)
    samples: dict[str, list[float]] = {peer: [] for peer in peers}
    for repeat in range(repeats):
        for peer in peers:
            rate = SUBSCRIBERS * count / _measure(PEERS[peer], count)
            samples[peer].append(rate)
            say(f"broadcast {repeat + 1}/{repeats} {peer:<10} {rate:,.0f} deliveries/s")
    results = medians(samples)
    return Report(
        scenario="broadcast",
        unit="deliveries/s",
        results=results,
        ratios=ratios(results, more_is_better=True),
    )


def _measure(module: str, count: int) -> float:
    with Child(module, "serve_broadcast", SUBSCRIBERS, count) as server:
        receiver = ("receive", module, server.receive(), SUBSCRIBERS, count * MESSAGE_SIZE)
        with Child("tests.benchmarks._sockets", *receiver) as subscribers:
            start: float = server.receive(subscribers)
            # The clock is monotonic(), which all processes of one machine share.
            end: float = subscribers.receive(server)
            return end - start
