"""Flower 1.8 over its gRPC streams: FedAvg, one process per client, training that does nothing.

Its server and clients hold a stream open, as heartline does, instead of polling. It needs an older protobuf
than the other peers, so it lives in a virtual environment of its own: what runs there imports Flower, numpy
and the standard library.
"""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks._process import ROOT, PeerFailed

VERSION = "1.8.0"
ENVIRONMENT = ROOT / ".venv-flower"
INSTALL_TIMEOUT = 600
"""Seconds for creating the environment, which downloads packages, perhaps over a slow line."""

Report = Callable[[object], None]


def python() -> str:
    """Return the interpreter that has Flower, after installing it where it is missing."""
    interpreter = ENVIRONMENT / "bin" / "python"
    complete = ENVIRONMENT / f".flwr-{VERSION}"
    if not complete.exists():
        print(f"installing Flower {VERSION} in {ENVIRONMENT.name}", file=sys.stderr, flush=True)
        _run(sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT))
        pip = (str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(*pip, f"flwr=={VERSION}", "numpy")
        complete.touch()
    return str(interpreter)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise PeerFailed(f"`{' '.join(command)}` took over {INSTALL_TIMEOUT} s") from error
    if done.returncode:
        raise PeerFailed(f"`{' '.join(command)}` failed\n{done.stderr}")


def serve_federated(report: Report, clients: int, rounds: int, parameters: int) -> None:
    """Train with all clients in every round; report the seconds between the ends of aggregations."""
    import flwr
    import numpy as np

    ends: list[float] = []

    class TimedFedAvg(flwr.server.strategy.FedAvg):
        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
            if failures or len(results) != clients:
                raise AssertionError(f"round {server_round}: {len(results)} results, failures {failures}")
            aggregated = super().aggregate_fit(server_round, results, failures)
            ends.append(time.perf_counter())
            return aggregated

    model = np.random.default_rng(0).standard_normal(parameters, dtype=np.float32)
    strategy = TimedFedAvg(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=flwr.common.ndarrays_to_parameters([model]),
    )
    # Flower cannot say which port it got, so a free one is looked up for it.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    report(address)
    config = flwr.server.ServerConfig(num_rounds=rounds)
    flwr.server.start_server(server_address=address, config=config, strategy=strategy)
    report([end - start for start, end in itertools.pairwise(ends)])


def learn(report: Report, address: str) -> None:
    """Take part with a `fit` that returns the parameters it was given."""
    import flwr

    class Idle(flwr.client.NumPyClient):
        def fit(self, parameters: Any, config: Any) -> Any:
            return parameters, 1, {}

    flwr.client.start_client(server_address=address, client=Idle().to_client())
    report("done")
