"""The server of the federation: it serves calls, publishes, talks with everybody, and trains."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import trio

import heartline
from fuzz.world.notes import LIMITS, SIZES, Notes, Stream
from heartline.federated import Trainer
from heartline.testing import DiskStore, Node
from tests.engine import core_of, link_of

__all__ = ["LEARNERS", "ROUNDS", "Ledger", "heartbeat_of", "initial_model", "run_hub"]

LEARNERS = ("lea", "leo")
ROUNDS = 3
KEEP = 20
"""Updates that the durable topic retains: whoever is away for long is told of a gap."""


@heartline.service
class Ledger:
    """Notes each call that it executes."""

    def __init__(self, notes: Notes, sleep: Callable[[float], Any]) -> None:
        self._notes, self._sleep = notes, sleep

    def enter(self, call: str, payload: bytes) -> int:
        """Executed in the moment in which it arrives."""
        self._notes.calls.executed(call)
        if link_of(heartline.current_connection()).session._assembly.halves:
            self._notes.note("mark: passed a message in fragments")
        return len(payload)

    async def enter_slowly(self, call: str, payload: bytes, seconds: float) -> int:
        """Executed, and answered later: often on another link."""
        self._notes.calls.executed(call)
        await self._sleep(seconds)
        return len(payload)


def heartbeat_of(node: Node) -> heartline.Heartbeat:
    """Heartbeats by the node's own clock."""
    return heartline.Heartbeat(interval=node.stretch(2.0), timeout=node.stretch(6.0))


def initial_model() -> list[Any]:
    """The model that the training begins with."""
    return [np.zeros(40, np.float32), np.ones((3, 3), np.float32)]


def count(state: dict[str, int], value: Any) -> dict[str, int]:
    """The state of the durable topic: how many updates there were, and their sum."""
    return {"count": state.get("count", 0) + 1, "sum": state.get("sum", 0) + value[0]}


async def run_hub(node: Node, notes: Notes, folder: Path) -> None:
    """The program of the node."""
    async with DiskStore(node.disk, clock=node.time) as store:
        await _serve(node, notes, folder, store)
    notes.left.set()


async def _serve(node: Node, notes: Notes, folder: Path, store: DiskStore) -> None:
    topics = {
        "orders": heartline.TopicSettings(
            store=store, history=heartline.History(count=KEEP), fold=heartline.Fold(apply=count)
        )
    }
    async with (
        heartline.open_server(
            "memory://hub",
            services=[Ledger(notes, node.sleep)],
            topics=topics,
            heartbeat=heartbeat_of(node),
            limits=LIMITS,
            rng=node.rng,
        ) as server,
        trio.open_nursery() as nursery,
    ):
        notes.server = server
        notes.last_order = max(notes.last_order, await _last(store))
        nursery.start_soon(_publish_orders, node, notes, server)
        nursery.start_soon(_publish_ticks, node, notes, server)
        nursery.start_soon(_read, node, notes, server)
        nursery.start_soon(_watch, notes, server)
        nursery.start_soon(_send, node, notes, server)
        nursery.start_soon(_train, node, notes, server, folder)
        await notes.leave.wait()
        nursery.cancel_scope.cancel()


async def _last(store: DiskStore) -> int:
    saved = await store.load("orders", "")
    return saved.last


async def _publish_orders(node: Node, notes: Notes, server: heartline.Server) -> None:
    for number in itertools.count():
        await node.sleep(node.rng.uniform(0, 2))
        if notes.quiet.is_set():
            continue
        value = [number, bytes(node.rng.choice([0, 100, 3000]))]
        wait: Any = node.rng.choice(["stored", "stored", "confirmed"])
        receipt = await server.publish("orders", value, wait=wait, timeout=node.rng.choice([0.5, 5.0]))
        notes.note("updates")
        notes.same_epoch("orders", receipt.epoch)
        assert receipt.offset > notes.last_order, "an offset was given out again"
        notes.last_order = receipt.offset
        for name in receipt.confirmed if wait == "confirmed" else ():
            notes.delivery.confirmed(name, receipt.offset)
            notes.note("confirmations")


async def _publish_ticks(node: Node, notes: Notes, server: heartline.Server) -> None:
    for number in itertools.count():
        await node.sleep(1)
        if not notes.quiet.is_set():
            await server.publish("ticks", number)


async def _read(node: Node, notes: Notes, server: heartline.Server) -> None:
    """Take what the members send, now and then slowly, so that they run out of credit."""
    async for message in server.messages():
        stream, number, _ = message.value
        notes.order.observe(stream, number)
        notes.note("messages")
        if node.rng.random() < 0.1:
            await node.sleep(node.rng.uniform(0, 2))


async def _watch(notes: Notes, server: heartline.Server) -> None:
    """Note which sessions expired."""
    async for event in server.events():
        if isinstance(event, heartline.Closed) and not notes.quiet.is_set():
            # Those of the end, when all members have gone, would be in every run.
            notes.note("mark: a session expired", "resume_window" in str(event.reason))


async def _send(node: Node, notes: Notes, server: heartline.Server) -> None:
    """Numbered messages to everybody: a stream for each session, for they end together."""
    streams: dict[Any, Stream] = {}
    while True:
        await node.sleep(node.rng.uniform(0, 1))
        for connection in server.connections.values():
            notes.check_bounds(connection)
            link = core_of(connection).link
            if notes.quiet.is_set() or link is None or connection.id not in notes.reached:
                continue
            if link not in streams:
                streams[link] = Stream(notes, f"hub to {connection.id}")
            streams[link].send_next(connection, node.rng.choice(SIZES))


async def _train(node: Node, notes: Notes, server: heartline.Server, folder: Path) -> None:
    trainer = Trainer(
        server,
        initial_model(),
        minimum=len(LEARNERS),
        patience=1e6,
        checkpoint=folder / "checkpoint",
        rng=node.rng,
    )
    async for report in trainer.run(ROUNDS):
        assert set(report.samples) == set(LEARNERS), report
        notes.note("rounds")
    result = [array.tobytes() for array in trainer.model]
    assert notes.result in (None, result), "the finished model has changed"
    notes.result = result
    await notes.quiet.wait()
    await trainer.finish(timeout=60)
