"""The other side of broadcast and idle: many raw sockets in one process, as cheap as it gets.

They know nothing of a peer's framing beyond its `handshake(sock)`: the last message carries a marker, and a
socket is done once the marker went by.
"""

from __future__ import annotations

import importlib
import re
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

MESSAGE_SIZE = 128
"""Bytes of a broadcast message."""

MARKER = b"<END>"

TAIL = 256
"""Last bytes of a stream that are searched for the marker: longer than any peer's framing after it."""

SPARE_DESCRIPTORS = 200
"""What a process opens besides the connections that are counted."""


def messages(count: int) -> list[bytes]:
    """Return `count` messages, the last with the end marker."""
    return [bytes(MESSAGE_SIZE)] * (count - 1) + [MARKER.rjust(MESSAGE_SIZE, b"\0")]


def allow_descriptors(connections: int) -> None:
    """Raise this process's descriptor limit so that `connections` fit; OSError says when they cannot."""
    needed = connections + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise OSError(f"{needed} descriptors are needed and at most {hard} allowed: raise `ulimit -Hn`")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def private_kib() -> int:
    """Memory that only this process holds (unlike RSS, without shared library pages it happened to touch)."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", rollup, re.MULTILINE))


def _connect(module: str, port: int, count: int) -> list[socket.socket]:
    allow_descriptors(count)
    handshake: Callable[[socket.socket], None]
    handshake = importlib.import_module(f"tests.benchmarks.peers.{module}").handshake
    opened = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        handshake(sock)
        opened.append(sock)
    return opened


def hold(report: Callable[[object], None], module: str, port: int, count: int) -> None:
    """Open idle connections and keep them until ended."""
    opened = _connect(module, port, count)
    report(len(opened))
    signal.pause()


def receive(report: Callable[[object], None], module: str, port: int, count: int, expected: int) -> None:
    """Subscribe `count` sockets; report when each of them has got the marker and `expected` bytes or more."""
    subscribers = {sock.fileno(): sock for sock in _connect(module, port, count)}
    received = dict.fromkeys(subscribers, 0)
    tails = dict.fromkeys(subscribers, b"")
    poll = select.epoll()
    for descriptor in subscribers:
        poll.register(descriptor, select.EPOLLIN)
    buffer = memoryview(bytearray(64 * 1024))
    waiting = count
    while waiting:
        for descriptor, _ in poll.poll():
            size = subscribers[descriptor].recv_into(buffer)
            if not size:
                raise ConnectionError(f"a subscriber was cut off after {received[descriptor]} bytes")
            received[descriptor] += size
            tails[descriptor] = (tails[descriptor] + bytes(buffer[max(0, size - TAIL) : size]))[-TAIL:]
            if MARKER in tails[descriptor]:
                poll.unregister(descriptor)
                waiting -= 1
    end = time.monotonic()
    if min(received.values()) < expected:
        raise AssertionError(f"a subscriber got {min(received.values())} of at least {expected} bytes")
    report(end)
