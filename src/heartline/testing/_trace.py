"""What happened in a world, in order: for people to read, and as a hash to compare runs by."""

from __future__ import annotations

import hashlib
import re
import struct
from collections import deque
from typing import NamedTuple

__all__ = ["Trace", "TraceEntry"]

TRACE_SIZE = 100_000
"""Entries that a trace retains; older ones count in its digest only. At 200 bytes each it is 20 MB."""

ADDRESS = re.compile(r"\bat 0x[0-9a-f]+")
"""Where an object lies in memory, as :func:`repr` has it: it follows from no seed."""


class TraceEntry(NamedTuple):
    """One thing that happened: when in seconds of the world, to which node, and what.

    ``fault`` says whether the world has done it to the programs: a fault, the end of one, or a restart.
    """

    time: float
    node: str
    text: str
    fault: bool = False

    def __str__(self) -> str:
        return f"{self.time:12.6f}  {self.node}: {self.text}"


class Trace:
    """The newest entries, and a hash over all that ever happened, bytes on the wires included."""

    def __init__(self) -> None:
        self.entries: deque[TraceEntry] = deque(maxlen=TRACE_SIZE)
        self._hash = hashlib.sha256()

    def add(self, time: float, node: str, text: str, *, fault: bool = False) -> None:
        """Note an event."""
        text = ADDRESS.sub("at 0x…", text)
        self.entries.append(TraceEntry(time, node, text, fault))
        self._hash.update(f"{time!r} {node!r} {text!r}\n".encode())

    def witness(self, time: float, data: bytes) -> None:
        """Note bytes that went out on a wire, and when they are due."""
        self._hash.update(struct.pack("!dQ", time, len(data)) + data)

    def digest(self) -> str:
        """The hash of everything so far, in hexadecimal digits."""
        return self._hash.hexdigest()
