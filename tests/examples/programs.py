"""Running the example programs as what they are: processes, on a pipe or on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from tests.patience import PATIENCE

EXAMPLES = Path(__file__).parents[2] / "examples"


def command(program: str, *arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / program), *arguments]


def changed(module: str, change: str, *arguments: str) -> list[str]:
    """The command line of a program in which a statement has changed something first."""
    find = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r})"
    code = f"{find}; import {module}; {change}; sys.exit({module}.main())"
    return [sys.executable, "-c", code, *arguments]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE)


def leave_early(arguments: list[str], lines: int = 1) -> None:
    """Read so much of what a program prints, and no more: it has to end, and without complaints."""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(PATIENCE) == 141


def children(pid: int) -> set[int]:
    """The processes that a process has started."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat and int(stat[1]) == pid:
                found.add(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process still runs; one that nobody has waited for yet does not."""
    stat = _stat(pid)
    return bool(stat) and stat[0] != "Z"


def _stat(pid: int) -> list[str]:
    """State, parent and the rest of what the system knows of a process; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still waiting after {PATIENCE:g} s"
        time.sleep(0.02)


class Terminal:
    """A program that is run on a terminal; a context manager, after which the program is dead."""

    def __init__(self, arguments: list[str], *, width: int = 80) -> None:
        self.output = ""
        self._width = width
        self._arguments = arguments

    def __enter__(self) -> Terminal:
        self._screen, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, self._width, 0, 0))

        def take_terminal() -> None:
            # Its own session, whose controlling terminal this is: only then does a Ctrl-C make a SIGINT.
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            self._arguments,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=os.environ | {"TERM": "xterm"},
            preexec_fn=take_terminal,
        )
        os.close(terminal)
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._screen)

    def read_until(self, text: str) -> None:
        while text not in self.output:
            assert self._read(), f"the program ended without {text!r}: {self.output}"

    def type(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def wait(self) -> int:
        """Read to the end; returns the exit code."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # how a terminal says that nobody has it open any more
            data = b""
        self.output += data.decode(errors="replace")
        return bool(data)
