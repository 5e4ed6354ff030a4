"""Ctrl-C in the middle of a call: a KeyboardInterrupt comes out, and those who go on get right answers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline.rpc._calls import Calls
from heartline.rpc._running import run_async, run_inline
from tests.engine import core_of

from .helpers import QUIET, settle

HEARTLINE = heartline.__file__.removesuffix("__init__.py")


@heartline.service
class Sum:
    """Adds in the reader's tick, or in a task."""

    def add(self, a: int, b: int) -> int:
        return a + b

    async def add_later(self, a: int, b: int) -> int:
        await trio.lowlevel.checkpoint()
        return a + b


class Injector:
    """Sends SIGINT to this process in front of the ``position``-th step of some code."""

    def __init__(self, position: int, wanted: Callable[[CodeType], bool], *, steps: str) -> None:
        self.position = position
        self.count = 0
        self._wanted = wanted
        self._steps = steps

    @property
    def struck(self) -> bool:
        return self.count > self.position

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if self.struck or not self._wanted(frame.f_code):
            return None
        frame.f_trace_opcodes = self._steps == "opcode"
        return self._on_step

    def _on_step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == self._steps and not self.struck:
            self.count += 1
            if self.struck:
                signal.raise_signal(signal.SIGINT)
        return self._on_step

    @contextmanager
    def armed(self) -> Any:
        before = sys.gettrace()
        sys.settrace(self._on_call)
        try:
            yield
        finally:
            sys.settrace(before)


async def ask(calls: Any, base: int, answers: list[int]) -> None:
    answers.append(await calls.add(base, 1) - base)
    answers.append(await calls.add_later(base, 2) - base)


def interrupt(injector: Injector) -> None:
    """Calls with an interrupt in between, and calls on the same connection after it."""

    async def main() -> None:
        came_out = False
        async with (
            heartline.open_server("memory://", services=[Sum()], heartbeat=QUIET) as server,
            heartline.open_connection(server.urls[0], heartbeat=QUIET) as client,
        ):
            calls = client.service(Sum)
            answers: list[int] = []
            try:
                with injector.armed():
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(ask, calls, 100, answers)
                        nursery.start_soon(ask, calls, 200, answers)
                        await ask(calls, 300, answers)
                    await trio.lowlevel.checkpoint()  # one that is pending comes out here at the latest
            except* KeyboardInterrupt:
                came_out = True
            assert came_out is injector.struck
            assert set(answers) <= {1, 2}
            await settle()
            for connection in (client, *server.connections.values()):
                assert core_of(connection).part(Calls)._pending == {}, "a wait is left"
                assert core_of(connection).part(Calls)._running == {}
            answers.clear()
            async with trio.open_nursery() as nursery:
                for base in range(5):
                    nursery.start_soon(ask, calls, base, answers)
            assert sorted(answers) == [1] * 5 + [2] * 5
            assert client.statistics().links == 1

    trio.run(main, clock=MockClock(autojump_threshold=0))


def interrupt_everywhere(wanted: Callable[[CodeType], bool], *, steps: str, stride: int, start: int) -> int:
    """One run for each of the positions; how many positions there are."""
    position = start
    while True:
        injector = Injector(position, wanted, steps=steps)
        interrupt(injector)
        if not injector.struck:
            return position
        position += stride


def test_at_every_instruction_of_a_call() -> None:
    parts = {Calls.call.__code__, Calls._send.__code__}
    assert interrupt_everywhere(lambda c: c in parts, steps="opcode", stride=1, start=0) > 500


def is_ours(code: CodeType) -> bool:
    """Whether it is code of heartline that calls no code of its users."""
    return code.co_filename.startswith(HEARTLINE) and code not in (run_inline.__code__, run_async.__code__)


@pytest.mark.parametrize("start", range(0, 12, 3))
def test_at_lines_of_both_ends(start: int) -> None:
    """Whatever is at work, in any task, ends what it is at: the interrupt waits for the program's code."""
    assert interrupt_everywhere(is_ours, steps="line", stride=12, start=start) > 500


@pytest.mark.parametrize("method", ["add", "add_later"])
def test_a_method_can_be_interrupted(method: str) -> None:
    """Even one that would never end: its own code is not protected."""

    @heartline.service
    class Endless:
        def add(self) -> None:
            signal.raise_signal(signal.SIGINT)
            while True:
                pass

        async def add_later(self) -> None:
            self.add()

    async def main() -> None:
        async with (
            heartline.open_server("memory://", services=[Endless()]) as server,
            heartline.open_connection(server.urls[0]) as client,
        ):
            await getattr(client.service(Endless), method)()

    # Beside it may stand that the call was cut off, for both ends are in one program.
    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as raised:
        trio.run(main)
    assert any(isinstance(error, KeyboardInterrupt) for error in leaves(raised.value))


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


PROGRAM = """
import os, signal, sys, threading, time, trio, heartline
from heartline.rpc import Calls

@heartline.service
class Sum:
    def add(self, a: int, b: int) -> int:
        return a + b

async def main():
    interrupts = calls = 0
    async with heartline.open_server("tcp://127.0.0.1:0", services=[Sum()]) as server:
        async with heartline.open_connection(server.urls[0]) as connection:
            add = connection.service(Sum).add
            done = threading.Event()

            def strike():
                while not done.wait(0.003):
                    os.kill(os.getpid(), signal.SIGINT)

            thread = threading.Thread(target=strike)
            thread.start()
            while interrupts < 100:
                try:
                    while True:
                        assert await add(calls, 1) == calls + 1
                        calls += 1
                except KeyboardInterrupt:
                    interrupts += 1
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            done.set()
            thread.join()
            assert await add(1, 1) == 2
            assert not connection._core.part(Calls)._pending
    print("right", calls > 0)

trio.run(main)
"""


def test_in_a_loop_of_calls_over_a_socket() -> None:
    """A hundred times, by a real signal."""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
        # The thread may strike outside of the loop's ``try``: then it ends the program, and says only that.
        if done.returncode == 0:
            assert done.stdout == "right True\n"
            return
        assert "KeyboardInterrupt" in done.stderr.splitlines()[-1], done.stderr
        assert "AssertionError" not in done.stderr, done.stderr
    raise AssertionError(done.stderr)
