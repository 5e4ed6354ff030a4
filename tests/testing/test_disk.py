"""A disk keeps what was synced, and a prefix of the rest at most."""

from __future__ import annotations

import errno
import random
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline.testing import Disk, Node, World
from heartline.testing._disk import DISK_SIZE

STEPS = st.lists(st.tuples(st.sampled_from(["write", "append", "sync"]), st.binary(max_size=20)))


@pytest.mark.slow
@given(steps=STEPS, seed=st.integers(0, 50))
def test_a_crash_leaves_what_was_synced_and_a_prefix_of_what_followed(
    steps: list[tuple[str, bytes]], seed: int
) -> None:
    disk = Disk(random.Random(seed))
    content, possible = b"", {b""}

    async def main() -> None:
        nonlocal content, possible
        for step, data in steps:
            if step == "sync":
                await disk.sync("f")
                possible = {content}
            elif step == "write":
                disk.write("f", data)
                possible |= {data[:n] for n in range(1, len(data) + 1)} | ({b""} if not data else set())
                content = data
            else:
                disk.append("f", data)
                possible |= {content + data[:n] for n in range(1, len(data) + 1)}
                content += data
            assert disk.read("f") == content
        disk.crash()
        found = disk.read("f")
        assert found in possible
        disk.crash()
        assert disk.read("f") == found  # what was found is durable

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_all_fates_happen() -> None:
    found = set()
    for seed in range(100):
        disk = Disk(random.Random(seed))
        disk.append("f", b"abc")
        disk.crash()
        found.add(disk.read("f"))
    assert found == {b"", b"a", b"ab", b"abc"}


async def test_two_syncs_at_once(autojump_clock: MockClock) -> None:
    for seed in range(20):
        disk = Disk(random.Random(seed))
        async with trio.open_nursery() as nursery:
            for part in (b"a", b"b", b"c"):
                disk.append("f", part)
                nursery.start_soon(disk.sync, "f")
                await trio.testing.wait_all_tasks_blocked()
        disk.crash()
        assert disk.read("f") == b"abc"


async def test_a_cancelled_sync_makes_nothing_durable(autojump_clock: MockClock) -> None:
    found = set()
    for seed in range(20):
        disk = Disk(random.Random(seed))
        disk.append("f", b"abc")
        with trio.CancelScope() as scope:
            scope.cancel()
            await disk.sync("f")
        disk.crash()
        found.add(disk.read("f"))
    assert b"" in found


def test_it_can_be_full() -> None:
    disk = Disk(random.Random(1))
    disk.write("a", bytes(DISK_SIZE))
    with pytest.raises(OSError, match="the disk is full") as caught:
        disk.append("b", b"x")
    assert caught.value.errno == errno.ENOSPC
    assert disk.read("b") == disk.read("never written") == b""
    assert disk.names == ("a", "b")


def test_a_node_finds_its_disk_again_and_a_dead_program_cannot_write() -> None:
    found: list[bytes] = []
    refused = []

    async def program(node: Node) -> None:
        found.append(node.disk.read("f"))
        try:
            node.disk.append("f", b"x")
            await node.disk.sync("f")
            await trio.sleep_forever()
        finally:
            for access in (partial(node.disk.append, "f", b"goodbye"), partial(node.disk.read, "f")):
                try:
                    access()
                except OSError as error:
                    refused.append(error.errno)

    async def main(world: World) -> None:
        node = world.node("a")
        node.start(program)
        for _ in range(3):
            await trio.sleep(1)
            node.crash()
            node.restart()
        await trio.sleep(1)
        assert node.disk.read("f") == b"xxxx"

    World(1).run(main)
    assert found == [b"", b"x", b"xx", b"xxx"]
    assert refused == [errno.EIO] * 6


def test_a_crash_of_a_node_is_one_of_its_disk() -> None:
    found = set()

    async def program(node: Node) -> None:
        node.disk.write("f", b"abc")
        with trio.CancelScope(shield=True):
            try:
                await node.disk.sync("f")
            except OSError:
                node_found_no_power.append(node.name)

    async def main(world: World) -> None:
        node = world.node("a")
        node.start(program)
        await trio.testing.wait_all_tasks_blocked()
        node.crash()
        await trio.sleep(1)
        found.add(node.disk.read("f"))

    node_found_no_power: list[str] = []
    for seed in range(30):
        World(seed).run(main)
    assert {b"", b"abc"} < found
    assert len(node_found_no_power) == 30
