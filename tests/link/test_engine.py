"""The tasks of an endpoint end with its block, at whatever moment that is left."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import trio

from heartline.link import open_engine
from tests.patience import PATIENCE


@pytest.fixture
def watchdog() -> Iterator[None]:
    """A shielded task that nobody cancels could not be ended by any scope around it."""

    def bark(_number: int, _frame: object) -> None:
        raise AssertionError("the block has not ended")

    before = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class Striking(trio.abc.Instrument):
    """Ctrl-C before this step of the run."""

    def __init__(self, step: int) -> None:
        self.left = step

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
        self.left -= 1


@pytest.mark.usefixtures("watchdog")
def test_ctrl_c_at_any_step_ends_it() -> None:
    entered = []

    async def main() -> None:
        async with open_engine() as engine:
            engine.nursery.start_soon(trio.sleep_forever)
            entered.append(True)
            await trio.lowlevel.checkpoint()

    struck = 0
    while True:
        striking = Striking(struck)
        try:
            trio.run(main, instruments=[striking])
        except KeyboardInterrupt:
            struck += 1
        else:
            break
    assert len(entered) < struck, "some came before the body"


@pytest.mark.usefixtures("watchdog")
def test_cancelled_at_any_moment_ends_it() -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with open_engine() as engine:
                engine.nursery.start_soon(trio.sleep_forever)
                await trio.lowlevel.checkpoint()

    trio.run(main)
