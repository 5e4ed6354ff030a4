"""Run one side of a benchmark in a process of its own and read what it reports."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]

STOP_TIMEOUT = 5.0
"""Seconds a child may take to end after SIGTERM before it is killed."""

LOOK_INTERVAL = 0.25
"""Seconds between looks at whether the other children of a measurement still run."""

LAST_WORDS = 12
"""Lines of a failed child's stderr that its error shows: the end of a traceback."""


class PeerFailed(Exception):
    """A peer could not be installed, started or measured."""


class Child:
    """A child process that runs `FUNCTION(report, *arguments)` of a peer module; gone when the block ends."""

    def __init__(self, peer: str, function: str, *arguments: object, python: str = sys.executable) -> None:
        self.title = f"{peer}.{function}"
        module = peer if "." in peer else f"tests.benchmarks.peers.{peer}"
        self._command = [
            python,
            "-m",
            "tests.benchmarks._child",
            module,
            function,
            json.dumps(arguments),
        ]
        self._rest = b""

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            env=os.environ | {"FLWR_TELEMETRY_ENABLED": "0"},
        )
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout, self._stderr):
            assert stream is not None
            stream.close()

    def receive(self, *beside: Child, timeout: float = 60) -> Any:
        """Return the next value the child reports.

        Raises PeerFailed if it ends or takes over `timeout` seconds, or if one of those `beside` it, without
        which it may wait in vain, fails.
        """
        deadline = time.monotonic() + timeout
        pipe = self._process.stdout
        assert pipe is not None
        while b"\n" not in self._rest:
            if select.select([pipe], [], [], LOOK_INTERVAL)[0]:
                data = pipe.read(65536)
                if not data:
                    raise self._failure(f"ended with exit code {self._process.wait()}")
                self._rest += data
                continue
            for child in beside:
                if child._process.poll():
                    raise child._failure(f"ended with exit code {child._process.returncode}")
            if time.monotonic() > deadline:
                raise self._failure(f"reported nothing for {timeout:g} s")
        line, self._rest = self._rest.split(b"\n", 1)
        return json.loads(line)

    def _failure(self, what: str) -> PeerFailed:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()
        return PeerFailed("\n    ".join([f"{self.title} {what}", *lines[-LAST_WORDS:]]))
