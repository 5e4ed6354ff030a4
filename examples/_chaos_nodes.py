"""The programs of the chaos demo's nodes: a hub, clients and learners. They know nothing of a simulation.

What makes them survive everything are a few habits:

- a call that failed is repeated, and carries a name by which the hub knows it again;
- who follows a topic notes on its disk how far it has come;
- who sends messages asks the other side at the beginning of a session how far *it* has come.

All between that, every broken link among it, is the library's business.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import trio
from _chaos_disk import Notebook, NotebookStore
from _chaos_records import LEARNERS, ROUNDS, Records

import heartline
from heartline.federated import FedAvg, Learner, Model, Trainer, TrainResult, run_learner
from heartline.testing import Node, World

URL = "memory://hub"
HEARTBEAT = heartline.Heartbeat(interval=1, timeout=3)
LIMITS = heartline.Limits(resume_window=15)
RECONNECT = heartline.Backoff(initial=0.2, maximum=2)
HISTORY = heartline.History()
PAUSE = 0.2, 1.5  # seconds between two orders or messages of a client, at least and at most
TRAINING_TIME = 0.5, 4.0  # seconds that a learner takes for a round


# The hub


class Mailbox:
    """The messages of the clients, which number them; they are safe here when they are on the disk."""

    def __init__(self, node: Node, records: Records) -> None:
        self._records = records
        self._notes = Notebook(node.disk, "messages")
        self._last: dict[str, int] = {}
        for line in self._notes.lines:
            client, number = line.split()
            self._last[client] = int(number)

    def last(self, client: str) -> int:
        """The newest message of a client; 0 if there is none."""
        return self._last.get(client, 0)

    async def take(self, client: str, number: int) -> None:
        """Take the next message of a client. Any other is known, or will come again in its turn."""
        if number == self.last(client) + 1:
            await self._notes.add(f"{client} {number}")
            self._records.received[client] = self._last[client] = number


@heartline.service
class Hub:
    """What clients can call."""

    def __init__(self, mailbox: Mailbox, records: Records) -> None:
        self.server: heartline.Server
        self._mailbox = mailbox
        self._records = records

    async def order(self, call: int, order: str) -> None:
        """Publish an order; the topic knows one that it has already by its key."""
        self._records.executed[call] += 1
        receipt = await self.server.publish("orders", order, key=order)
        self._records.published = max(self._records.published, receipt.offset)

    async def last_message(self) -> int:
        """The newest message of the caller that is safe here."""
        return self._mailbox.last(heartline.current_connection().id)


async def run_hub(node: Node, world: World, records: Records, folder: Path) -> None:
    """The hub's program. Orders and messages are on its disk, the model is in ``folder``."""
    mailbox = Mailbox(node, records)
    hub = Hub(mailbox, records)
    orders = heartline.TopicSettings(store=NotebookStore(node.disk), history=HISTORY)
    async with (
        heartline.open_server(
            URL, services=[hub], topics={"orders": orders}, heartbeat=HEARTBEAT, limits=LIMITS, rng=node.rng
        ) as hub.server,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(lead_training, hub.server, world, records, folder)
        nursery.start_soon(take_messages, hub.server, mailbox)
        async for event in hub.server.events():
            match event:
                case heartline.Opened(connection):
                    records.sessions["began"] += 1
                    world.log(f"{connection.id} begins a session")
                case heartline.Lost(connection, reason):
                    records.sessions["lost"] += 1
                    world.log(f"{connection.id} is lost: {reason}")
                case heartline.Reconnected(connection):
                    records.sessions["resumed"] += 1
                    world.log(f"{connection.id} is back and resumes its session")


async def take_messages(server: heartline.Server, mailbox: Mailbox) -> None:
    """Put what clients send into the mailbox."""
    async for message in server.messages():
        await mailbox.take(message.connection.id, message.value)


async def lead_training(server: heartline.Server, world: World, records: Records, folder: Path) -> None:
    """Train, from where the checkpoint is; a round waits for each learner, however long it is away."""
    trainer = Trainer(
        server,
        first_model(),
        minimum=len(LEARNERS),
        patience=1000,
        checkpoint=folder / "checkpoint",
    )
    async for report in trainer.run(ROUNDS):
        records.rounds = report.round
        world.log(f"round {report.round} of the training is over")
    records.rounds, records.model = trainer.version, trainer.model
    while not records.closing:  # noqa: ASYNC110 - some seconds, once
        await trio.sleep(1)
    await trainer.finish(timeout=60)
    await trio.sleep_forever()


# The clients


async def run_client(node: Node, world: World, records: Records) -> None:
    """A client's program: one connection for everything, for as long as it lives."""
    while True:
        try:
            async with heartline.open_connection(
                URL, identity=node.name, heartbeat=HEARTBEAT, limits=LIMITS, reconnect=RECONNECT, rng=node.rng
            ) as connection:
                records.connections[node.name] = connection
                async with trio.open_nursery() as nursery:
                    for task in (place_orders, follow_orders, send_messages):
                        nursery.start_soon(task, node, world, records, connection)
        except* heartline.ConnectionFailed:
            await node.sleep(0.5)  # nobody is there for the first connection


async def place_orders(node: Node, world: World, records: Records, connection: heartline.Connection) -> None:
    """Place one order after the other, each of them until there is an answer."""
    hub = connection.service(Hub)
    placed = Notebook(node.disk, "placed orders")
    while True:
        await node.sleep(node.rng.uniform(*PAUSE))
        order = f"{node.name}-{len(placed.lines) + 1}"
        if records.closing and order not in records.orders:
            continue
        records.orders.setdefault(order, False)
        records.calls["made"] += 1
        end = "crashed"
        try:
            await hub.order(records.calls["made"], order)
            end = "answered"
        except heartline.CallError as error:
            end = "failed"
            world.log(f"repeats {order}: {error}")
        finally:
            records.calls[end] += 1
        if end == "answered":
            records.orders[order] = True
            await placed.add(order)


async def follow_orders(node: Node, world: World, records: Records, connection: heartline.Connection) -> None:
    """Handle each update once, from where the disk says."""
    places = Notebook(node.disk, "places")
    since: Any = "oldest"
    if places.lines:
        epoch, offset = places.lines[-1].split()
        since = heartline.Position(epoch, int(offset))
    async with connection.subscribe("orders", since=since) as updates:
        while True:
            update = await anext(updates)
            if isinstance(update, heartline.Gap):  # does not happen: the history is long enough
                world.log(str(update))
                continue
            await places.add(f"{update.epoch} {update.offset}")
            records.handled[node.name][update.value] += 1


async def send_messages(node: Node, world: World, records: Records, connection: heartline.Connection) -> None:
    """Send numbered messages; a session loses none, and a new one goes on where the hub is."""
    hub = connection.service(Hub)
    written = Notebook(node.disk, "messages")
    session = sent = 0
    while True:
        await node.sleep(node.rng.uniform(*PAUSE))
        if not records.closing:
            await written.add(str(len(written.lines) + 1))
            records.sent[node.name] = len(written.lines)
        statistics = connection.statistics()
        current = statistics.links - statistics.resumed  # how many sessions this connection has had
        try:
            if session != current:
                sent = await hub.last_message()
                session = current
            while sent < len(written.lines):
                await connection.send(sent + 1)
                sent += 1
        except (heartline.CallError, heartline.ConnectionLost):
            pass  # the session is over, and the next one will begin where the hub is


# The learners


class Pupil(Learner):
    """Trains by a rule that depends on nothing but the model and the learner, so that the result is known."""

    def __init__(self, node: Node, records: Records) -> None:
        self._node, self._records = node, records

    async def train(self, model: Model, config: dict[str, Any]) -> TrainResult:
        """Train a round, which takes a while."""
        self._records.connections[self._node.name] = heartline.current_connection()
        await self._node.sleep(self._node.rng.uniform(*TRAINING_TIME))
        return trained(model, self._node.name)


async def run_pupil(node: Node, _world: World, records: Records) -> None:
    """A learner's program: it ends with the training."""
    take_part = partial(
        run_learner,
        URL,
        identity=node.name,
        heartbeat=HEARTBEAT,
        limits=LIMITS,
        reconnect=RECONNECT,
        rng=node.rng,
    )
    await take_part(Pupil(node, records), patience=1000)
    records.finished.append(node.name)


def first_model() -> Model:
    """The model that the training begins with."""
    return [np.zeros(100)]


def trained(model: Model, learner: str) -> TrainResult:
    """What a learner makes of a model."""
    number = 1 + LEARNERS.index(learner)
    return TrainResult(model=[array * 0.7 + number for array in model], samples=number)


def expected_model() -> Model:
    """What the training brings in a world without faults."""
    model = first_model()
    for number in range(1, ROUNDS + 1):
        aggregation = FedAvg().start_round(model, number)
        for name in LEARNERS:
            aggregation.add(name, trained(model, name))
        model = aggregation.finish()
    return model
