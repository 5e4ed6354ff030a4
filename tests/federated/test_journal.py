"""The journal alone: what is read is what was written, torn ends are cut, damage is an error."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartline.federated import TrainResult
from heartline.federated._journal import MAGIC, Draw, Entry, Journal, LeftOut, Received, TooFewResults
from tests.federated.test_checkpoint import ARRAYS, VALUES, in_one_directory

CHECKPOINT = b"d" * 32
RESULTS = st.builds(
    TrainResult,
    model=st.lists(ARRAYS, max_size=3),
    samples=st.integers(1, 2**53),
    metrics=st.dictionaries(
        st.text(st.sampled_from("aé∞ -"), min_size=1), st.floats(allow_nan=False), max_size=3
    ),
)
ENTRIES = st.one_of(
    st.builds(Received, st.text(), RESULTS),
    st.builds(LeftOut, st.text(), st.text()),
    st.just(TooFewResults()),
)


def draw(**changes: Any) -> Draw:
    fields = {
        "checkpoint": CHECKPOINT,
        "order": "0123",
        "cohort": ["a", "b"],
        "present": ["a", "b", "c"],
        "random_state": None,
        "configs": [b""],
    }
    return Draw(**fields | changes)


def received(learner: str, *values: float) -> Received:
    return Received(learner, TrainResult(model=[np.array(values)], samples=3, metrics={"loss": 0.5}))


def told(entry: Entry) -> Any:
    """What can be compared of an entry."""
    if isinstance(entry, Received):
        arrays = [(array.dtype, array.shape, array.tobytes()) for array in entry.result.model]
        return entry.learner, arrays, entry.result.samples, entry.result.metrics
    return entry


def reopen(path: Path) -> tuple[Journal, list[Any]]:
    journal = Journal.open(path, CHECKPOINT)
    assert journal is not None
    return journal, [told(entry) for entry in journal.replay()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "training.journal"


@given(st.lists(ENTRIES, max_size=5), VALUES, st.binary())
@in_one_directory
def test_what_is_read_is_what_was_written(
    tmp_path: Path, entries: list[Entry], state: Any, config: bytes
) -> None:
    path = tmp_path / "training.journal"
    written = draw(random_state=state, configs=[config])
    journal = Journal.create(path, written)
    for index, entry in enumerate(entries):
        if index == 2:  # whoever goes on later appends behind the rest
            journal, _ = reopen(path)
        journal.append(entry)
    journal, read = reopen(path)
    assert read == [told(entry) for entry in entries]
    assert journal.draw == written
    assert os.listdir(tmp_path) == ["training.journal"]


ENTRY_LIST: list[Entry] = [received("a", 1.0, 2.0), LeftOut("b", "away"), received("c", 3.0)]


def _written(path: Path) -> list[int]:
    """Write a journal; returns where each record ends."""
    journal = Journal.create(path, draw())
    ends = [path.stat().st_size]
    for entry in ENTRY_LIST:
        journal.append(entry)
        ends.append(path.stat().st_size)
    return ends


@pytest.mark.parametrize("fill", [0, 100])
def test_every_torn_end_is_cut_off(path: Path, fill: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short, or as long as it should be and not all there: both are what a crash can leave."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a thousand times, and not the point here
    ends = _written(path)
    whole = path.read_bytes()
    for length in range(ends[0], len(whole)):
        good = sum(end <= length for end in ends) - 1
        end = min(length + fill, next(end for end in ends if end > length))
        path.write_bytes(whole[:length].ljust(end, b"\0"))
        journal, read = reopen(path)
        expected = [told(entry) for entry in ENTRY_LIST[:good]]
        if length < end in ends and whole[length:end].count(0) == end - length:
            good += 1  # the zeros are what stood there
            expected = [told(entry) for entry in ENTRY_LIST[:good]]
        assert read == expected, length
        journal.append(TooFewResults())
        assert reopen(path)[1] == [*expected, TooFewResults()], "the torn end is gone"


@given(st.data())
@in_one_directory
def test_damage_is_an_error_and_never_another_result(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "training.journal"
    ends = _written(path)
    damaged = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        _, read = reopen(path)
    except ValueError as error:
        assert str(error).startswith(f"{path} is ")  # noqa: PT017 - both ways are right
        assert "move it away" in str(error)  # noqa: PT017
    else:
        assert at >= ends[-2], "only what may be torn is cut off"
        assert read == [told(entry) for entry in ENTRY_LIST[:-1]]


def test_a_journal_of_another_checkpoint_is_none(path: Path) -> None:
    assert Journal.open(path, CHECKPOINT) is None
    _written(path)
    assert Journal.open(path, b"e" * 32) is None
    journal = Journal.create(path, draw(order="4567"))
    assert list(journal.replay()) == []


@pytest.mark.parametrize("content", [b"", b"heartline journal 3\n" + bytes(99), MAGIC, MAGIC + bytes(99)])
def test_foreign_and_empty_files_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path} is .*; move it away, and the round starts over$"):
        Journal.open(path, CHECKPOINT)


def test_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry is not there, the error says where, and there is room for the next one later."""
    ends = _written(path)
    journal, _ = reopen(path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="round's journal cannot be written: No space left") as caught:
            journal.append(received("d", *range(1000)))
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
        with pytest.raises(OSError, match="round's journal cannot be written: No space left"):
            Journal.create(path, draw(order="other"))
    assert path.stat().st_size > ends[-1]
    journal.append(LeftOut("e", "late"))
    assert reopen(path)[1] == [*map(told, ENTRY_LIST), LeftOut("e", "late")]
    assert os.listdir(path.parent) == [path.name]
