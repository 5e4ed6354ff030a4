"""Many seeds of a program, until one fails."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import shlex
import sys
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterable, Sized
from operator import attrgetter
from typing import Any, Generic, TypeVar, final

from heartline.errors import ConfigurationError
from heartline.testing._story import LAST, origin
from heartline.testing._workers import Died, run_in_processes
from heartline.testing._world import LIMIT, World

__all__ = ["SeedFailed", "explore", "seeds"]

VARIABLE = "HEARTLINE_SEED"
"""The variable of the environment that makes every exploration a replay of this one seed."""

PATIENCE = 60.0
"""Real seconds for one seed: a hundred times what a run of some minutes in the world takes."""

WHOLE = 2000
"""Lines that a replay tells, beside the faults: more than anybody reads, fewer than a terminal keeps."""

T = TypeVar("T")

Program = Callable[[World], Awaitable[T]]


@final
class SeedFailed(AssertionError):
    """A seed does not hold: the message tells the error, the story, and how to see it again.

    The error itself is the ``__cause__``, or its traceback as text if it was in another process.
    """

    def __init__(self, seed: int, error: str, story: str, replay: str) -> None:
        told = f"\nwhat happened, with {origin()}:\n{story}" if story else ""
        super().__init__(f"seed {seed}: {error}{told}\nto see it again: {replay}")
        self.seed = seed
        self.error = error
        """The type and the message of the error, and where it was raised."""
        self.story = story
        """The faults and the last lines of the trace; all lines if it was the only seed."""
        self.replay = replay
        """A line for the shell."""


def explore(
    program: Program[T],
    seeds: Iterable[int] = range(100),
    *,
    processes: int | None = None,
    limit: float = LIMIT,
    patience: float = PATIENCE,
    on_result: Callable[[int, T], object] | None = None,
    replay: Callable[[int], str] | None = None,
) -> int:
    """Run ``program(world)`` in a world for each of the seeds, and return how many there were.

    Raises :exc:`SeedFailed` for the first seed, in their order, that fails. ``on_result`` is called with each
    seed before it, in order, and with what the program has returned.

    A single seed runs in this process. More are shared by as many ``processes`` as there are cores. Those
    import the program, so it is an async function of a module, or a ``functools.partial`` of one, and
    what it returns can be pickled. With ``processes=1`` any async function will do, and all seeds run here.
    The processes have ended when this returns or raises, also after Ctrl-C.

    If the variable ``HEARTLINE_SEED`` is in the environment, its number is the only seed. The failure tells
    the line for the shell that does so: the command of this process, or the pytest test that runs. A program
    with another way makes that line itself, in ``replay(seed)``.

    ``limit`` bounds each run in seconds of the world, as in :meth:`World.run`, and ``patience`` in real ones:
    a seed that takes longer, as in a loop without a checkpoint, has failed. That cannot end a run in this
    process.
    """
    chosen = _chosen_seed()
    if chosen is not None:
        seeds = [chosen]
    count = len(seeds) if isinstance(seeds, Sized) else sys.maxsize
    processes = min(_checked(processes), count)
    attempt = _Attempt(program, limit, WHOLE if count == 1 else LAST, answers=on_result is not None)
    held = 0
    results: Generator[tuple[int, Any], None, None] = (
        ((seed, attempt.here(seed)) for seed in seeds)
        if processes <= 1
        else run_in_processes(attempt, seeds, processes=processes, patience=patience)
    )
    try:
        for seed, answer in results:
            if isinstance(answer, Died):
                answer = _Failure(answer.how, "", "")
            if isinstance(answer, _Failure):
                __tracebackhide__ = True  # pytest shows the story, and not this function
                line = (replay or _replay_line)(seed)
                raise SeedFailed(seed, answer.error, answer.story, line) from answer.cause
            held += 1
            if on_result is not None:
                on_result(seed, answer)
    finally:
        results.close()
    return held


def seeds(
    which: int | Iterable[int],
    *,
    processes: int | None = None,
    limit: float = LIMIT,
    patience: float = PATIENCE,
) -> Callable[[Program[Any]], Callable[[], None]]:
    """Make a test function, for pytest or any other runner, of an async function that takes a world.

    The test explores so many seeds from 0, or those that are given; the rest is as for :func:`explore`::

        @seeds(200)
        async def test_every_job_is_done(world: World) -> None: ...
    """
    chosen = range(which) if isinstance(which, int) else which

    def decorate(program: Program[Any]) -> Callable[[], None]:
        if not inspect.iscoroutinefunction(program):
            raise ConfigurationError(
                f"@seeds is for an async function that takes a world, not {program!r:.80}"
            )
        reference = _Decorated(program.__module__, program.__qualname__)

        @functools.wraps(program)
        def test() -> None:
            __tracebackhide__ = True
            # By its name the module has only the test, which other processes ask for the program.
            known = program if "<locals>" in program.__qualname__ else reference
            explore(known, chosen, processes=processes, limit=limit, patience=patience)

        test.__signature__ = inspect.Signature()  # type: ignore[attr-defined]
        return test

    return decorate


class _Decorated:
    """The function below a decorated test, wherever that is imported."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    async def __call__(self, world: World) -> object:
        test = attrgetter(self._name)(importlib.import_module(self._module))
        return await test.__wrapped__(world)


class _Failure:
    """What is told of a run that failed."""

    def __init__(self, error: str, story: str, cause: BaseException | str) -> None:
        self.error, self.story = error, story
        self._cause = cause

    @property
    def cause(self) -> BaseException | None:
        return _Remote(self._cause) if isinstance(self._cause, str) and self._cause else self._cause or None


class _Remote(Exception):
    """The traceback of an error in another process."""

    def __str__(self) -> str:
        return f"in another process\n{self.args[0]}"


class _Attempt(Generic[T]):
    """Runs one seed; can be sent to another process."""

    def __init__(self, program: Program[T], limit: float, last: int, *, answers: bool) -> None:
        self._program = program
        self._limit = limit
        self._last = last
        self._answers = answers

    def here(self, seed: int) -> T | _Failure:
        """What the program returns."""
        world = World(seed)
        try:
            return world.run(self._program, limit=self._limit)
        except Exception as error:
            error.__notes__.pop()  # the story, which stands by itself here
            return _Failure(_describe(error), world.story(self._last), error)

    def __call__(self, seed: int) -> T | _Failure | None:
        """The same, as it can be sent back."""
        answer = self.here(seed)
        if isinstance(answer, _Failure):
            error = answer.cause
            assert error is not None
            return _Failure(answer.error, answer.story, "".join(traceback.format_exception(error)))
        return answer if self._answers else None


def _describe(error: BaseException) -> str:
    """The error and where it was raised, a line each; all of a group."""
    if isinstance(error, BaseExceptionGroup):
        return "\n".join(_describe(inner) for inner in error.exceptions)
    told = f"{type(error).__name__}: {error}".removesuffix(": ")
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:  # in a group it need not have been raised itself
        return told
    frame = frames[-1]
    here = os.path.relpath(frame.filename)
    file = frame.filename if here.startswith(os.pardir) else here
    return f"{told}\n  {file}, line {frame.lineno}, in {frame.name}: {frame.line}"


def _checked(processes: int | None) -> int:
    if processes is None:
        return os.cpu_count() or 1
    if not isinstance(processes, int) or processes < 1:
        raise ConfigurationError(f"processes must be at least 1, not {processes!r}")
    return processes


def _chosen_seed() -> int | None:
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(f"{VARIABLE} must be a seed, which is an integer, not {text!r}") from None


def _replay_line(seed: int) -> str:
    # pytest names the test that runs: "tests/test_jobs.py::test_a_job (call)".
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    command = ["python", "-m", "pytest", test] if test else sys.orig_argv
    return f"{VARIABLE}={seed} {shlex.join(command)}"
