"""A loopback TCP proxy that spoils the links which go through it: by a plan, or when it is told to.

Each direction of each link has a :class:`Course`: how late and how fast its bytes are, and what befalls it
behind which byte. Nothing here knows the protocol.
"""

from __future__ import annotations

import enum
import math
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import trio

CHUNK = 64 * 1024
"""Bytes read at a time."""

IN_FLIGHT = 16
"""Chunks of one direction that are under way: what a slow course holds before its sender has to wait."""

HANDSHAKE = 2000
"""Bytes: in so many a handshake is over."""


class Way(enum.Enum):
    """A direction of a link."""

    UP = "client to server"
    DOWN = "server to client"

    @property
    def back(self) -> Way:
        return Way.DOWN if self is Way.UP else Way.UP


class Fault(enum.Enum):
    """What befalls a direction."""

    DROP = "everything from here on is lost, the end too: half open"
    FIN = "both directions end, as if both sides had closed"
    RESET = "both directions are reset"
    HALF_CLOSE = "this direction ends, the other one goes on"


@dataclass(frozen=True, kw_only=True)
class Course:
    """One direction of one link."""

    latency: float = 0.0
    """Seconds that a byte is under way."""
    jitter: float = 0.0
    """Seconds more, at random, for each chunk."""
    bandwidth: float = math.inf
    """Bytes per second."""
    fault: Fault | None = None
    after: int = 0
    """Bytes that arrive before the fault."""


SMOOTH = Course()
Plan = Callable[[int], tuple[Course, Course]]
"""``(number of the link) -> (course up, course down)``."""


def spoil(rng: random.Random, links: int, *, longest: int, spared: int) -> Plan:
    """A plan in which so many links end after ``longest`` bytes at most; all later ones are smooth.

    The kinds of faults take turns, so that each of them comes in every run; the rest is chance. Many faults
    hit the handshake, but not those of the first links, as many as are ``spared``.
    """
    plans = []
    for number in range(links):
        fault = list(Fault)[number % len(Fault)]
        late = rng.random() < 0.3
        courses = [
            Course(
                latency=rng.uniform(0, 0.01) if late else 0.0,
                jitter=rng.uniform(0, 0.01) if late else 0.0,
                bandwidth=rng.choice([math.inf, math.inf, 500_000.0]),
            )
            for _ in Way
        ]
        hit = rng.randrange(2)
        after = int(longest * rng.random() ** 2) + (HANDSHAKE if number < spared else 0)
        courses[hit] = replace(courses[hit], fault=fault, after=after)
        if fault is Fault.DROP and rng.random() < 0.5:  # a dead cable, not just a dead direction
            courses[1 - hit] = replace(courses[1 - hit], fault=fault, after=after)
        plans.append((courses[0], courses[1]))
    return lambda number: plans[number] if number < links else (SMOOTH, SMOOTH)


class Relay:
    """One link through the proxy."""

    def __init__(
        self,
        client: trio.SocketStream,
        server: trio.SocketStream,
        plan: tuple[Course, Course],
        rng: random.Random,
    ) -> None:
        self.faults: list[Fault] = []
        """What has befallen it."""
        self._ends = {Way.UP: (client, server), Way.DOWN: (server, client)}
        self._courses = dict(zip(Way, plan, strict=True))
        self._silent: set[Way] = set()
        self._scope = trio.CancelScope()
        self._rng = rng

    async def run(self) -> None:
        """Forward until both sides have ended."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for way in Way:
                        nursery.start_soon(self._forward, way)
        finally:
            for stream in self._ends[Way.UP]:
                stream.socket.close()

    async def strike(self, fault: Fault, way: Way) -> None:
        """Let this befall the link now."""
        self.faults.append(fault)
        if fault is Fault.RESET:
            for stream in self._ends[Way.UP]:
                _reset(stream)
            self._scope.cancel()
            return
        ways = {way, way.back} if fault is Fault.FIN else {way}
        ended, self._silent = ways - self._silent, self._silent | ways
        if fault is not Fault.DROP:
            for way in ended:
                await _end(self._ends[way][1])

    async def _forward(self, way: Way) -> None:
        source, _ = self._ends[way]
        course = self._courses[way]
        under_way, arriving = trio.open_memory_channel[tuple[float, bytes]](IN_FLIGHT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver, way, arriving)
            async with under_way:
                while data := await _read(source):
                    late = course.latency + self._rng.uniform(0, course.jitter)
                    await under_way.send((trio.current_time() + late, data))

    async def _deliver(self, way: Way, arriving: trio.MemoryReceiveChannel[tuple[float, bytes]]) -> None:
        _, sink = self._ends[way]
        course = self._courses[way]
        left = course.after if course.fault is not None else math.inf
        async for due, data in arriving:
            await trio.sleep_until(due)
            await trio.sleep(len(data) / course.bandwidth)
            if way in self._silent:
                continue
            await _write(sink, data[: int(left)] if left < len(data) else data)
            left -= len(data)
            if course.fault is not None and left <= 0:
                await self.strike(course.fault, way)
        if way not in self._silent:
            await _end(sink)


class Proxy:
    """The proxy; made by :func:`open_proxy`."""

    def __init__(self, listener: trio.SocketListener, target: str, plan: Plan, rng: random.Random) -> None:
        host, port = listener.socket.getsockname()[:2]
        self.url = f"tcp://{host}:{port}"
        self.target = target
        """The server's URL."""
        self.relays: list[Relay] = []
        """The links that there are now."""
        self.count = 0
        """Links so far."""
        self.faults: list[Fault] = []
        """What has befallen the links that have ended."""
        self._listener = listener
        self._plan = plan
        self._rng = rng

    async def strike(self, fault: Fault, *ways: Way) -> None:
        """Let this befall every link that there is now."""
        for relay in list(self.relays):
            for way in ways or (Way.UP,):
                await relay.strike(fault, way)

    async def run(self) -> None:
        """Accept and forward until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._serve, await self._listener.accept())

    async def _serve(self, client: trio.SocketStream) -> None:
        number, self.count = self.count, self.count + 1
        host, port = self.target.removeprefix("tcp://").rsplit(":", 1)
        try:
            server = await trio.open_tcp_stream(host, int(port))
        except OSError:
            _reset(client)
            return
        relay = Relay(client, server, self._plan(number), self._rng)
        self.relays.append(relay)
        try:
            await relay.run()
        finally:
            self.relays.remove(relay)
            self.faults += relay.faults


@asynccontextmanager
async def open_proxy(
    target: str, plan: Plan = lambda _: (SMOOTH, SMOOTH), *, seed: int = 0
) -> AsyncIterator[Proxy]:
    """A proxy for the server at this URL."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        proxy = Proxy(listener, target, plan, random.Random(seed))
        nursery.start_soon(proxy.run)
        try:
            yield proxy
        finally:
            nursery.cancel_scope.cancel()


async def _read(source: trio.SocketStream) -> bytes:
    try:
        return bytes(await source.receive_some(CHUNK))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b""


async def _write(sink: trio.SocketStream, data: bytes) -> None:
    try:
        await sink.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it went first; its own direction says so


async def _end(sink: trio.SocketStream) -> None:
    try:
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
        pass


def _reset(stream: trio.SocketStream) -> None:
    """Close with RST: to linger for no time throws away what waits."""
    if stream.socket.fileno() != -1:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()
