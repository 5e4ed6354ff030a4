"""Processes that run seeds, one seed each at a time."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from heartline.errors import ConfigurationError

__all__ = ["Died", "run_in_processes"]

LEAVING = 5.0
"""Seconds for a process to unwind when it is interrupted; a run holds no more than files and memory."""

STARTING = 60.0
"""Seconds for a process to import the program; Python and NumPy take a second or two on a slow machine."""

A = TypeVar("A")


class Died:
    """The process of a seed has not answered; says how it ended."""

    def __init__(self, how: str) -> None:
        self.how = how


def run_in_processes(
    job: Callable[[int], A], seeds: Iterable[int], *, processes: int, patience: float
) -> Generator[tuple[int, A | Died], None, None]:
    """Call ``job(seed)`` for each seed in other processes, and give the answers in the order of the seeds.

    A process that takes more than ``patience`` seconds for a seed is ended. When the iterator is closed, all
    processes have ended. Raises :class:`ConfigurationError` if they cannot get the job.
    """
    pickled = _pickle(job)
    workers: list[_Worker[A]] = []
    answers: dict[int, tuple[int, A | Died]] = {}
    numbered = enumerate(seeds)
    given = 0
    try:
        workers.extend(_Worker(pickled) for _ in range(processes))
        for worker in workers:
            worker.wait_ready()
        more = True
        while True:
            for worker in workers:
                if more and worker.work is None:
                    more = worker.begin(next(numbered, None), patience)
            busy = [worker for worker in workers if worker.work is not None]
            if not busy:
                return
            wait([worker.pipe for worker in busy], min(w.deadline for w in busy) - time.monotonic())
            for worker in busy:
                answers |= worker.take(patience)
            more = more and all(worker.alive for worker in workers)
            while given in answers:
                yield answers.pop(given)
                given += 1
    finally:
        for worker in workers:
            worker.leave()
        deadline = time.monotonic() + LEAVING
        for worker in workers:
            worker.end(deadline)


def _pickle(job: Callable[[int], Any]) -> bytes:
    try:
        return pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"other processes cannot get the program ({error}): let it be an async function of a module, "
            "or functools.partial of one, or explore with processes=1"
        ) from error


class _Worker(Generic[A]):
    def __init__(self, pickled: bytes) -> None:
        # A fork of a process with threads may hang, and this one may have some: pytest's, Trio's.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.work: tuple[int, int] | None = None
        """The number and the seed of the run that goes on."""
        self.deadline = 0.0
        self.alive = True
        self._process = context.Process(target=serve, args=(theirs, pickled), daemon=True)
        # Until the process is in a group of its own, a Ctrl-C on the terminal is for it too.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()

    def wait_ready(self) -> None:
        if not self.pipe.poll(STARTING):
            raise ConfigurationError(f"a process had not imported the program after {STARTING:g} s")
        try:
            trouble = self.pipe.recv()
        except EOFError:
            trouble = 'it ended at once; a script needs its explore() below if __name__ == "__main__"'
        if trouble:
            raise ConfigurationError(f"a process cannot import the program: {trouble}")

    def begin(self, work: tuple[int, int] | None, patience: float) -> bool:
        """Begin a run; tells whether there was one."""
        self.work = work
        if work is not None:
            self.deadline = time.monotonic() + patience
            try:
                self.pipe.send(work[1])
            except OSError:
                pass  # it has died meanwhile, which reading will tell
        return work is not None

    def take(self, patience: float) -> dict[int, tuple[int, A | Died]]:
        """The answer, by the number of the run, if there is one."""
        assert self.work is not None
        answer: A | Died
        number, seed = self.work
        if self.pipe.poll():
            try:
                answer = self.pipe.recv()
            except (EOFError, OSError):
                self.alive = False
                self._process.join(LEAVING)
                answer = Died(f"its process ended with exit code {self._process.exitcode}")
        elif time.monotonic() >= self.deadline:
            self.alive = False
            self._signal(signal.SIGABRT)  # faulthandler shows on stderr where it was
            self._process.join(LEAVING)
            answer = Died(f"it took more than {patience:g} s of real time (patience); where is on stderr")
        else:
            return {}
        self.work = None
        return {number: (seed, answer)}

    def leave(self) -> None:
        """Ask the process to end."""
        # First the signal: it is caught only as long as the process serves, which the pipe's end would end.
        if self.work is not None and self._process.is_alive():
            self._signal(signal.SIGINT)
        self.pipe.close()

    def _signal(self, number: signal.Signals) -> None:
        pid = self._process.pid
        assert pid is not None, "it was started"
        os.kill(pid, number)

    def end(self, deadline: float) -> None:
        """Wait until it has ended, or make it."""
        self._process.join(max(0.0, deadline - time.monotonic()))
        self._process.kill()
        self._process.join()
        self._process.close()


def serve(pipe: Connection, pickled: bytes) -> None:
    """The life of a process: run the seeds that it is given, until there are no more."""
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        faulthandler.enable()
        try:
            job = pickle.loads(pickled)
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
            return
        pipe.send(None)
        while True:
            pipe.send(job(pipe.recv()))
    except (EOFError, OSError, KeyboardInterrupt):
        pass  # the other process wants no more
