"""Ports for servers that come back to theirs."""

from __future__ import annotations

import os
import socket

# Below those that the system gives to whoever binds to port 0, and apart for each process of the suite.
_PER_PROCESS = 200
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_ports = iter(range(10_000 + _PER_PROCESS * _WORKER, 32_768))


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens; no other test is given it."""
    for port in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
