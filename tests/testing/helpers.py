"""A small application for worlds, and pairs of streams across one link."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

import heartline
from heartline.testing import Link, Node, World
from tests.opening import open_listeners, open_stream

HEARTBEAT = heartline.Heartbeat(interval=0.5, timeout=2)
BACKOFF = heartline.Backoff(initial=0.05, maximum=1)


@heartline.service
class Adder:
    async def add(self, a: int, b: int) -> int:
        await trio.sleep(0.01)
        return a + b


async def serve(node: Node) -> None:
    async with heartline.open_server("memory://server", services=[Adder()], heartbeat=HEARTBEAT):
        await trio.sleep_forever()


async def count(node: Node, world: World, calls: int) -> None:
    """Call again and again, whatever happens."""
    while True:
        try:
            async with heartline.open_connection(
                "memory://server", heartbeat=HEARTBEAT, reconnect=BACKOFF
            ) as connection:
                for number in range(calls):
                    try:
                        result = await connection.service(Adder).add(number, 1)
                        world.log("added", result)
                    except heartline.CallError as error:
                        world.log("failed:", error)
                    await node.sleep(0.2)
                return
        except heartline.ConnectionFailed as error:
            world.log(error)
            await node.sleep(0.2)


async def stormy(world: World) -> None:
    """Everything that can happen happens, in an order that the seed draws."""
    server = world.node("server")
    server.start(serve)
    clients = [world.node(f"client {number}") for number in range(3)]
    for client in clients:
        client.start(count, world, 20)
    for _ in range(10):
        await trio.sleep(world.rng.uniform(0, 1))
        link = world.link(world.rng.choice(clients), server)
        world.rng.choice(
            [
                link.partition,
                link.reset,
                link.half_open,
                link.heal,
                lambda: link.clog(1.5),  # noqa: B023 - called at once
                server.restart,
                clients[0].crash,
            ]
        )()
    await world.heal_and_settle(lambda: not any(client.alive for client in clients), within=300)
    server.crash()
    assert not any(link.connections for link in world.links)


def storm(seed: int) -> tuple[str, list[str]]:
    """The digest and the trace of one storm."""
    world = World(seed)
    world.run(stormy)
    return world.digest(), [str(entry) for entry in world.trace]


async def nothing(_place: object) -> None:
    """A program that does nothing."""
    await trio.lowlevel.checkpoint()


Pair = tuple[trio.abc.Stream, trio.abc.Stream]


def across(
    main: Callable[[World, Link, trio.abc.Stream, trio.abc.Stream], Awaitable[None]], *, seed: int = 0
) -> World:
    """Run ``main`` with two ends of a stream: a program on node ``a``, and the caller outside of all nodes.

    The link has half a second of latency and nothing else.
    """

    async def run(world: World) -> None:
        link = exact(world.link("world", world.node("a")))
        ours, theirs = await open_pair(world)
        await main(world, link, ours, theirs)

    world = World(seed)
    world.run(run)
    return world


def exact(link: Link) -> Link:
    link.configure(latency=0.5, jitter=0, bandwidth=math.inf)
    return link


async def open_pair(world: World, name: str = "a") -> Pair:
    """A stream from outside of all nodes to the node ``name``; here both ends are held by the caller."""
    accepted: list[trio.abc.Stream] = []
    done = trio.Event()

    async def listen(_node: Node) -> None:
        (listener,) = await open_listeners(f"memory://{name}")
        accepted.append(await listener.accept())
        done.set()
        await listener.aclose()
        await trio.sleep_forever()

    node = world.node(name)
    if node.alive:
        node.crash()
    node.start(listen)
    ours = await open_stream(f"memory://{name}")
    await done.wait()
    return ours, accepted[0]


async def read(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    """Exactly so many bytes, or as many as there are before the end."""
    received = bytearray()
    while len(received) < size and (data := await stream.receive_some(size - len(received))):
        received += data
    return bytes(received)
