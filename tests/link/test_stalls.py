"""Blame no peer while you are late yourself: stalls of this program, of every kind, and real silence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline import ConnectionState, Heartbeat, Lost
from heartline.session.listening import TURNS
from tests.connection.helpers import BRISK, RawPeer, data, listen, open_to_raw, settle, url_of
from tests.engine import link_of
from tests.opening import open_stream

QUICK = Heartbeat(interval=0.1, timeout=0.3)
"""For real time."""


def stall(clock: MockClock, seconds: float) -> None:
    """Nobody runs meanwhile."""
    clock.jump(seconds)


# On a virtual clock


@pytest.mark.parametrize("offset", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("length", [1.0, 2.5, 9.0, 1e6])
async def test_a_stall_is_nobodys_silence(offset: float, length: float, autojump_clock: MockClock) -> None:
    """Wherever it begins: also one that no deadline was planned in."""
    async with open_to_raw(heartbeat=BRISK) as (connection, _peer):
        await trio.sleep(offset)
        stall(autojump_clock, length)
        await trio.sleep(3 - offset - 2 * 3 / TURNS)
        assert connection.state is ConnectionState.OPEN
        await trio.sleep(0.3)
        assert connection.state is ConnectionState.CLOSED


@pytest.mark.parametrize("turns", [3, 9])
async def test_many_small_stalls_are_not_silence_either(turns: int, autojump_clock: MockClock) -> None:
    """Each is far shorter than the timeout, and may count for a turn; together they are most of the time."""
    async with open_to_raw(heartbeat=BRISK) as (connection, _peer):
        turn = 3 / TURNS
        while connection.state is ConnectionState.OPEN:
            await trio.sleep(turn * 0.999)
            stall(autojump_clock, turns * turn)
            await settle()
        assert trio.current_time() >= 3 * (turns + 1) / 2 * 0.99


async def test_a_link_that_was_added_in_a_stall(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=BRISK) as server:
        for _ in range(2):  # also as the first one, when the wheel stood still
            peer = await RawPeer.join(server.urls[0], identity="late")
            stall(autojump_clock, 9)
            await trio.sleep(2.8)
            assert server.connections["late"].state is ConnectionState.OPEN
            await trio.sleep(0.3)
            assert "late" not in server.connections
            peer.stream.close()  # type: ignore[attr-defined]


async def test_a_stall_in_the_handshake(autojump_clock: MockClock) -> None:
    """The HELLO waits in the stream: it counts, though the time for the handshake is over."""
    async with heartline.open_server("memory://", heartbeat=BRISK) as server:
        stream = await open_stream(server.urls[0])
        peer = RawPeer.of(stream, heartline.session.Role.CLIENT)
        peer.session.hello(identity="slow")
        await settle()
        await peer.flush()
        stall(autojump_clock, 1000)
        await settle()
        assert server.connections["slow"].state is ConnectionState.OPEN
        await trio.sleep(2.8)
        assert server.connections["slow"].state is ConnectionState.OPEN


async def test_the_wheel_keeps_account_while_a_link_is_not_due(autojump_clock: MockClock) -> None:
    """A patient link has nothing due for an hour, and this side missed half of it."""
    patient = Heartbeat(interval=3600, timeout=7200)
    async with open_to_raw(heartbeat=patient, raw={"heartbeat": patient}) as (connection, _peer):
        await trio.sleep(100)
        stall(autojump_clock, 2000)
        await trio.sleep(100)
        assert connection.statistics().silence == 2200
        assert connection.statistics().suspicion < 0.05
        await trio.sleep_until(7200 + 1700)
        assert connection.state is ConnectionState.OPEN


@pytest.mark.parametrize("kind", ["memory://", "tcp://127.0.0.1:0", "ws://127.0.0.1:0"])
async def test_what_comes_as_the_time_runs_out_is_heard(kind: str, mock_clock: MockClock) -> None:
    """A stall too short to be seen, in which the peer speaks: its bytes and the deadline come at once."""
    listener = await listen(kind)
    async with listener, trio.open_nursery() as nursery:
        peers: list[RawPeer] = []

        async def admit() -> None:
            peers.append(await RawPeer.admit(await listener.accept()))

        nursery.start_soon(admit)
        async with heartline.open_connection(listener.url, heartbeat=BRISK, reconnect=None) as connection:
            pulse = link_of(connection).session.pulse
            while pulse.next_check < pulse.heard + 3 or pulse.next_check > trio.current_time() + 0.04:
                mock_clock.jump(0.01)
                await rounds(10)
            nursery.start_soon(peers[0].send, data(b"x"))
            mock_clock.jump(0.06)
            await rounds(30)
            state = connection.state
            await trio.aclose_forcefully(peers[0].stream)
            await rounds(30)
        assert state is ConnectionState.OPEN


async def rounds(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


steps = st.lists(
    st.tuples(
        st.sampled_from(["traffic", "stall", "silence"]),
        st.floats(0.001, 4) | st.sampled_from([0.09, 0.1, 2.99, 3.0, 9.0, 1e4]),
    ),
    max_size=25,
)


@given(steps)
def test_silence_in_listened_to_time_and_nothing_else_ends_a_link(script: list[tuple[str, float]]) -> None:
    """A stall counts as listening for a turn at most; a bounded slack behind the timeout the link is lost."""
    turn = 3 / TURNS
    clock = MockClock(autojump_threshold=0)

    async def main() -> None:
        least = most = 0.0  # seconds in which this side may have listened, and heard nothing
        async with open_to_raw(heartbeat=BRISK) as (connection, peer):
            for what, seconds in script:
                if what == "traffic":
                    await peer.send(data(b"x"))
                    await settle()
                    least = most = 0.0
                elif what == "stall":
                    stall(clock, seconds)
                    await settle()
                    most += min(seconds, turn)
                else:
                    await trio.sleep(seconds)
                    await settle()
                    least, most = least + seconds, most + seconds
                if connection.state is not ConnectionState.OPEN:
                    assert most >= 3 * (1 - 1e-9)
                    return
                assert least <= 3 + 2 * turn

    trio.run(main, clock=clock)


# On the real clock


def block(seconds: float) -> None:
    time.sleep(seconds)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory://", "tcp://127.0.0.1:0", "unix", "ws://127.0.0.1:0"])
@pytest.mark.parametrize("waiting", [True, False])
async def test_a_blocked_loop_loses_nobody(kind: str, waiting: bool, tmp_path: Path) -> None:
    """Both ends in this program, each with a real clock, with bytes that wait and without."""
    async with (
        heartline.open_server(url_of(kind, tmp_path), heartbeat=QUICK) as server,
        heartline.open_connection(server.urls[0], heartbeat=QUICK) as client,
    ):
        there = server.connections[client.id]
        for pause in (0.0, 0.01, 0.03):
            await trio.sleep(pause)
            if waiting:
                await client.send(b"x")
                await there.send(b"y")
            block(3 * QUICK.timeout)
        await trio.sleep(2 * QUICK.timeout)
        assert client.state is there.state is ConnectionState.OPEN
        assert client.statistics().links == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp://127.0.0.1:0", "ws://127.0.0.1:0"])
async def test_what_waits_from_another_process_is_heard_first(kind: str) -> None:
    async with served(kind, Heartbeat(interval=0.1, timeout=5)) as (url, _process):
        heartbeat = Heartbeat(interval=0.1, timeout=0.5)
        async with heartline.open_connection(url, heartbeat=heartbeat) as client:
            block(3 * heartbeat.timeout)
            await trio.sleep(0.05)
            assert client.state is ConnectionState.OPEN
            assert client.statistics().silence < 0.5
            assert client.statistics().links == 1


SERVE = """
import sys, heartline, trio

async def main(url, interval, timeout):
    heartbeat = heartline.Heartbeat(interval=interval, timeout=timeout)
    async with heartline.open_server(url, heartbeat=heartbeat) as server:
        print(server.urls[0], flush=True)
        async for event in server.events():
            if isinstance(event, heartline.Closed):
                print(event.reason, flush=True)

trio.run(main, sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
"""


@asynccontextmanager
async def served(kind: str, heartbeat: Heartbeat) -> AsyncIterator[tuple[str, trio.Process]]:
    """A server in a process of its own: its URL, and why it lost whom it lost line by line."""
    command = [sys.executable, "-c", SERVE, kind, str(heartbeat.interval), str(heartbeat.timeout)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        yield await line(process), process
    finally:
        process.kill()
        await process.wait()
        assert process.stdout is not None
        await process.stdout.aclose()


async def line(process: trio.Process) -> str:
    assert process.stdout is not None
    got = b""
    while not got.endswith(b"\n"):
        got += await process.stdout.receive_some(1)
    return got.decode().strip()


@pytest.mark.slow
async def test_a_stopped_process_is_blamed_and_blames_nobody() -> None:
    heartbeat = Heartbeat(interval=0.2, timeout=0.6)
    async with served("tcp://127.0.0.1:0", heartbeat) as (url, process):
        async with heartline.open_connection(url, heartbeat=heartbeat, reconnect=None) as client:
            await trio.sleep(0.2)
            os.kill(process.pid, signal.SIGSTOP)
            try:
                (lost,) = [event async for event in client.events() if isinstance(event, Lost)]
                await trio.sleep(3 * heartbeat.timeout)
            finally:
                os.kill(process.pid, signal.SIGCONT)
        assert "nothing was heard" in str(lost.reason), "who runs notices"
        reason = await line(process)
        assert "nothing was heard" not in reason, "who was stopped does not know of any silence"
