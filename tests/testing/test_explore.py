"""Many seeds: the first that fails is told, whatever process ran it, and nothing is left behind."""

from __future__ import annotations

import functools
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from heartline.errors import ConfigurationError
from heartline.testing import SeedFailed, World, _workers, explore, seeds
from heartline.testing._workers import serve
from tests.examples.programs import children, is_alive, wait_until
from tests.patience import PATIENCE

from .explored import (
    FIRST_BAD,
    ends_its_process,
    fails_late,
    never_ends,
    returns_a_closure,
)
from .helpers import nothing

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_seed_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEARTLINE_SEED", raising=False)


async def fails_with_two(world: World) -> None:
    async def fail(number: int) -> None:
        raise ValueError(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, 1)
        nursery.start_soon(fail, 2)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_seed_that_fails_is_told(processes: int) -> None:
    results: dict[int, int] = {}
    before = children(os.getpid())
    with pytest.raises(SeedFailed) as caught:
        explore(fails_late, range(1, 100), processes=processes, on_result=results.__setitem__)
    failed = caught.value
    assert failed.seed == FIRST_BAD
    assert results == {seed: seed * 10 for seed in range(1, FIRST_BAD)}
    assert list(results) == sorted(results)
    assert failed.error.splitlines()[0] == "AssertionError: too large"
    assert failed.error.splitlines()[1].startswith("  tests/testing/explored.py, line ")
    assert failed.story == "     0.000  world  begins"
    test = f"tests/testing/test_explore.py::test_the_first_seed_that_fails_is_told[{processes}]"
    assert failed.replay == f"HEARTLINE_SEED={FIRST_BAD} python -m pytest {shlex.quote(test)}"
    for part in (f"seed {FIRST_BAD}: AssertionError", failed.story, f"to see it again: {failed.replay}"):
        assert part in str(failed)
    assert "in fails_late" in str(failed.__cause__) or processes == 1
    assert not {pid for pid in children(os.getpid()) - before if "tracker" not in _command(pid)}


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_all_seeds_hold() -> None:
    assert explore(nothing, range(30), processes=1) == 30
    assert explore(nothing, [], processes=1) == 0
    assert explore(nothing, (seed for seed in range(3)), processes=1) == 3


def test_a_failure_here_has_the_error_as_its_cause() -> None:
    with pytest.raises(SeedFailed) as caught:
        explore(fails_late, [50])
    cause = caught.value.__cause__
    assert isinstance(cause, AssertionError)
    assert not getattr(cause, "__notes__", [])


def test_every_error_of_a_group_is_told() -> None:
    with pytest.raises(SeedFailed) as caught:
        explore(fails_with_two, [1])
    assert {line for line in caught.value.error.splitlines() if not line.startswith(" ")} == {
        "ValueError: 1",
        "ValueError: 2",
    }


def test_an_error_that_was_never_raised_itself_is_told() -> None:
    async def program(_world: World) -> None:
        raise ExceptionGroup("both", [ValueError("one"), KeyError("two")])

    with pytest.raises(SeedFailed) as caught:
        explore(program, [1])
    assert caught.value.error == "ValueError: one\nKeyError: 'two'"


def test_the_environment_chooses_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    async def main(world: World) -> None:
        ran.append(world.seed)
        for number in range(100):
            world.log(number)
        assert world.seed != 12

    monkeypatch.setenv("HEARTLINE_SEED", "17")
    assert explore(main, range(100)) == 1
    assert ran == [17]
    monkeypatch.setenv("HEARTLINE_SEED", "12")
    with pytest.raises(SeedFailed) as caught:
        explore(main, range(100))
    assert len(caught.value.story.splitlines()) == 100
    monkeypatch.setenv("HEARTLINE_SEED", "x")
    with pytest.raises(ConfigurationError, match=r"HEARTLINE_SEED must be a seed, .* not 'x'"):
        explore(main)


def test_the_line_to_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    def line() -> str:
        with pytest.raises(SeedFailed) as caught:
            explore(fails_late, [50])
        return caught.value.replay

    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.setattr(sys, "orig_argv", ["python", "my program.py", "--fast"])
    assert line() == "HEARTLINE_SEED=50 python 'my program.py' --fast"
    with pytest.raises(SeedFailed, match=r"to see it again: run 50$"):
        explore(fails_late, [50], replay="run {}".format)


@pytest.mark.slow
def test_a_process_that_ends_has_failed() -> None:
    with pytest.raises(SeedFailed, match="seed 1: its process ended with exit code 3"):
        explore(ends_its_process, range(10), processes=2)


@pytest.mark.slow
def test_a_seed_that_hangs_has_failed(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SeedFailed, match=r"seed 1: it took more than 0\.5 s of real time"):
        explore(never_ends, range(10), processes=2, patience=0.5)
    assert "in never_ends" in capfd.readouterr().err


@pytest.mark.slow
def test_ctrl_c_ends_all_processes() -> None:
    command = [sys.executable, "-m", "tests.testing.explored"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == [b"runs\n"] * 2
            started = children(process.pid)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode != 0
    assert errors.decode().rstrip().endswith("KeyboardInterrupt")
    assert errors.count(b"Traceback") == 1, "a process of a seed has complained too"
    wait_until(lambda: not any(map(is_alive, started)))


@pytest.mark.slow
def test_what_other_processes_cannot_get() -> None:
    async def inner(world: World) -> None: ...

    for program in (inner, functools.partial(inner)):
        with pytest.raises(ConfigurationError, match="let it be an async function of a module"):
            explore(program, range(2), processes=2)
    with pytest.raises(SeedFailed, match="its process ended with exit code 1"):
        explore(returns_a_closure, range(2), processes=2, on_result=lambda _seed, _result: None)
    assert explore(returns_a_closure, range(2), processes=2) == 2
    for wrong in (0, -1, 1.5):
        with pytest.raises(ConfigurationError, match="processes must be at least 1, not "):
            explore(nothing, processes=wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_program_that_cannot_be_imported_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_workers, "_pickle", lambda job: b"cno_such_module\nname\n.")
    with pytest.raises(ConfigurationError, match="cannot import the program: ModuleNotFoundError"):
        explore(nothing, range(2), processes=2)
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from heartline.testing import explore; from tests.testing.helpers import nothing; explore(nothing)"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    command = [sys.executable, str(script)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert 'a script needs its explore() below if __name__ == "__main__"' in result.stderr


def test_the_life_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is in another process: here its lines are counted as covered."""
    monkeypatch.setattr(os, "setpgid", lambda *_: None)
    monkeypatch.setattr("faulthandler.enable", lambda: None)
    ours, theirs = multiprocessing.Pipe()
    for seed in (1, 2):
        ours.send(seed)
    monkeypatch.setattr("pickle.loads", lambda _: str)
    with pytest.raises(ValueError, match="enough"):
        serve(_Enough(theirs), b"")  # type: ignore[arg-type]
    assert [ours.recv() for _ in range(3)] == [None, "1", "2"]


class _Enough:
    """A pipe to a process that raises in its third run."""

    def __init__(self, pipe: object) -> None:
        self._pipe = pipe
        self._left = 2

    def send(self, what: object) -> None:
        self._pipe.send(what)  # type: ignore[attr-defined]

    def recv(self) -> object:
        self._left -= 1
        if self._left < 0:
            raise ValueError("enough")
        return self._pipe.recv()  # type: ignore[attr-defined]


# The decorator


@pytest.mark.slow
@seeds(20)
async def test_a_decorated_function_is_a_test(world: World) -> None:
    """Of pytest: this one runs, on all cores."""
    assert 0 <= world.seed < 20
    await trio.sleep(1)


@seeds([3, 4, 5], processes=1)
async def decorated(world: World) -> None:
    """Fails at 4."""
    assert world.seed != 4, "four"


def test_a_decorated_test_fails_with_the_story() -> None:
    assert decorated.__doc__ == "Fails at 4."
    with pytest.raises(SeedFailed, match=r"^seed 4: AssertionError: four"):
        decorated()


def test_a_decorated_inner_function_runs_here() -> None:
    ran: list[int] = []

    @seeds(3, processes=1)
    async def inner(world: World) -> None:
        ran.append(world.seed)

    inner()
    assert ran == [0, 1, 2]


def test_what_cannot_be_decorated() -> None:
    with pytest.raises(ConfigurationError, match="@seeds is for an async function that takes a world, not <"):
        seeds(3)(lambda world: nothing(world))
