"""What hooks cost: the calls of `rpc` on a server without any, with one piece of middleware, or an observer.

The middleware does nothing but go on, and the observer nothing at all, so the difference is what heartline
does for them. Middleware has every call run in a task of its own, which is most of it for a sync method.
"""

from __future__ import annotations

from tests.benchmarks._process import Child
from tests.benchmarks._report import Report, medians, ratios, say

PEERS = {
    "heartline": "serve_rpc",
    "middleware": "serve_rpc_inside_middleware",
    "observer": "serve_rpc_observed",
}
IN_FLIGHT = (1, 64)


def run(peers: list[str], *, quick: bool) -> Report:
    """Measure each kind of server at each number of calls in flight."""
    repeats, seconds = (2, 0.2) if quick else (7, 0.5)
    plan = [(in_flight, seconds) for in_flight in IN_FLIGHT]
    samples: dict[str, list[float]] = {f"{peer}@{load}": [] for load in IN_FLIGHT for peer in peers}
    for repeat in range(repeats):
        for peer in peers:
            with Child("heartline_", PEERS[peer]) as server:
                with Child("heartline_", "load_rpc", server.receive(), plan) as client:
                    rates: list[float] = client.receive()
            for in_flight, rate in zip(IN_FLIGHT, rates, strict=True):
                samples[f"{peer}@{in_flight}"].append(rate)
            figures = "  ".join(f"{load}: {rate:,.0f}" for load, rate in zip(IN_FLIGHT, rates, strict=True))
            say(f"hooks {repeat + 1}/{repeats} {peer:<10} calls/s in flight  {figures}")
    results = medians(samples)
    return Report(
        scenario="hooks", unit="calls/s", results=results, ratios=ratios(results, more_is_better=True)
    )
