"""Calls per second of `add(a, b)`, client and server in a process each, over one loopback connection."""

from __future__ import annotations

from tests.benchmarks._process import Child
from tests.benchmarks._report import Report, medians, ratios, say

PEERS = {
    "heartline": "heartline_",
    "bare": "bare",
    "grpcio": "grpcio_aio",
    "websockets": "websockets_cbor",
}
IN_FLIGHT = (1, 64, 256)


def run(peers: list[str], *, quick: bool) -> Report:
    """Measure each peer at each number of calls in flight."""
    repeats, seconds = (2, 0.2) if quick else (5, 0.5)
    plan = [(in_flight, seconds) for in_flight in IN_FLIGHT]
    samples: dict[str, list[float]] = {f"{peer}@{load}": [] for load in IN_FLIGHT for peer in peers}
    for repeat in range(repeats):
        for peer in peers:
            rates = _measure(PEERS[peer], plan)
            for in_flight, rate in zip(IN_FLIGHT, rates, strict=True):
                samples[f"{peer}@{in_flight}"].append(rate)
            figures = "  ".join(f"{load}: {rate:,.0f}" for load, rate in zip(IN_FLIGHT, rates, strict=True))
            say(f"rpc {repeat + 1}/{repeats} {peer:<10} calls/s in flight  {figures}")
    results = medians(samples)
    return Report(
        scenario="rpc",
        unit="calls/s",
        results=results,
        ratios=ratios(results, more_is_better=True),
        latency={peer: round(1e6 / results[f"{peer}@1"], 1) for peer in peers},
    )


def _measure(module: str, plan: list[tuple[int, float]]) -> list[float]:
    with Child(module, "serve_rpc") as server:
        with Child(module, "load_rpc", server.receive(), plan) as client:
            rates: list[float] = client.receive()
            return rates
