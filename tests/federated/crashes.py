"""Crashes at every moment: a disk that loses what was not synced, and a server whose process is gone."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import trio

import heartline
from tests.engine import core_of, link_of


class Disk:
    """The files in a directory, and what of them would be there after a crash right now.

    A crash may keep all, a part or nothing of what was written to a file since it was last synced, and either
    name of a renaming whose directory was not synced.
    """

    def __init__(self, directory: Path, before_step: Callable[[], None]) -> None:
        self._directory = directory
        self._before_step = before_step
        self._synced = {path.name: path.read_bytes() for path in directory.iterdir()}
        """Content that is on the disk, by the names that files have now."""
        self._lasting = dict(self._synced)
        """The same, by the names that are on the disk."""

    def image(self, rng: random.Random) -> dict[str, bytes]:
        """The files after a crash."""
        files = dict(self._lasting)
        if rng.random() < 0.5:  # the directory was written by chance
            files = {path.name: self._synced.get(path.name, b"") for path in self._directory.iterdir()}
        for name in files:
            path = self._directory / name
            if path.exists() and files[name] == self._synced.get(name, b""):
                files[name] = self._torn(files[name], path.read_bytes(), rng)
        return files

    def _torn(self, old: bytes, new: bytes, rng: random.Random) -> bytes:
        if old == new or rng.random() < 0.3:
            return old
        same = min(len(old), len(new))
        while old[:same] != new[:same]:
            same //= 2
        length = rng.randint(same, len(new))
        return new[:length].ljust(rng.choice([length, len(new)]), b"\0")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Every write, sync and renaming is a step, and is noted."""
        fsync, replace, open_file = os.fsync, Path.replace, Path.open

        def watched_fsync(descriptor: int) -> None:
            self._before_step()
            fsync(descriptor)
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path == self._directory:
                self._lasting = dict(self._synced)
            else:
                self._synced[path.name] = path.read_bytes()
                if path.name in self._lasting:
                    self._lasting[path.name] = self._synced[path.name]

        def watched_replace(path: Path, target: Path) -> Path:
            self._before_step()
            self._synced[target.name] = self._synced.pop(path.name)
            return replace(path, target)

        def watched_open(path: Path, mode: str = "r", *args: Any) -> Any:
            file = open_file(path, mode, 0)  # without a buffer each write is a step of its own
            if "w" in mode or "+" in mode:
                if "w" in mode:
                    self._synced.pop(path.name, None)
                return mock.MagicMock(
                    wraps=file,
                    write=self._stepping(file.write),
                    truncate=self._stepping(file.truncate),
                    __enter__=lambda self: self,
                    __exit__=lambda *_: file.close(),
                )
            return open_file(path, mode, *args) if not file.close() else None

        with (
            mock.patch.object(os, "fsync", watched_fsync),
            mock.patch.object(Path, "replace", watched_replace),
            mock.patch.object(Path, "open", watched_open),
        ):
            yield

    def _stepping(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any) -> Any:
            self._before_step()
            return function(*args)

        return step


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks, and what else is reported, and does something at a given one."""

    def __init__(self, at: int, do: Callable[[], None]) -> None:
        self._left = at
        self._do = do
        self.count = 0

    def step(self) -> None:
        """Something is about to happen."""
        self.count += 1
        self._left -= 1
        if self._left == 0:
            self._do()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.step()


def cut_off(server: heartline.Server) -> None:
    """Break every link, as the end of the process would: nobody says goodbye."""
    for connection in server.connections.values():
        if core_of(connection).link is not None:
            link_of(connection).stream.close()  # type: ignore[attr-defined]


async def run_inline(function: Callable[..., Any], *args: Any, **_settings: Any) -> Any:
    """What a worker thread does, without the thread: for a clock that does not know of threads."""
    await trio.lowlevel.checkpoint()
    return function(*args)
