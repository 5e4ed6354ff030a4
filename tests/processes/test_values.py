"""What the worst values of a peer cost a server in a process of its own, in memory and processor time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import heartline
from heartline.wire import CborSerializer, FrameType
from tests.patience import PATIENCE
from tests.rpc.helpers import RawPeer, call_frame, raw_client

from ._process import Program, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc"),
]

MIB = 1024 * 1024
SIZE = 16 * MIB
"""Bytes of each value. Without a bound the lists in it are 400 to 900 MiB, and take seconds."""

BOMBS = {
    "cbor": (1, b"\x81\x9a" + (SIZE - 6).to_bytes(4) + b"\x80" * (SIZE - 6)),
    "json": (2, b"[[" + b"[]," * (SIZE // 3 - 2) + b"[]]]"),
    "json, a map": (2, b'[{"":[' + b"[]," * (SIZE // 3 - 4) + b"[]]}]"),
    "msgpack": (3, b"\x91\xdd" + (SIZE - 6).to_bytes(4) + b"\x90" * (SIZE - 6)),
}
TWIN = (1, CborSerializer().encode([bytes(SIZE - 6)], []))
"""As many bytes in one item."""


def peak(server: Program) -> int:
    """Bytes that the server has held at most."""
    (line,) = (
        line for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if "VmHWM" in line
    )
    return int(line.split()[1]) * 1024


def processor_time(server: Program) -> float:
    """Seconds, of all cores."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def cost(server: Program, peer: RawPeer, number: int, content_id: int, body: bytes) -> float:
    """Call a method with these arguments; the processor time until the answer. It is refused."""
    head = call_frame(number, "Ledger.notes").payload
    payload = bytes([content_id]) + head[1 : head.index(b"notes") + 5] + body
    before = processor_time(server)
    peer.session.send(FrameType.CALL, 0, number, payload)
    await peer.flush()
    fault = await peer.receive_fault()
    assert fault["kind"] == "arguments"
    return processor_time(server) - before


@asynccontextmanager
async def attacked() -> AsyncIterator[tuple[Program, RawPeer, list[int]]]:
    """A server, a peer by hand, and the answers that another client gets meanwhile, one after the other."""
    async with start("server", url="tcp://127.0.0.1:0", patient=True) as server:
        url = await server.read("url")
        async with (
            raw_client(url) as peer,
            heartline.open_connection(url, reconnect=None) as other,
            trio.open_nursery() as nursery,
        ):
            answers = [0]

            async def ask() -> None:
                while True:
                    assert await other.service("Ledger").notes() == []
                    answers[0] += 1
                    await trio.sleep(0.001)

            nursery.start_soon(ask)
            yield server, peer, answers
            nursery.cancel_scope.cancel()


async def test_the_worst_values_cost_about_what_their_bytes_do() -> None:
    with trio.fail_after(PATIENCE):
        async with attacked() as (server, peer, answers):
            # Twins first: what the bytes alone take, of time and of memory.
            twins = [await cost(server, peer, number, *TWIN) for number in range(3)]
            held = peak(server)
            costs: dict[str, Any] = {}
            for number, (name, bomb) in enumerate(BOMBS.items(), 10):
                served = answers[0]
                costs[name] = await cost(server, peer, number, *bomb)
                with trio.fail_after(PATIENCE):
                    while answers[0] == served:  # nobody else waits for long, nor loses the link
                        await trio.sleep(0.001)
            assert peak(server) - held < 4 * SIZE
            assert max(costs.values()) < 10 * max(twins), (costs, twins)
