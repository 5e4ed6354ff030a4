"""The tutorial's programs that need several processes, as a reader starts them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import heartline
from tests.docs.snippets import DOCS, read
from tests.patience import PATIENCE
from tests.ports import free_port

pytestmark = pytest.mark.slow

SHORT = 0.5
"""Seconds that a trainer waits for a learner that has gone: ten would be waited out in each of its rounds."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of all the tutorial's pages, with a port that is free, and with waits that are short."""
    changes = {
        ":4000": f":{free_port()}",
        "trio.sleep(1)": "trio.sleep(0.05)",
        "minimum=2,": f"minimum=2, patience={SHORT},",
    }
    for page in sorted((DOCS / "tutorial").glob("*.md")):
        for name, text in read(page).files.items():
            assert not (tmp_path / name).exists(), f"{name} stands on two pages"
            for original, change in changes.items():
                text = text.replace(original, change)
            (tmp_path / name).write_text(text)
    return tmp_path


class Terminal:
    """A running program and the lines that it prints."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._rest = b""

    async def read_until(self, pattern: str) -> str:
        """The next line that matches."""
        assert self.process.stdout is not None
        while True:
            while b"\n" not in self._rest:
                data = await self.process.stdout.receive_some()
                assert data, f"the program ended without {pattern!r}: {self.lines}"
                self._rest += data
            line, _, self._rest = self._rest.partition(b"\n")
            self.lines.append(line.decode())
            if re.fullmatch(pattern, self.lines[-1]):
                return self.lines[-1]

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)


@asynccontextmanager
async def terminal(folder: Path, *arguments: str) -> AsyncIterator[Terminal]:
    """Run a program in its own process for as long as the block lasts."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-u", *arguments], cwd=folder, stdout=subprocess.PIPE
    )
    try:
        yield Terminal(process)
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()  # type: ignore[union-attr]


async def test_client_outlives_its_server(folder: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with terminal(folder, "server.py") as server:
            await server.read_until("listening on tcp://127.0.0.1:[0-9]+")
            async with terminal(folder, "client.py") as client:
                await client.read_until(r"2 \+ 1 = 3")
                server.interrupt()
                await server.read_until("stopped")
                assert await server.process.wait() == 0
                await client.read_until("interrupted: (not sent|maybe executed)")
                async with terminal(folder, "server.py"):
                    await client.read_until(r"[0-9]+ \+ 1 = [0-9]+")
                    client.interrupt()
                    await client.read_until("stopped")
                    assert await client.process.wait() == 0


async def test_client_without_a_server(folder: Path) -> None:
    with trio.fail_after(PATIENCE):
        result = await trio.run_process(
            [sys.executable, "client.py"], cwd=folder, capture_stderr=True, check=False
        )
    assert result.returncode == 1
    assert re.fullmatch("cannot connect to tcp://.*; start the server first\n", result.stderr.decode())


async def test_a_service_lets_calls_end_when_it_is_told_to_stop(folder: Path) -> None:
    answers: list[str] = []

    async def order(conn: heartline.Connection) -> None:
        answers.append(await conn.service("Kitchen").cook("soup"))

    with trio.fail_after(PATIENCE):
        async with terminal(folder, "service.py") as service:
            url = (await service.read_until("listening on .*")).split()[-1]
            async with heartline.open_connection(url) as conn, trio.open_nursery() as nursery:
                nursery.start_soon(order, conn)
                await service.read_until("cooking soup")
                service.process.send_signal(signal.SIGTERM)
                await service.read_until("stopping: SIGTERM")
            await service.read_until("all calls ended in time: True")
            assert await service.process.wait() == 0
    assert answers == ["soup is ready"]


async def test_federation_outlives_a_learner_and_its_trainer(folder: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with (
            terminal(folder, "learner.py", "ada", "0") as ada,
            terminal(folder, "learner.py", "ben", "1") as ben,
        ):
            async with terminal(folder, "trainer.py") as trainer:
                async with terminal(folder, "learner.py", "cleo", "2") as cleo:
                    await trainer.read_until("round [0-9]+, 3 learners: .*")
                    cleo.interrupt()
                    await cleo.read_until("stopped")
                    assert await cleo.process.wait() == 0
                # The second of these was drawn without it: whoever was in the last draw would be waited for.
                for _ in range(2):
                    await trainer.read_until("round [0-9]+, 2 learners: .*")
            async with terminal(folder, "trainer.py") as trainer:
                first = await trainer.read_until("round [0-9]+, 2 learners: .*")
                assert int(first.split()[1].rstrip(",")) > 3
                await trainer.read_until("round 30, 2 learners: y = 3.0 x \\+ 1.0")
                await trainer.read_until("all rounds are over")
                assert [await program.process.wait() for program in (trainer, ada, ben)] == [0, 0, 0]


async def test_trainer_that_has_finished_says_so(folder: Path) -> None:
    trainer_file = folder / "trainer.py"
    trainer_file.write_text(trainer_file.read_text().replace("rounds=30", "rounds=1"))
    with trio.fail_after(PATIENCE):
        async with terminal(folder, "trainer.py") as trainer:
            async with (
                terminal(folder, "learner.py", "ada", "0") as ada,
                terminal(folder, "learner.py", "ben", "1") as ben,
            ):
                await trainer.read_until("round 1, 2 learners: .*")
                assert [await program.process.wait() for program in (trainer, ada, ben)] == [0, 0, 0]
        async with terminal(folder, "trainer.py") as trainer:
            await trainer.read_until("all rounds are over")
            assert trainer.lines == ["all rounds are over"]
            assert await trainer.process.wait() == 0
