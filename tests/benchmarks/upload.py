"""Small calls and PINGs during an upload of 1 GiB over the same connection, and the rate of the upload."""

from __future__ import annotations

from tests.benchmarks._process import Child
from tests.benchmarks._report import Report, medians, ratios, say

PEERS = {"heartline": "heartline_upload", "grpcio": "grpcio_upload", "websockets": "websockets_upload"}
MIB = 1024 * 1024
SIZES = (1, 32)
"""MiB of one message: one that is there in a few milliseconds, and a model that blocks the line for long."""
FIGURES = ("call median", "call p99", "ping median", "ping p99")


def run(peers: list[str], *, quick: bool) -> Report:
    """Measure each peer with each size of message."""
    repeats, total = (1, 256) if quick else (3, 1024)
    keys = [(peer, size) for size in SIZES for peer in peers]
    delays: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    for repeat in range(repeats):
        for peer, size in keys:
            measured = _measure(PEERS[peer], size, total)
            rates.setdefault(f"{peer}@{size} MiB", []).append(measured["rate"])
            known = {name: measured[name] for name in FIGURES if name in measured}
            for name, value in known.items():
                delays.setdefault(f"{peer}@{size} MiB, {name}", []).append(value)
            figures = "  ".join(f"{name}: {value:.2f} ms" for name, value in known.items())
            say(f"upload {repeat + 1}/{repeats} {size} MiB {peer:<10} {measured['rate']:.0f} MB/s  {figures}")
    results = medians(dict(sorted(delays.items(), key=lambda item: item[0].partition("@")[2])), 2)
    return Report(
        scenario="upload",
        unit="ms",
        results=results,
        ratios=ratios(results, more_is_better=False),
        rate=medians(rates, 0),
    )


def _measure(module: str, size: int, total: int) -> dict[str, float]:
    with Child(module, "serve_upload") as server:
        with Child(module, "load_upload", server.receive(), size * MIB, total // size) as client:
            measured: dict[str, float] = client.receive(server)
            return measured
