"""Where ``memory://`` URLs lead in a world: listeners on nodes, and connections over links."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from typing import Protocol

import trio

from heartline.errors import ConnectionFailed
from heartline.testing._life import Life, current_life
from heartline.testing._route import Route
from heartline.testing._stream import WorldStream
from heartline.transports import Listener

__all__ = ["WorldNetwork"]

RETRY = 1.0
"""Seconds after which a packet that opens a connection is sent again: TCP's first retransmission."""

LOOKUP = 0.001
"""Seconds that a name takes which is not known yet: so programs that start together find each other."""

PATIENCE = (3.0, 30.0)
"""Seconds until opening a connection fails without an answer: a router says so soon, or nobody ever does."""


class Host(Protocol):
    """The part of a node that the network sees."""

    name: str
    dark: bool
    """Without power: nobody answers there, not even with a refusal."""


class WorldNetwork:
    """A name space of listeners, each of which belongs to the node that opened it."""

    def __init__(
        self,
        outside: Life,
        hosts: dict[str, Host],
        route: Callable[[str, str], Route],
        log: Callable[[str, str], None],
    ) -> None:
        self._outside = outside
        self._hosts = hosts
        self._route = route
        self._log = log
        self._listeners: dict[str, _WorldListener] = {}
        self._owners: dict[str, str] = {}
        self._numbers = itertools.count(1)

    def listen(self, name: str = "", *, backlog: int) -> Listener:
        """Listen under ``name`` on the node that calls, by default under a fresh one.

        When ``backlog`` connections wait for ``accept``, the packet of one more is lost, as with a listening
        socket.
        """
        life = self._caller()
        if not name:
            name = next(fresh for n in self._numbers if (fresh := f"auto-{n}") not in self._listeners)
        if name in self._listeners:
            raise ConnectionFailed(f"cannot listen on memory://{name}: the name is in use")
        self._listeners[name] = inner = _WorldListener(self, life, name, backlog)
        self._owners[name] = life.node
        self._log(life.node, f"listens on memory://{name}")
        return Listener(inner, f"memory://{name}")

    async def connect(self, name: str) -> trio.abc.Stream:
        """Connect from the node that calls; raises :class:`OSError` if nobody answers, or not in time."""
        life = self._caller()
        host = self._find(name)
        if host is None:
            await trio.sleep(LOOKUP)
            host = self._find(name)
        if host is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")
        route = self._route(life.node, host.name)
        patience = route.rng.choice(PATIENCE)
        with trio.move_on_after(patience):
            stream = await self._shake_hands(life, host, route, name)
            if stream is None:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there")
            return stream
        self._log(life.node, f"no answer from memory://{name}")
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {patience:g} s")

    def forget(self, name: str) -> None:
        """Forget a listener that has closed."""
        del self._listeners[name]

    async def _shake_hands(self, life: Life, host: Host, route: Route, name: str) -> WorldStream | None:
        """Send a packet there and wait for the answer; ``None`` if that is a refusal."""
        while True:
            await _travel(route, life.node, host.name)
            listener = self._listeners.get(name)
            if not host.dark and (listener is None or not listener.full):
                break
            await trio.sleep(RETRY)
        if listener is None:
            await _travel(route, host.name, life.node)
            return None
        life.check()
        connection = route.connect(life, listener.life)
        listener.add(connection.streams[1])
        self._log(life.node, f"connects to memory://{name}")
        try:
            await _travel(route, host.name, life.node)
        except BaseException:
            connection.streams[0].close()
            raise
        return connection.streams[0]

    def _find(self, name: str) -> Host | None:
        # Before anybody has listened there, a name is that of the node.
        return self._hosts.get(self._owners.get(name, name))

    def _caller(self) -> Life:
        life = current_life() or self._outside
        life.check()
        return life


class _WorldListener(trio.abc.Listener[WorldStream]):
    def __init__(self, network: WorldNetwork, life: Life, name: str, backlog: int) -> None:
        self.life = life
        self._network = network
        self._name = name
        self._open = True
        self._backlog, self._waiting = trio.open_memory_channel[WorldStream](backlog)
        life.held[self] = None

    @property
    def full(self) -> bool:
        statistics = self._backlog.statistics()
        return statistics.current_buffer_used == statistics.max_buffer_size

    def add(self, stream: WorldStream) -> None:
        self._backlog.send_nowait(stream)

    async def accept(self) -> WorldStream:
        return await self._waiting.receive()

    async def aclose(self) -> None:
        """Stop listening, and hang up on connections that were not accepted."""
        if self._open:
            for _ in range(self._backlog.statistics().current_buffer_used):
                self._waiting.receive_nowait().close()
            self.cut(self.life, silent=False)
        await trio.lowlevel.checkpoint()

    def cut(self, owner: Life, *, silent: bool) -> None:
        if self._open:
            self._open = False
            self._network.forget(self._name)
            owner.held.pop(self, None)
            self._waiting.close()
            self._backlog.close()


async def _travel(route: Route, source: str, destination: str) -> None:
    """Wait as long as an empty packet takes."""
    packet = route.flow(source, destination)
    try:
        packet.end()
        await packet.wait_readable(lambda: False)
    finally:
        packet.detach()
