"""Servers with stores that restart: at any point of a script, and as processes that are killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import heartline
from heartline import Backoff, Position, Server, TopicSettings, Update
from tests.patience import PATIENCE
from tests.ports import free_port
from tests.push.durable_world import COMMANDS, simulate
from tests.push.helpers import open_client, open_topics, take_gap, take_values
from tests.push.stores import Places

scripts = st.lists(st.tuples(st.sampled_from(COMMANDS), st.integers(1, 20)), max_size=25)


@pytest.mark.slow
@given(st.sampled_from([1, 3, 1000]), st.integers(0, 2**32), scripts)
def test_everything_is_published_once_whatever_restarts(
    history: int, seed: int, script: list[tuple[str, int]]
) -> None:
    simulate(Places("fake", Path()), history, seed, script)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_the_same_with_a_file(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    script = [(rng.choice(COMMANDS), rng.randint(1, 20)) for _ in range(20)]
    simulate(Places("sqlite", tmp_path), rng.choice([1, 3, 1000]), seed, script, patience=0.02)


async def test_a_subscriber_that_was_away_gets_what_it_missed(tmp_path: Path) -> None:
    places = Places("sqlite", tmp_path)
    async with places.open() as store, open_topics(topics={"topic": TopicSettings(store=store)}) as server:
        async with open_client(server) as client, client.subscribe("topic") as topic:
            for value in range(3):
                receipt = await server.publish("topic", value)
            assert await take_values(topic, 1) == [0]
            position = topic._following._since
        missed = await server.publish("topic", "missed")
    async with places.open() as store, open_topics(topics={"topic": TopicSettings(store=store)}) as server:
        assert (await server.publish("topic", "new")).epoch == receipt.epoch == position[0]
        async with open_client(server) as client:
            async with client.subscribe("topic", since=Position(receipt.epoch, 1)) as topic:
                assert await take_values(topic, 4) == [1, 2, "missed", "new"]
                assert missed.offset == 4


async def test_a_backup_is_never_taken_for_the_history(tmp_path: Path) -> None:
    """Who knows an update that the backup does not is told, before its offset is reached again and after."""
    places = Places("sqlite", tmp_path)

    async def publish(server: Server, *values: str) -> Position:
        for value in values:
            receipt = await server.publish("topic", value)
        return Position(receipt.epoch, receipt.offset)

    async with places.open() as store, open_topics(topics={"topic": TopicSettings(store=store)}) as server:
        await publish(server, "one")
    backup = (tmp_path / "store").read_bytes()
    async with places.open() as store, open_topics(topics={"topic": TopicSettings(store=store)}) as server:
        position = await publish(server, "two", "three")
    (tmp_path / "store").write_bytes(backup)
    async with places.open() as store, open_topics(topics={"topic": TopicSettings(store=store)}) as server:
        async with open_client(server) as client, client.subscribe("topic", since=position) as topic:
            gap = await take_gap(topic)
            assert (gap.gap.first, gap.newest.value, gap.gap.anew) == (4, "one", True)
    async with places.open() as store:
        await store.begin_anew()
        async with open_topics(topics={"topic": TopicSettings(store=store)}) as server:
            newest = await publish(server, "2", "3", "4")
            assert newest.epoch != position.epoch
            async with open_client(server) as client, client.subscribe("topic", since=position) as topic:
                gap = await take_gap(topic)
                assert (gap.gap.first, gap.newest.value, gap.gap.anew) == (4, "4", True)


PUBLISHER = """
import sys
import heartline, trio

async def main(url, path):
    async with heartline.SqliteStore(path) as store:
        topics = {"topic": heartline.TopicSettings(store=store, history=heartline.History(count=10**5))}
        async with heartline.open_server(url, topics=topics) as server:
            first = (await server.publish("topic", "begin")).offset + 1
            print("ready", flush=True)
            async with trio.open_nursery() as nursery:
                for publisher in range(8):
                    nursery.start_soon(publish, server, first, publisher)

async def publish(server, first, publisher):
    number = 0
    while True:
        receipt = await server.publish("topic", [first, publisher, number], wait="stored")
        print("stored", receipt.offset, first, publisher, number, flush=True)
        number += 1

trio.run(main, *sys.argv[1:])
"""


class Killed:
    """A publisher's process, and what it has said is stored."""

    def __init__(self, url: str, path: Path) -> None:
        self._command = [sys.executable, "-c", PUBLISHER, url, str(path)]
        self.stored: dict[int, list[int]] = {}

    async def live(self, count: int) -> None:
        """Run until it has stored some more, then kill it."""
        process = await trio.lowlevel.open_process(self._command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        enough, rest = len(self.stored) + count, b""
        killed = False
        try:
            # What it has written before the kill is read to the end: that was stored.
            while data := await process.stdout.receive_some():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.startswith(b"stored "):
                        offset, *value = map(int, line.split()[1:])
                        assert self.stored.setdefault(offset, value) == value
                if len(self.stored) >= enough and not killed:
                    process.send_signal(signal.SIGKILL)
                    killed = True
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdout.aclose()


@pytest.mark.slow
async def test_a_publisher_that_is_killed_in_the_middle(tmp_path: Path) -> None:
    """Every update that was stored arrives once and in order, over several kills."""
    url = f"tcp://127.0.0.1:{free_port()}"
    publisher = Killed(url, tmp_path / "store")
    seen: dict[int, object] = {}
    last = 0
    connected = trio.Event()

    async def live_and_die() -> None:
        nonlocal last
        kills = 0
        while kills < 4:
            await publisher.live(100)
            kills += connected.is_set()
        last = max(publisher.stored)
        await publisher.live(10**9)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live_and_die)
            async with (
                open_patiently(url) as client,
                client.subscribe("topic", since="oldest") as topic,
            ):
                connected.set()
                async for update in topic:
                    assert isinstance(update, Update)
                    assert update.offset == len(seen) + 1
                    seen[update.offset] = update.value
                    if last and update.offset > last:
                        break
            nursery.cancel_scope.cancel()
    assert client.statistics().links > 1
    for offset in range(1, last + 1):
        assert offset not in publisher.stored or seen[offset] == publisher.stored[offset]


@asynccontextmanager
async def open_patiently(url: str) -> AsyncIterator[heartline.Connection]:
    """A client of a server that may not be there yet."""
    while True:
        client = heartline.open_connection(url, reconnect=Backoff(initial=0.05, maximum=0.2))
        try:
            connection = await client.__aenter__()
        except heartline.ConnectionFailed:
            await trio.sleep(0.05)
        else:
            break
    try:
        yield connection
    finally:
        await client.__aexit__(None, None, None)
