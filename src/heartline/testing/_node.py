"""A node: a program in a place of its own, which can lose its power."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, final

import trio

from heartline.errors import ConfigurationError
from heartline.testing._clock import NodeClock
from heartline.testing._disk import Disk
from heartline.testing._life import Life, current_life, live

__all__ = ["Node"]

Program = Callable[..., Awaitable[object]]


@final
class Node:
    """A machine of a world with one program on it; get one from :meth:`World.node`.

    Everything that the program starts in its nurseries belongs to the node. State that must not survive a
    crash the program makes itself; state that must survive is on the ``disk``.

    ``clock`` is the node's own, drawn from the seed. Trio has one clock in a run, so a node cannot have a
    different ``trio.current_time()``. It need not: where a monotonic clock begins has no meaning, so only its
    *rate* can show. To get that, pass the program's durations (heartbeats, backoffs, deadlines) through
    :meth:`stretch`, and sleep with :meth:`sleep`. Wall clocks, which do have a meaning, are read
    with :meth:`time`.

    ``rng`` is a random source for the program, ``disk`` what the program has in place of files.
    """

    def __init__(
        self,
        name: str,
        seed: str,
        *,
        now: Callable[[], float],
        note: Callable[..., None],
        spawn: Callable[..., None],
    ) -> None:
        self.name = name
        self.rng: random.Random = random.Random(f"{seed} program")
        self._chance = random.Random(f"{seed} node")
        self.clock: NodeClock = NodeClock.draw(self._chance)
        self.disk: Disk = Disk(random.Random(f"{seed} disk"), check_power=self._check_power)
        self.dark: bool = False
        """Whether it is without power, after a silent crash."""
        self._now = now
        self._note = note
        self._spawn = spawn
        self._life: Life | None = None
        self._program: tuple[Program, tuple[Any, ...]] | None = None
        self._crashed = False

    @property
    def alive(self) -> bool:
        """Whether its program runs."""
        return self._life is not None and self._life.alive

    @property
    def crashed(self) -> bool:
        """Whether the node has crashed, and was not started since."""
        return self._crashed

    def time(self) -> float:
        """The node's wall clock, in seconds since 1970."""
        return self.clock.read(self._now())

    async def sleep(self, seconds: float) -> None:
        """Sleep for so many seconds of the node's clock."""
        await trio.sleep(self.stretch(seconds))

    def stretch(self, seconds: float) -> float:
        """Convert ``seconds`` of the node's clock to seconds of the world, which are Trio's."""
        return self.clock.stretch(seconds)

    def start(self, program: Program, *args: Any) -> None:
        """Run ``await program(node, *args)`` as this node's program; an error that it raises ends the run."""
        if self.alive:
            raise ConfigurationError(f"node {self.name!r} has a program already; crash() or restart() it")
        self._program = program, args
        self._begin("starts", fault=False)

    def crash(self, *, silent: bool | None = None) -> None:
        """Cut everything that the program holds, and cancel it: nothing it still says leaves the node.

        Its disk loses what was not synced. The peers of its connections get :exc:`trio.BrokenResourceError`
        as soon as that can travel to them, like after ``kill -9``; or, if the crash is ``silent``, as when
        the power is gone, they hear nothing, and nobody answers until the node is started again. By default
        the seed chooses. A node that does not run cannot crash.
        """
        if self._life is None or not self._life.alive:
            return
        silent = self._chance.random() < 0.5 if silent is None else silent
        self._crashed, self.dark = True, silent
        self._note(self.name, "crashes silently" if silent else "crashes", fault=True)
        self._life.end(silent=silent)
        for file, lost in self.disk.crash().items():
            self._note(self.name, f"its disk loses {lost} bytes of {file!r} that were not synced", fault=True)

    def restart(self) -> None:
        """Start the last program again; if it still runs, crash the node first."""
        if self._program is None:
            raise ConfigurationError(f"node {self.name!r} has no program to restart; start() one")
        self.crash()
        self._begin("starts again", fault=True)

    def _begin(self, what: str, *, fault: bool) -> None:
        if self._life is not None:
            self._life.tell()
        self._life = Life(self.name)
        self._crashed = self.dark = False
        self._note(self.name, what, fault=fault)
        self._spawn(self._run, self._life, self._program)

    async def _run(self, life: Life, what: tuple[Program, tuple[Any, ...]]) -> None:
        live(life)
        program, args = what
        try:
            with life.scope:
                await program(self, *args)
        except Exception:
            if life.alive:
                self._note(self.name, "fails")
                raise
            # Errors of a program whose node has crashed do not count: nobody hears them.
        finally:
            if life.alive:
                self._note(self.name, "ends")
                life.end(silent=False)

    def _check_power(self) -> None:
        life = current_life()
        if life is not None and life.node == self.name:
            life.check()

    def __repr__(self) -> str:
        return f"<Node {self.name} {'alive' if self.alive else 'not running'}>"
