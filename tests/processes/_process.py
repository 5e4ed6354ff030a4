"""The programs of this folder, each in a process of its own that speaks in lines of JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]


class Program:
    """A running program; made by :func:`start`."""

    def __init__(self, process: trio.Process, errors: Any) -> None:
        self.pid = process.pid
        self._process = process
        self._errors = errors
        self._rest = b""

    async def read(self, what: str) -> Any:
        """Wait for the line ``{what: value}``, whatever comes before it; the value."""
        with trio.fail_after(PATIENCE):
            while True:
                said = await self._read()
                if what in said:
                    return said[what]

    async def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            data = await self._process.stdout.receive_some()
            assert data, f"the program has ended ({self._process.poll()}): {self.last_words()}"
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        said: dict[str, Any] = json.loads(line)
        return said

    def last_words(self) -> str:
        """What it wrote to stderr, the last part of it."""
        self._errors.seek(0)
        return str(self._errors.read().decode(errors="replace")[-4000:])

    async def finish(self) -> None:
        """Close its stdin, which tells it to end what it does."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()

    async def wait(self) -> int:
        """Wait for its end; the exit code."""
        with trio.fail_after(PATIENCE):
            return await self._process.wait()

    async def kill(self) -> None:
        """End it at once, wherever it is."""
        self.send(signal.SIGKILL)
        await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        self._process.send_signal(number)

    @property
    def descriptors(self) -> int:
        """Files, pipes and sockets that it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def memory(self) -> int:
        """Bytes of memory that it holds (resident set size)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def url_to_listen(kind: str, directory: Path) -> str:
    """The URL of a server that listens on this kind of transport."""
    return f"unix://{directory}/socket" if kind == "unix" else "tcp://127.0.0.1:0"


@asynccontextmanager
async def start(program: str, **settings: Any) -> AsyncIterator[Program]:
    """Run the program of this name with these settings; it is dead when the block ends."""
    with tempfile.TemporaryFile() as errors:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", f"tests.processes.{program}", json.dumps(settings)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Program(process, errors)
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
                await process.stdin.aclose()
                await process.stdout.aclose()


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for a condition."""
    with trio.fail_after(PATIENCE):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await trio.sleep(0.02)
