"""The clients of the federation, which call, follow topics and send, and its learners."""

from __future__ import annotations

from typing import Any

import trio

import heartline
from fuzz.world.hub import Ledger, count, heartbeat_of
from fuzz.world.notes import LIMITS, SIZES, Notes, Stream
from heartline.errors import CallError
from heartline.federated import Learner, TrainResult, run_learner
from heartline.testing import Node
from tests.engine import core_of

__all__ = ["run_member", "run_pupil"]

AGAIN = heartline.Backoff(initial=0.2, maximum=2.0)


async def run_member(node: Node, notes: Notes) -> None:
    """The program of a client: one connection for everything, for as long as it lives."""
    while True:
        try:
            await _take_part(node, notes)
        except heartline.ConnectionFailed:
            await node.sleep(0.5)  # the hub is not there yet


async def _take_part(node: Node, notes: Notes) -> None:
    async with (
        heartline.open_connection(
            "memory://hub",
            identity=node.name,
            heartbeat=heartbeat_of(node),
            limits=LIMITS,
            reconnect=AGAIN,
            rng=node.rng,
        ) as connection,
        trio.open_nursery() as nursery,
    ):
        notes.reached.setdefault(node.name, 0)
        nursery.start_soon(_read, notes, connection)
        nursery.start_soon(_watch, notes, connection)
        nursery.start_soon(_follow_orders, node, notes, connection)
        nursery.start_soon(_follow_ticks, node, notes, connection)
        nursery.start_soon(_follow_state, notes, connection)
        for _ in range(2):
            nursery.start_soon(_call, node, notes, connection)
        nursery.start_soon(_send, node, notes, connection)


async def _read(notes: Notes, connection: heartline.Connection) -> None:
    """Take the hub's messages."""
    async for stream, number, _ in connection.messages():
        notes.order.observe(stream, number)
        notes.note("messages")


async def _watch(notes: Notes, connection: heartline.Connection) -> None:
    """Note what became of the sessions."""
    async for event in connection.events():
        if isinstance(event, heartline.Reconnected):
            notes.note("mark: resumed" if event.resumed else "mark: began a new session")


# Topics


async def _follow_orders(node: Node, notes: Notes, connection: heartline.Connection) -> None:
    """Handle each update once: the place is kept on the disk."""
    stream = f"orders at {node.name}"
    since: Any = _saved_place(node) or "oldest"
    node.disk.append("places", b"\n")  # a crash may have left a part of a line
    first = since == "oldest"
    if not first:
        notes.order.begin(stream, since.offset)
    async with connection.subscribe("orders", since=since) as updates:
        while True:
            update = await anext(updates)
            if isinstance(update, heartline.Gap):
                notes.note("mark: a gap was told")
                notes.order.told_gap(stream)
                continue
            if first:
                notes.order.begin(stream, update.offset - 1)
                first = False
            notes.order.observe(stream, update.offset)
            notes.same_epoch("orders", update.epoch)
            node.disk.append("places", f"{update.epoch} {update.offset};\n".encode())
            await node.disk.sync("places")
            notes.delivery.delivered(node.name, update.offset)
            notes.reached[node.name] = update.offset
            notes.note("updates handled")


def _saved_place(node: Node) -> heartline.Position | None:
    """The last place that is whole."""
    whole = [line for line in node.disk.read("places").decode().splitlines() if line.endswith(";")]
    if not whole:
        return None
    epoch, offset = whole[-1].removesuffix(";").split()
    return heartline.Position(epoch, int(offset))


async def _follow_ticks(node: Node, notes: Notes, connection: heartline.Connection) -> None:
    """Only the newest counts, but never an older one."""
    async with connection.subscribe("ticks", since="newest", policy="keep newest") as ticks:
        async for tick in ticks:
            assert isinstance(tick, heartline.Update)
            notes.versions.observe(f"{node.name}'s ticks", tick.epoch, tick.offset)
            await node.sleep(node.rng.uniform(0, 3))


async def _follow_state(notes: Notes, connection: heartline.Connection) -> None:
    """The state, and what follows it: together what the hub has."""
    state: dict[str, int] = {}
    async with connection.subscribe("orders", since="snapshot") as updates:
        async for update in updates:
            assert isinstance(update, heartline.Update)
            state = dict(update.value) if update.snapshot else count(state, update.value)
            assert state.get("count", 0) == update.offset, "a gap or an overlap behind the state"
            notes.note("states")


# Calls and messages


async def _call(node: Node, notes: Notes, connection: heartline.Connection) -> None:
    ledger = connection.service(Ledger)
    while True:
        await node.sleep(node.rng.uniform(0, 2))
        if notes.quiet.is_set():
            continue
        call = f"{node.name} {notes.seen['calls']}"
        notes.note("calls")
        notes.calls.called(call)
        payload = bytes(node.rng.choice([0, 10, 5000]))
        ended = False
        try:
            with trio.move_on_after(node.rng.choice([0.3, 20.0, 1000.0])):
                if node.rng.random() < 0.5:
                    answer = await heartline.remote(ledger.enter)(call, payload)
                else:
                    answer = await ledger.enter_slowly(call, payload, node.rng.uniform(0, 5))
                assert answer == len(payload)
                notes.calls.returned(call)
                ended = True
        except CallError as error:
            notes.calls.failed(call, error)
            notes.note(f"call: {error.outcome.value}")
            ended = True
            await node.sleep(0.5)
        finally:
            if not ended:
                notes.calls.abandoned(call)


async def _send(node: Node, notes: Notes, connection: heartline.Connection) -> None:
    """Numbered messages: a stream for each session."""
    session: Any = None
    stream = Stream(notes, node.name)
    while True:
        await node.sleep(node.rng.uniform(0, 1))
        notes.check_bounds(connection)
        if core_of(connection).link is not session:
            session, stream = core_of(connection).link, Stream(notes, node.name)
        if not notes.quiet.is_set():
            stream.send_next(connection, node.rng.choice(SIZES))


# Learning


class Pupil(Learner):
    """Trains by a rule that depends on nothing but the model and the learner."""

    def __init__(self, node: Node, notes: Notes, number: int) -> None:
        self._node, self._notes, self._number = node, notes, number

    async def train(self, model: list[Any], config: dict[str, Any]) -> TrainResult:
        await self._node.sleep(self._node.rng.choice([0.1, 1.0, 6.0]))
        return trained(model, self._number)


def trained(model: list[Any], number: int) -> TrainResult:
    """What a learner makes of a model."""
    return TrainResult(
        model=[(array * 0.5 + number).astype(array.dtype) for array in model], samples=number + 1
    )


async def run_pupil(node: Node, notes: Notes, number: int) -> None:
    """The program of a learner: it ends with the training."""

    def see(_model: Any, version: int) -> None:
        notes.versions.observe(node.name, "training", version)
        notes.note("models")

    while True:
        try:
            await run_learner(
                "memory://hub",
                Pupil(node, notes, number),
                identity=node.name,
                on_push=see,
                heartbeat=heartbeat_of(node),
                limits=LIMITS,
                reconnect=AGAIN,
                rng=node.rng,
            )
            return
        except heartline.ConnectionFailed:
            await node.sleep(1)
