"""What a trace tells: log lines, calls, updates and sessions of programs, and what the world did to them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

import heartline
from heartline.testing import Node, World
from heartline.testing._story import tell_story
from heartline.testing._trace import Trace, TraceEntry
from heartline.testing._witness import LINE_SIZE

from .helpers import BACKOFF, HEARTBEAT

logger = logging.getLogger("shop")


@heartline.service
class Shop:
    async def sell(self, thing: str) -> str:
        await trio.sleep(0.5)
        logger.info("sold %s", thing)
        return thing

    def sell_out(self) -> Any:
        raise ValueError("nothing left")


async def sell(node: Node) -> None:
    async with heartline.open_server("memory://shop", services=[Shop()], heartbeat=HEARTBEAT) as server:
        await server.publish("news", "open")
        await trio.sleep_forever()


async def buy(node: Node) -> None:
    async with heartline.open_connection(
        "memory://shop", identity="ada", heartbeat=HEARTBEAT, reconnect=BACKOFF
    ) as connection:
        shop = connection.service(Shop)
        await shop.sell("bread")
        try:
            await shop.sell_out()
        except heartline.RemoteError:
            pass
        with trio.move_on_after(0.1):
            await shop.sell("patience")
        await trio.sleep(10)
        try:
            await shop.sell("milk")
        except heartline.CallInterrupted:
            logger.warning("no milk", exc_info=True)
        await trio.sleep_forever()


async def shopping(world: World) -> None:
    world.node("shop").start(sell)
    world.node("ada").start(buy)
    await trio.sleep(5)
    world.link("shop", "ada").reset()
    await trio.sleep(6)
    world.node("shop").restart()
    await trio.sleep(20)


def tell(seed: int = 1) -> dict[str, list[str]]:
    """What each node is told to have done."""
    world = World(seed)
    world.run(shopping)
    told: dict[str, list[str]] = {}
    for entry in world.trace:
        told.setdefault(entry.node, []).append(entry.text)
    return told


def has(lines: list[str], begin: str, end: str = "") -> bool:
    return any(line.startswith(begin) and line.endswith(end) for line in lines)


def test_calls_and_updates_are_told() -> None:
    told = tell()
    assert "published 'news', update 1, 6 bytes" in told["shop"]
    assert "served Shop.sell: done after 0.500 s" in told["shop"]
    assert "served Shop.sell_out: failed after 0.000 s: ValueError: nothing left" in told["shop"]
    assert has(told["shop"], "served Shop.sell: cancelled after ")
    ada = told["ada"]
    assert has(ada, "called Shop.sell: answered after 0.")
    assert "called Shop.sell: cancelled after 0.100 s" in ada
    assert has(ada, "called Shop.sell_out: failed after ", "nothing left")
    assert has(ada, "called Shop.sell: failed after ", " or it has ended")
    assert any("s (maybe executed): CallInterrupted: " in line for line in ada)
    assert any("s (completed): RemoteError: " in line for line in ada)


def test_log_lines_are_told_of_programs_and_of_heartline() -> None:
    told = tell()
    assert "shop: sold bread" in told["shop"]
    assert has(told["ada"], "WARNING shop: no milk (CallInterrupted: Shop.sell: ", ")")
    assert has(told["shop"], "WARNING heartline.rpc: Shop.sell_out raised ValueError")


def test_sessions_are_told_with_the_names_of_nodes() -> None:
    told = tell()
    assert "heartline.server: ada at ada: let in" in told["shop"]
    assert has(told["ada"], "heartline.link: ada at memory://shop: lost: ")
    assert "heartline.link: ada at memory://shop: there is a link again, for its session" in told["ada"]
    assert "heartline.server: refused ada: there is no such session, or it has ended" in told["shop"]
    assert "heartline.link: ada at memory://shop: there is a link again, for a new session" in told["ada"]


@contextmanager
def levels(root: int, ours: int) -> Iterator[list[str]]:
    """The process is set up to log so; gives the messages that a handler of its own gets."""
    seen: list[str] = []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(f"{record.levelname} {record.name}")

    handler = Seen()
    loggers = {logging.getLogger(): root, logging.getLogger("heartline"): ours}
    before = {one: one.level for one in loggers}
    logging.getLogger().addHandler(handler)
    for one, level in loggers.items():
        one.setLevel(level)
    try:
        yield seen
        assert {one: one.level for one in loggers} == loggers
        assert not handler.filters
    finally:
        logging.getLogger().removeHandler(handler)
        for one, level in before.items():
            one.setLevel(level)


def test_how_a_process_logs_makes_no_difference_and_stays_as_it_is() -> None:
    with levels(logging.WARNING, logging.NOTSET) as usual:
        expected = tell()
    assert set(usual) == {"WARNING shop", "WARNING heartline.rpc"}
    with levels(logging.DEBUG, logging.ERROR) as strange:
        assert tell() == expected
    assert "INFO shop" in strange
    assert not any("heartline" in line for line in strange)
    with levels(logging.ERROR, logging.INFO) as other:
        assert tell() == expected
    assert "INFO heartline.server" in other
    assert not any("shop" in line for line in other)


def test_addresses_of_objects_are_left_out() -> None:
    class Thing:
        pass

    async def main(world: World) -> None:
        world.log("made", Thing())
        logger.info("made %r", Thing())

    world = World(1)
    world.run(main)
    assert [entry.text.rpartition(" ")[2] for entry in world.trace] == ["0x…>", "0x…>"]


def test_a_line_is_one_line_and_not_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    async def main(world: World) -> None:
        logger.info("two\nlines")
        logger.info("x" * 10_000)
        logger.info("%d", "no number")

    world = World(1)
    world.run(main)
    assert [entry.text for entry in world.trace] == ["shop: two lines", f"shop: {'x' * (LINE_SIZE)}…"]
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_thread_of_others_is_not_part_of_the_run() -> None:
    async def main(world: World) -> None:
        thread = threading.Thread(target=logger.info, args=["from elsewhere"])
        thread.start()
        thread.join()

    world = World(1)
    world.run(main)
    assert world.trace == []


def test_the_dead_say_nothing() -> None:
    async def program(node: Node) -> None:
        try:
            await trio.sleep_forever()
        finally:
            logger.error("dying")

    async def main(world: World) -> None:
        world.node("a").start(program)
        await trio.sleep(1)
        world.node("a").crash(silent=True)
        await trio.sleep(1)

    world = World(1)
    world.run(main)
    assert [entry.text for entry in world.trace] == ["starts", "crashes silently"]


def test_what_a_disk_loses_is_told() -> None:
    async def program(node: Node) -> None:
        node.disk.append("kept", b"abc")
        await node.disk.sync("kept")
        node.disk.append("lost", b"abc")
        node.crash(silent=False)

    async def main(world: World) -> None:
        world.node("a").start(program)
        await trio.sleep(1)

    texts = set()
    for seed in range(20):
        world = World(seed)
        world.run(main)
        texts |= {entry.text for entry in world.trace if entry.fault}
    lines = {f"its disk loses {lost} bytes of 'lost' that were not synced" for lost in (1, 2, 3)}
    assert texts == {"crashes", *lines}


def test_faults_are_told_however_old() -> None:
    async def main(world: World) -> None:
        link = world.link(world.node("a"), "world")
        world.log("begin")
        link.partition()
        for number in range(50):
            world.log(number)
        link.heal()
        for number in range(50, 60):
            world.log(number)

    world = World(1)
    world.run(main)
    lines = [line.split() for line in world.story(5).splitlines()]
    assert [" ".join(line[-2:]) for line in lines] == [
        "1 line",
        "world: partition",
        "50 lines",
        "world: heal",
        "5 lines",
        *(f"world {number}" for number in range(55, 60)),
    ]
    assert len(world.story().splitlines()) == len(world.trace)


def test_an_empty_story() -> None:
    assert tell_story(Trace().entries) == ""
    assert tell_story([TraceEntry(1.0, "a", "b")], 0) == ""
