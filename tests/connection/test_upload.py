"""A real upload over a real socket: small calls pass it."""

from __future__ import annotations

import itertools
import time

import pytest
import trio

import heartline
from tests.benchmarks._process import Child
from tests.benchmarks.peers.heartline_ import Adder

MESSAGE = 32 * 2**20
MESSAGES = 2
UPLOADS = 3
"""The best of them counts: others use the machine, too."""

IN_TIME = 0.025
"""Seconds for a small call during an upload, on a machine that has time for it."""

SHARE = 1 / 4
"""Of the time that a message of the upload takes: on a machine without time for it a call is slow too, but
still faster than behind a message. What is under way at a time is a small part of one."""


def typical(delays: list[float]) -> float:
    """Half of the time went into calls that took no longer; the median would not show a few slow ones."""
    ordered = sorted(delays)
    sums = itertools.accumulate(ordered)
    return next(delay for delay, spent in zip(ordered, sums, strict=True) if spent >= sum(ordered) / 2)


async def upload(connection: heartline.Connection) -> None:
    channel = await connection.open_channel("upload")
    for _ in range(MESSAGES):
        await channel.send(bytes(MESSAGE))
    await channel.send(b"")
    assert await channel.receive() == MESSAGES * MESSAGE


async def measure(connection: heartline.Connection) -> tuple[float, float]:
    """Seconds: a typical small call during an upload, and what a message of it took."""
    add = heartline.remote(connection.service(Adder).add)
    delays: list[float] = []
    begun = time.perf_counter()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def upload_all() -> None:
            await upload(connection)
            nursery.cancel_scope.cancel()

        while True:
            start = time.perf_counter()
            assert await add(1, 2) == 3
            delays.append(time.perf_counter() - start)
            await trio.sleep(0.001)
    return typical(delays), (time.perf_counter() - begun) / MESSAGES


@pytest.mark.slow
async def test_small_calls_pass_an_upload() -> None:
    with Child("heartline_upload", "serve_upload") as server:
        url = server.receive()
        measured = []
        for _ in range(UPLOADS):
            async with heartline.open_connection(url) as connection:
                measured.append(await measure(connection))
            call, message = measured[-1]
            if call < max(IN_TIME, SHARE * message):
                return
    pytest.fail(f"seconds of a small call, and of a message: {measured}")
