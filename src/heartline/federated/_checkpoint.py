"""A training's state on disk: complete or absent, and never garbage.

A file holds, in this order:

- ``MAGIC``, a line of text that names the format and its version;
- the SHA-256 digest of all that follows;
- the fields and the model, as in :mod:`heartline.federated._body`; with a strategy's state a last array
  behind those of the model, which holds the bytes of the state.

The functions block for as long as the disk does; call them in a thread.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import cbor2
import msgspec
import numpy as np
from numpy.typing import NDArray

from heartline.errors import SerializationError
from heartline.federated._body import encode_header, read_body, sync_directory, write_arrays
from heartline.federated._model import Model, as_model
from heartline.federated._values import pack, unpack

MAGIC = b"heartline checkpoint 2\n"
_READABLE = (MAGIC, b"heartline checkpoint 1\n")
"""The first version knew no state of a strategy; everything else is as it was."""
_BODY = len(MAGIC) + hashlib.sha256().digest_size


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a training needs to go on as if it had never stopped.

    - ``round``: the number of completed rounds, from 0.
    - ``model``: the global model after that round.
    - ``random_state``: the state of the generator that draws the learners of a round; any value that CBOR
      can carry. Tuples come back as lists.
    - ``strategy``: the state of a :class:`StatefulStrategy`, ``None`` for any other; any value that can be
      sent, arrays included.
    - ``metadata``: anything else to keep, by name; CBOR as well.

    Raises :exc:`ValueError` when made with a negative round or with a model that is none.
    """

    round: int
    model: Model
    random_state: Any = None
    strategy: Any = None
    metadata: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not isinstance(self.round, int) or self.round < 0:
            raise ValueError(f"round must be an int of at least 0, got {self.round!r}")
        msgspec.structs.force_setattr(self, "model", as_model(self.model))


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Put ``checkpoint`` at ``path``, in place of the one before it.

    The file is written beside ``path`` (with ``.new`` added to the name), flushed to the disk and then
    renamed, so after a crash at any moment ``path`` is either the old checkpoint or the new one. One writer
    per path at a time.

    Raises :exc:`heartline.SerializationError` if ``random_state``, ``strategy`` or ``metadata`` holds what
    they cannot carry, :exc:`OSError` if the disk refuses; the old checkpoint is then still there.
    """
    path = Path(path)
    # The state travels behind the model, as one more array: a momentum is as large as the model.
    state = [] if checkpoint.strategy is None else [_packed(checkpoint.strategy)]
    arrays = checkpoint.model + state
    header = _encode_header(checkpoint, arrays)
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            _write(file, header, arrays)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Return the checkpoint at ``path``.

    Raises :exc:`FileNotFoundError` if there is none, and :exc:`ValueError`, with the path and the reason, if
    the file is not a checkpoint, is of another format version, is cut short or is damaged.
    """
    with open(path, "rb") as file:
        magic = file.read(len(MAGIC))
        if magic not in _READABLE:
            raise ValueError(
                f"{os.fspath(path)} is no checkpoint of this version: it starts with {magic!r}, not {MAGIC!r}"
            )
        digest = file.read(_BODY - len(MAGIC))
        if hashlib.file_digest(file, "sha256").digest() != digest:
            raise ValueError(f"{os.fspath(path)} is cut short or damaged: its checksum does not match")
        file.seek(_BODY)
        return _read(file)


def read_digest(path: Path) -> bytes:
    """Return the checksum in the file at ``path``, which tells this checkpoint from every other."""
    with path.open("rb") as file:
        return file.read(_BODY)[len(MAGIC) :]


class _HashingFile:
    """The write side of a file that hashes what passes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return self._file.write(data)


def _packed(state: Any) -> NDArray[np.uint8]:
    return np.frombuffer(pack("strategy of a checkpoint", state), np.uint8)


def _encode_header(checkpoint: Checkpoint, arrays: Model) -> bytes:
    fields = {name: getattr(checkpoint, name) for name in ("round", "random_state", "metadata")}
    fields["stateful"] = checkpoint.strategy is not None
    try:
        return encode_header(fields, arrays)
    except cbor2.CBOREncodeError as error:
        raise SerializationError(f"random_state or metadata of a checkpoint: {error}") from error


def _write(file: BinaryIO, header: bytes, model: Model) -> None:
    file.seek(_BODY)
    body = _HashingFile(file)
    body.write(header)
    write_arrays(body, model)
    # Written last: until then the file is no checkpoint.
    file.seek(0)
    file.write(MAGIC + body.hash.digest())


def _read(file: BinaryIO) -> Checkpoint:
    fields, model = read_body(file)
    strategy = unpack(model.pop().tobytes()) if fields.pop("stateful", False) else None
    return Checkpoint(model=model, strategy=strategy, **fields)
