"""heartline itself, through its public API and with its default settings."""

from __future__ import annotations

import gc
import itertools
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio

import heartline
from heartline.observe import Proceed
from heartline.session import Heartbeat, Refuse, Role, Session, Welcome
from heartline.wire import Limits
from tests.benchmarks._load import trio_load
from tests.benchmarks._sockets import allow_descriptors, messages, private_kib

POLL_INTERVAL = 0.02
"""Seconds between looks at the number of connections: far below what opening them takes."""

WRITE_BUDGET = 64 * 1024
"""Bytes of one write of the raw handshake; a HELLO is far smaller."""

Report = Callable[[object], None]


@heartline.service()
class Adder:
    """The service that is called."""

    @heartline.method()
    def add(self, a: int, b: int) -> int:
        """Return the sum."""
        return a + b


class Idle(heartline.Observer):
    """Is told of every call, and does nothing."""

    def call_served(self, name: str, seconds: float, error: BaseException | None) -> None:
        """A call has ended."""


async def go_on(_operation: heartline.Operation, proceed: Proceed) -> Any:
    """Middleware that does nothing else."""
    return await proceed()


def serve_rpc(report: Report, **hooks: Any) -> None:
    """Serve `add` on a free port."""

    async def main() -> None:
        async with heartline.open_server("tcp://127.0.0.1:0", services=[Adder()], **hooks) as server:
            report(server.urls[0])
            await trio.sleep_forever()

    trio.run(main)


def serve_rpc_inside_middleware(report: Report) -> None:
    """Serve `add` inside middleware that does nothing."""
    serve_rpc(report, middleware=[go_on])


def serve_rpc_observed(report: Report) -> None:
    """Serve `add` under the eyes of an observer that does nothing."""
    serve_rpc(report, observers=[Idle()])


def load_rpc(report: Report, url: str, plan: list[tuple[int, float]]) -> None:
    """Report the calls per second of each (in flight, seconds) of the plan."""

    async def main() -> None:
        async with heartline.open_connection(url) as connection:
            add = heartline.remote(connection.service(Adder).add)
            report([await trio_load(add, in_flight, seconds) for in_flight, seconds in plan])

    trio.run(main)


def handshake(sock: socket.socket) -> None:
    """Say HELLO and wait for WELCOME, with the session's own sans-IO core."""
    session = Session(Role.CLIENT, limits=Limits(), heartbeat=Heartbeat(), now=time.monotonic())
    session.hello()
    sock.sendall(b"".join(session.take(WRITE_BUDGET, time.monotonic())))
    while True:
        data = sock.recv(4096)
        for event in session.receive(data, time.monotonic()):
            if isinstance(event, Welcome):
                return
            if isinstance(event, Refuse):
                raise ConnectionError(f"the server refused: {event.reason}")
        if not data:
            raise ConnectionError("the server closed the connection instead of answering HELLO")


async def _until(server: heartline.Server, count: int) -> None:
    while len(server.connections) < count:
        await trio.sleep(POLL_INTERVAL)


def serve_broadcast(report: Report, subscribers: int, count: int) -> None:
    """Publish `count` messages once all subscribers are there."""

    async def main() -> None:
        async with heartline.open_server("tcp://127.0.0.1:0") as server:
            report(urlsplit(server.urls[0]).port)
            await _until(server, subscribers)
            report(time.monotonic())
            for message in messages(count):
                await server.broadcast(message)
            await trio.sleep_forever()

    allow_descriptors(subscribers)
    trio.run(main)


def publish_durable(report: Report, publishers: int, seconds: float) -> None:
    """Report the updates per second of so many publishers at once."""
    (message,) = messages(1)

    async def main() -> None:
        count = 0

        async def publish() -> None:
            nonlocal count
            while True:
                await server.publish("topic", message, wait="stored")
                count += 1

        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            async with heartline.SqliteStore(Path(folder) / "store") as store:
                topics = {"topic": heartline.TopicSettings(store=store)}
                async with heartline.open_server("memory://durable", topics=topics) as server:
                    start = time.perf_counter()
                    with trio.move_on_after(seconds):
                        async with trio.open_nursery() as nursery:
                            for _ in range(publishers):
                                nursery.start_soon(publish)
                    rate = count / (time.perf_counter() - start)
        report(rate)  # which may be the end of this process: the folder is gone by now

    trio.run(main)


def serve_idle(report: Report, *stages: int) -> None:
    """Report the memory at each number of connections."""

    async def main() -> None:
        async with heartline.open_server("tcp://127.0.0.1:0") as server:
            report(urlsplit(server.urls[0]).port)
            for stage in stages:
                await _until(server, stage)
                gc.collect()
                report(private_kib())
            await trio.sleep_forever()

    allow_descriptors(stages[-1])
    trio.run(main)


def serve_federated(report: Report, clients: int, rounds: int, parameters: int) -> None:
    """Train with all clients in every round; report the seconds between the ends of aggregations."""
    import numpy as np

    from heartline.federated import Trainer

    async def main() -> None:
        model = np.random.default_rng(0).standard_normal(parameters, dtype=np.float32)
        async with heartline.open_server("tcp://127.0.0.1:0") as server:
            report(server.urls[0])
            trainer = Trainer(server, [model], minimum=clients)
            ends = []
            async for round_report in trainer.run(rounds):
                if len(round_report.samples) != clients:
                    raise AssertionError(f"round {round_report.round}: {round_report.dropped}")
                ends.append(time.perf_counter())
            report([end - start for start, end in itertools.pairwise(ends)])
            await trainer.finish()

    trio.run(main)


def learn(report: Report, address: str) -> None:
    """Take part with a `train` that returns the model it was given."""
    from heartline.federated import Learner, Model, TrainResult, run_learner

    class Idle(Learner):
        def train(self, model: Model, config: object) -> TrainResult:
            return TrainResult(model=model, samples=1)

    trio.run(run_learner, address, Idle())
    report("done")
