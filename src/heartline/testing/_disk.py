"""A small disk that forgets what was not synced when its node crashes."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import final

import trio

__all__ = ["Disk"]

DISK_SIZE = 64 * 1024 * 1024
"""Bytes on one disk: far above what a simulation stores, and a leak is found before memory ends."""

SYNC_TIME = 0.01
"""Seconds that a sync takes at most: a spinning disk's turn. A crash can come meanwhile."""


class _File:
    """What is durable, and the writes since; each says whether it replaces the content or adds to it."""

    def __init__(self) -> None:
        self.durable = b""
        self.writes: list[tuple[bool, bytes]] = []
        self.size = 0
        """Bytes held, durable or not."""
        self.synced = 0
        """Writes that became durable, ever."""

    def write(self, data: bytes, *, replaces: bool) -> None:
        self.writes.append((replaces, data))
        self.size += len(data)

    def content(self) -> bytes:
        start = max((i for i, (replaces, _) in enumerate(self.writes) if replaces), default=None)
        if start is None:
            return self.durable + b"".join(data for _, data in self.writes)
        return b"".join(data for _, data in self.writes[start:])

    def settle(self, durable: bytes, upto: int) -> None:
        """Forget the first ``upto`` writes there ever were, in favour of what the file held after them."""
        del self.writes[: upto - self.synced]
        self.durable, self.synced = durable, upto
        self.size = len(durable) + sum(len(data) for _, data in self.writes)

    def torn(self, budget: int) -> bytes:
        """The content if only this many bytes of the writes, in order, had reached the platter."""
        found = self.durable
        for replaces, data in self.writes:
            if budget <= 0:
                break
            found = data[:budget] if replaces else found + data[:budget]
            budget -= len(data)
        return found


@final
class Disk:
    """A node's files, by name, as bytes.

    Reading and writing happen at once, as into a system's cache. Only :meth:`sync` makes a file durable: when
    the node crashes, what was written since is lost, or a prefix of it survives; the seed decides. A program
    whose node has crashed gets :exc:`OSError` (``EIO``) from its disk. All files together have at most
    64 MiB, beyond which writing raises :exc:`OSError` (``ENOSPC``). To test a store without a world, make a
    disk of your own with a random source, and call :meth:`crash`.

    A missing file is no error: :meth:`read` returns empty bytes for it. The property :attr:`names` lists the
    files.
    """

    def __init__(self, rng: random.Random, *, check_power: Callable[[], None] = lambda: None) -> None:
        self._rng = rng
        self._check_power = check_power
        self._files: dict[str, _File] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """A property: the files there are, in the order in which they were first written."""
        return tuple(self._files)

    def read(self, name: str) -> bytes:
        """All of a file, synced or not; empty bytes if there is no such file."""
        self._check_power()
        return self._files[name].content() if name in self._files else b""

    def write(self, name: str, data: bytes) -> None:
        """Replace the content of the file with ``data``."""
        self._write(name, data, replaces=True)

    def append(self, name: str, data: bytes) -> None:
        """Add ``data`` at the end of the file."""
        self._write(name, data, replaces=False)

    async def sync(self, name: str) -> None:
        """Make durable what the file holds at this moment; takes up to 10 ms, in which a crash can come.

        Cancelled, it has made nothing durable.
        """
        self._check_power()
        file = self._files.setdefault(name, _File())
        content, upto = file.content(), file.synced + len(file.writes)
        await trio.sleep(self._rng.uniform(0, SYNC_TIME))
        self._check_power()
        if upto > file.synced:
            file.settle(content, upto)

    def crash(self) -> dict[str, int]:
        """Lose what was not synced, but for a prefix of it at times; a node's crash does this.

        Returns how many bytes of each file were lost, if any were.
        """
        lost = {}
        for name, file in self._files.items():
            unsynced = sum(len(data) for _, data in file.writes)
            survives = self._rng.randint(0, unsynced) if self._rng.random() < 0.5 else 0
            file.settle(file.torn(survives), file.synced + len(file.writes))
            if survives < unsynced:
                lost[name] = unsynced - survives
        return lost

    def _write(self, name: str, data: bytes, *, replaces: bool) -> None:
        self._check_power()
        file = self._files.setdefault(name, _File())
        if len(data) + sum(held.size for held in self._files.values()) > DISK_SIZE:
            raise OSError(errno.ENOSPC, f"the disk is full: it holds {DISK_SIZE} bytes", name)
        file.write(bytes(data), replaces=replaces)
