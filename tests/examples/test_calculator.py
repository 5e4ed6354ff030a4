from __future__ import annotations

import re
import signal
import subprocess

import pytest

from tests.examples.programs import command, run
from tests.patience import PATIENCE

pytestmark = pytest.mark.slow


def test_alone_it_shows_a_call_two_errors_and_a_deadline() -> None:
    result = run(command("calculator.py"))
    assert result.stderr == ""
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    lines[-2:] = sorted(lines[-2:])  # client and server give up at the same moment
    expected = [
        r"serving at tcp://127\.0\.0\.1:\d+",
        r"1 \+ 2 = 3\.0",
        r"1 / 0 raised over there: Calculator.divide raised ZeroDivisionError: .*division by zero",
        r"'one' \+ 2 was not even tried: .*",
        r"  server: pondering 'life, the universe and everything' \.\.\.",
        r"  server: nobody waits for the answer any more, so I stop",
        r"no answer within 0\.2 s, so life goes on",
    ]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line


def test_as_two_processes() -> None:
    server = subprocess.Popen(
        command("calculator.py", "serve", "tcp://127.0.0.1:0"), stdout=subprocess.PIPE, text=True
    )
    with server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().removeprefix("serving at ").strip()
            result = run(command("calculator.py", "add", url, "1", "2.5"))
            assert (result.returncode, result.stdout, result.stderr) == (0, "3.5\n", "")
            server.send_signal(signal.SIGINT)
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()
    # Its server is gone: the next one is told so, and is not shown a traceback.
    result = run(command("calculator.py", "add", url, "1", "2"))
    assert result.returncode == 1
    assert result.stderr.startswith(f"calculator: cannot connect to {url}")


def test_the_command_line_is_explained() -> None:
    result = run(command("calculator.py", "--help"))
    assert result.returncode == 0
    assert "serve tcp://127.0.0.1:4000" in result.stdout
    result = run(command("calculator.py", "subtract"))
    assert result.returncode == 1
    assert "serve tcp://127.0.0.1:4000" in result.stderr
