"""A simulated world for distributed programs, which depends on its seed alone."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, final

import trio
import trio.testing

from heartline.errors import ConfigurationError
from heartline.observe import use_observer
from heartline.testing._deterministic import deterministic
from heartline.testing._life import Life, current_life
from heartline.testing._link import Link
from heartline.testing._network import WorldNetwork
from heartline.testing._node import Node
from heartline.testing._route import Route
from heartline.testing._story import explain, tell_story
from heartline.testing._threads import inline_threads
from heartline.testing._trace import Trace, TraceEntry
from heartline.testing._witness import Witness, logs_told_to
from heartline.transports.memory import use_network

__all__ = ["NotConverged", "World"]

OUTSIDE = "world"
"""The name of what is not on any node, such as the function given to :meth:`World.run`."""

LIMIT = 3600.0
"""Seconds of the world after which a run is given up by default: a hang becomes an error."""

LOOKS = 1000
"""How often :meth:`World.heal_and_settle` looks, at most, for the moment in which a condition holds."""

T = TypeVar("T")


class NotConverged(AssertionError):
    """Something that had to happen did not happen in time; the message says what was seen last."""


@final
class World:
    """Nodes, the links between them and what goes wrong there, in virtual time, all drawn from ``seed``.

    Programs use ``memory://`` URLs and know nothing of the world. In one run of :meth:`run` the same seed and
    the same programs do the same, to the last bit, in this process and in any other, so a failure can be seen
    again. That holds as long as the programs take random numbers from ``random`` or their node, and do
    not use real sockets, real time, ``trio.Path``, ``os.urandom`` or the order of sets. In place of a thread
    ``trio.to_thread.run_sync`` calls its function some milliseconds of the world later.

    ``rng`` is a source for the test itself, to choose what goes wrong and when.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng: random.Random = random.Random(seed)
        self.nodes: dict[str, Node] = {}
        """The nodes there are, by name."""
        self._trace = Trace()
        self._routes: dict[tuple[str, str], Route] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._outside = Life(OUTSIDE)
        self._hosts: dict[str, Any] = {OUTSIDE: Outside()}
        self._network = WorldNetwork(self._outside, self._hosts, self._route, self._note)
        self._nursery: trio.Nursery | None = None
        self._end: float | None = None

    def run(self, main: Callable[[World], Awaitable[T]], *, limit: float = LIMIT) -> T:
        """Run ``await main(world)`` in virtual time, and return its result; nodes end with it.

        A failure of a node's program ends the run too. A single error comes out bare. Errors have a note that
        says how to see them again; a :exc:`KeyboardInterrupt` or :exc:`SystemExit` does not follow from the
        seed, and has none. After ``limit`` seconds of the world :exc:`NotConverged` is raised. A world runs
        once.
        """
        if self._nursery is not None:
            raise ConfigurationError(
                f"World({self.seed}) has run already, and a world runs once; make another one"
            )
        failure: BaseException
        try:
            with deterministic(str(self.seed)), inline_threads(random.Random(f"{self.seed} threads")):
                clock = trio.testing.MockClock(autojump_threshold=0)
                return trio.run(self._run, main, limit, clock=clock)
        except BaseException as error:
            failure = error
        while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
            failure = failure.exceptions[0]
        if isinstance(failure, Exception):
            failure.add_note(explain(self.seed, self._trace))
        raise failure

    def node(self, name: str) -> Node:
        """The node of this name, a new one if there is none."""
        if name == OUTSIDE:
            raise ConfigurationError(f"name: {name!r} is what is not on any node; choose another name")
        if name not in self.nodes:
            self.nodes[name] = self._hosts[name] = Node(
                name, f"{self.seed} {name}", now=self.time, note=self._note, spawn=self._spawn
            )
        return self.nodes[name]

    def link(self, first: str | Node, second: str | Node) -> Link:
        """The link between two nodes, which are given in any order; ``"world"`` is what is on no node."""
        names = (end if isinstance(end, str) else end.name for end in (first, second))
        route = self._route(*names)
        return self._links.setdefault(route.ends, Link(route))

    @property
    def links(self) -> tuple[Link, ...]:
        """The links that were used or asked for."""
        return tuple(self.link(*ends) for ends in self._routes)

    def heal_all(self) -> None:
        """End every partition and clog."""
        for link in self.links:
            link.heal()

    async def heal_and_settle(self, condition: Callable[[], object], *, within: float) -> None:
        """End every fault, and require ``condition()`` to become true within this many seconds of the world.

        Links are healed, and nodes that crashed are started again. A condition that raises
        :class:`AssertionError` is not true yet; its message becomes part of the :exc:`NotConverged` that is
        raised when the time is up.
        """
        self.heal_all()
        for node in self.nodes.values():
            if node.crashed:
                node.restart()
        deadline = self.time() + within
        while True:
            seen: object
            try:
                seen = condition()
                if seen:
                    return
            except AssertionError as error:
                seen = error
            if self.time() >= deadline:
                raise NotConverged(f"not within {within:g} s after the last fault: {_told(seen)}")
            await trio.sleep(min(within / LOOKS, deadline - self.time()))

    def time(self) -> float:
        """Seconds since the world began; after the run, how long it took."""
        if self._nursery is None:
            return 0.0
        return trio.current_time() if self._end is None else self._end

    def log(self, *what: object) -> None:
        """Note in the trace what the program of this node has done; words are joined by spaces.

        Do not log what differs from run to run, such as an ``id()`` or the order of a set.
        """
        self._note((current_life() or self._outside).node, " ".join(map(str, what)))

    @property
    def trace(self) -> list[TraceEntry]:
        """What happened, in order; at most the newest 100,000 entries.

        That is: what the world did to links, nodes and disks; what programs and heartline log, with
        :meth:`log` or with ``logging`` at ``INFO`` and above; calls that ended, at both ends; and updates
        that were published. Sessions that begin, are lost, resumed or refused are in heartline's log lines.
        A line for which the program has set up no handler is in the trace alone.
        """
        return list(self._trace.entries)

    def story(self, last: int | None = None) -> str:
        """The trace as lines for a person: every fault, and of the rest the ``last`` lines, or all of it."""
        return tell_story(self._trace.entries, last)

    def digest(self) -> str:
        """A hash of all that happened so far, with every byte on every wire: equal for equal runs."""
        return self._trace.digest()

    def _note(self, node: str, text: str, *, fault: bool = False) -> None:
        self._trace.add(self.time(), node, text, fault=fault)

    def _witness(self, text: str) -> None:
        """Note what the program that runs has said, or has made heartline do.

        Nobody hears a node that has crashed, and how all end together with the run is of no interest.
        """
        life = current_life() or self._outside
        if life.alive and self._nursery is not None and not self._nursery.cancel_scope.cancel_called:
            self._note(life.node, text)

    def _spawn(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        if self._nursery is None:
            raise ConfigurationError(
                "nodes start within a run; start them in the function given to World.run"
            )
        self._nursery.start_soon(function, *args)

    def _route(self, first: str, second: str) -> Route:
        for end in (first, second):
            if end not in self._hosts:
                raise ConfigurationError(f"no node is called {end!r}; make it with World.node")
        ends = min(first, second), max(first, second)
        if ends not in self._routes:
            rng = random.Random(f"{self.seed} link {ends!r}")
            self._routes[ends] = Route(ends, rng, self.time, self._trace)
        return self._routes[ends]

    async def _run(self, main: Callable[[World], Awaitable[T]], limit: float) -> T:
        use_network(self._network)
        use_observer(Witness(self._witness))
        with logs_told_to(self._witness):
            try:
                async with trio.open_nursery() as self._nursery:
                    with trio.move_on_after(limit):
                        result = await main(self)
                        self._nursery.cancel_scope.cancel()
                        return result
                    raise NotConverged(f"the run had not ended after {limit:g} s of the world (limit)")
            finally:
                self._end = trio.current_time()


class Outside:
    """What is not on a node always has power."""

    name = OUTSIDE
    dark = False


def _told(seen: object) -> str:
    return str(seen) if isinstance(seen, AssertionError) else f"the condition was {seen!r}"
