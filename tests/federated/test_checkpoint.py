from __future__ import annotations

import hashlib
import io
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heartline.errors import SerializationError
from heartline.federated import _checkpoint
from heartline.federated._checkpoint import MAGIC, Checkpoint, load_checkpoint, save_checkpoint

# Each example writes the same file anew, so the one directory of the test serves all of them.
in_one_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

Watch = Callable[[Callable[[str], object]], None]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARRAYS = npst.arrays(
    npst.floating_dtypes(sizes=(16, 32, 64)) | npst.integer_dtypes() | npst.unsigned_integer_dtypes(),
    npst.array_shapes(min_dims=0, min_side=0),
)
CHECKPOINTS = st.builds(
    Checkpoint,
    round=st.integers(0, 10**12),
    model=st.lists(ARRAYS, max_size=3),
    random_state=VALUES,
    metadata=st.dictionaries(st.text(), VALUES, max_size=3),
)
OLD = Checkpoint(round=1, model=[np.arange(6.0).reshape(2, 3)], metadata={"which": "old"})
NEW = Checkpoint(round=2, model=[np.ones(4, np.float32)], random_state=[1, 2**100], metadata={"which": "new"})


def assert_same(loaded: Checkpoint, saved: Checkpoint) -> None:
    assert (loaded.round, loaded.random_state, loaded.metadata) == (
        saved.round,
        saved.random_state,
        saved.metadata,
    )
    assert len(loaded.model) == len(saved.model)
    for array, original in zip(loaded.model, saved.model, strict=True):
        assert (array.dtype, array.shape) == (original.dtype, original.shape)
        assert array.tobytes() == original.tobytes()


@pytest.mark.slow
@given(CHECKPOINTS)
@in_one_directory
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, checkpoint: Checkpoint) -> None:
    save_checkpoint(tmp_path / "training", checkpoint)
    assert_same(load_checkpoint(tmp_path / "training"), checkpoint)
    assert os.listdir(tmp_path) == ["training"]


def test_a_large_model_and_other_layouts(tmp_path: Path) -> None:
    grid = np.random.default_rng(0).normal(size=(1000, 700))
    saved = Checkpoint(round=3, model=[grid, grid.T, grid[::-2, 5:9], np.asfortranarray(grid)])
    save_checkpoint(str(tmp_path / "training"), saved)
    assert_same(load_checkpoint(str(tmp_path / "training")), saved)


def test_a_random_state_goes_on_where_it_was(tmp_path: Path) -> None:
    python, numpy = random.Random(5), np.random.default_rng(5)
    python.random(), numpy.random()
    state = {"python": python.getstate(), "numpy": numpy.bit_generator.state}
    save_checkpoint(tmp_path / "training", Checkpoint(round=1, model=[], random_state=state))
    expected = python.random(), numpy.random()

    loaded = load_checkpoint(tmp_path / "training").random_state
    version, internal, gauss = loaded["python"]
    python.setstate((version, tuple(internal), gauss))
    numpy.bit_generator.state = loaded["numpy"]
    assert (python.random(), numpy.random()) == expected


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training"
    save_checkpoint(path, NEW)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"^{path} is (no checkpoint|cut short)"):
            load_checkpoint(path)
    path.write_bytes(whole)
    assert_same(load_checkpoint(path), NEW)


@given(st.data())
@in_one_directory
def test_damage_anywhere_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "training"
    save_checkpoint(path, NEW)
    damaged = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(damaged)))
    if at == len(damaged):
        damaged += data.draw(st.binary(min_size=1))
    else:
        damaged[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"^{path} is "):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 a zip", b"heartline checkpoint 3\n" + bytes(99), b"\x93NUMPY\x01\x00"]
)
def test_foreign_files_and_other_versions_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "training"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path} is no checkpoint of this version: it starts with"):
        load_checkpoint(path)


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="training"):
        load_checkpoint(tmp_path / "training")


@pytest.fixture
def before_each_step(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Return a function whose argument is called with the name of each step at the disk, just before it."""

    def watch(callback: Callable[[str], object]) -> None:
        def wrap(owner: object, name: str, describe: Callable[..., str]) -> None:
            real = getattr(owner, name)

            def step(*args: Any) -> Any:
                callback(describe(*args))
                return real(*args)

            monkeypatch.setattr(owner, name, step)

        def synced(descriptor: int) -> str:
            return "sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file"

        wrap(_checkpoint._HashingFile, "write", lambda *_: "write")
        wrap(os, "fsync", synced)
        wrap(Path, "replace", lambda *_: "rename")

    return watch


def test_whoever_looks_in_between_sees_the_old_or_the_new(tmp_path: Path, before_each_step: Watch) -> None:
    """So does whoever comes after a crash: data is on the disk before it gets its name."""
    path = tmp_path / "training"
    save_checkpoint(path, OLD)
    seen: list[tuple[str, int]] = []
    before_each_step(lambda name: seen.append((name, load_checkpoint(path).round)))
    save_checkpoint(path, NEW)
    writes = len(seen) - 3
    assert writes > 2
    assert seen[:writes] == [("write", OLD.round)] * writes
    assert seen[writes:] == [("sync file", OLD.round), ("rename", OLD.round), ("sync directory", NEW.round)]


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("fail_at", ["write", "sync file", "rename"])
def test_a_save_that_fails_leaves_the_old_checkpoint(
    tmp_path: Path, before_each_step: Watch, fail_at: str, error: BaseException
) -> None:
    path = tmp_path / "training"
    save_checkpoint(path, OLD)

    def fail(name: str) -> None:
        if name == fail_at:
            raise error

    before_each_step(fail)
    with pytest.raises(type(error)):
        save_checkpoint(path, NEW)
    assert_same(load_checkpoint(path), OLD)
    assert os.listdir(tmp_path) == ["training"]


def test_what_a_killed_save_left_behind_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "training"
    save_checkpoint(path, NEW)
    whole = path.read_bytes()
    save_checkpoint(path, OLD)
    for length in (0, 40, len(whole) - 1, len(whole) + 1000):
        path.with_name("training.new").write_bytes(whole.ljust(length, b"x")[:length])
        assert_same(load_checkpoint(path), OLD)
        save_checkpoint(path, OLD)
        assert os.listdir(tmp_path) == ["training"]


@pytest.mark.parametrize("field", ["random_state", "metadata"])
def test_what_cbor_cannot_carry_is_refused_and_the_old_checkpoint_stays(tmp_path: Path, field: str) -> None:
    path = tmp_path / "training"
    save_checkpoint(path, OLD)
    with pytest.raises(SerializationError, match="random_state or metadata of a checkpoint"):
        save_checkpoint(path, Checkpoint(round=2, model=[], **{field: {"x": np.float32(1)}}))
    assert_same(load_checkpoint(path), OLD)


@pytest.mark.parametrize("round", [-1, 1.0, None])
def test_rounds_count_from_zero(round: Any) -> None:
    with pytest.raises(ValueError, match="round must be an int of at least 0"):
        Checkpoint(round=round, model=[])
    assert Checkpoint(round=0, model=[]).round == 0


def test_a_checkpoint_holds_a_model_without_objects() -> None:
    with pytest.raises(ValueError, match=r"model\[0\] .* got dtype object"):
        Checkpoint(round=1, model=[np.array([object()])])


def test_a_file_is_never_unpickled(tmp_path: Path) -> None:
    """A forged file with a right checksum, whose array is a pickle."""
    bomb = io.BytesIO()
    np.save(bomb, np.array([os.getcwd], dtype=object), allow_pickle=True)
    header = cbor2.dumps({"round": 1, "random_state": None, "metadata": {}, "arrays": 1})
    body = len(header).to_bytes(4, "big") + header + bomb.getvalue()
    path = tmp_path / "training"
    path.write_bytes(MAGIC + hashlib.sha256(body).digest() + body)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_checkpoint(path)
