"""The round in progress, on disk: what was decided before any learner was asked, and what came back so far.

With the checkpoint before it, a journal holds all that a trainer needs to go on in the middle of a round. The
file holds ``MAGIC``, a line of text, and then records. The first is the :class:`Draw`; each of the others, an
:data:`Entry`, is appended and synced to the disk before what it tells of counts. A record is

- the length of its body, u64, and the CRC-32 of those eight bytes, u32, both big-endian;
- the SHA-256 digest of the body;
- the body: see :mod:`heartline.federated._body`.

A crash can tear the last record only, since each is on the disk before the next one is begun. So a record
that the file's end cuts short, or that is wrong and ends there, is cut off; what is wrong elsewhere is
damage, and an error. A journal belongs to one checkpoint, which it names by its checksum; beside any other
checkpoint the journal is void.

The functions block for as long as the disk does; call them in a thread.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import msgspec

from heartline.federated._body import encode_header, read_body, sync_directory, write_arrays
from heartline.federated._model import Model, TrainResult

__all__ = ["MAGIC", "Draw", "Entry", "Journal", "LeftOut", "Received", "TooFewResults"]

MAGIC = b"heartline journal 2\n"
_LENGTH = struct.Struct("!Q")
_HEAD = struct.Struct("!8sI32s")


class Draw(msgspec.Struct, frozen=True, kw_only=True):
    """What is decided at the beginning of a round."""

    checkpoint: bytes
    """The checksum of the checkpoint that the round starts from."""
    order: str
    """The id of the order to the learners."""
    cohort: list[str]
    present: list[str]
    """The learners out of whom the cohort was drawn."""
    random_state: Any
    """The state of the sampling, after the draw."""
    configs: list[bytes]
    """The config of the orders, or those of the cohort in its order, in the wire's envelope."""


@dataclass(frozen=True, slots=True)
class Received:
    """A learner's result has arrived."""

    learner: str
    result: TrainResult


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The round goes on without a learner."""

    learner: str
    reason: str


@dataclass(frozen=True, slots=True)
class TooFewResults:
    """The round had too few results; the next one is another try."""


Entry: TypeAlias = Received | LeftOut | TooFewResults


class Journal:
    """The journal at ``path``; made by :meth:`create` and :meth:`open`."""

    def __init__(self, path: Path, draw: Draw, end: int) -> None:
        self.draw = draw
        self._path = path
        self._end = end
        """Bytes of the file that are known to be good; the next entry overwrites what follows them."""

    @classmethod
    def create(cls, path: Path, draw: Draw) -> Journal:
        """Begin a journal, in place of the one before; raises :exc:`OSError` if the disk refuses."""
        start = MAGIC + _encode(msgspec.structs.asdict(draw), [])
        new = path.with_name(path.name + ".new")
        try:
            with new.open("wb") as file:
                file.write(start)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
            sync_directory(path.parent)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise _explained(error, path) from error
        return cls(path, draw, len(start))

    @classmethod
    def open(cls, path: Path, checkpoint: bytes) -> Journal | None:
        """The journal of the round that follows a checkpoint, ``None`` if there is none.

        Raises :exc:`ValueError`, with the way out, if the file is no journal of this version or is damaged.
        """
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        with file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError(f"{path} is no journal of this version; {_WAY_OUT}")
            body = _read(file, path)
            if body is None:  # it had its name only when it was whole
                raise _damaged(path, len(MAGIC))
            draw = msgspec.convert(body[0], Draw)
            return cls(path, draw, file.tell()) if draw.checkpoint == checkpoint else None

    def replay(self) -> Iterator[Entry]:
        """The entries so far, in their order; raises :exc:`ValueError`, with the way out, for damage."""
        with self._path.open("rb") as file:
            file.seek(self._end)
            while (body := _read(file, self._path)) is not None:
                self._end = file.tell()
                yield _decode(*body)

    def append(self, entry: Entry) -> None:
        """Put an entry on the disk; raises :exc:`OSError`, and leaves the entry out, if the disk refuses."""
        match entry:
            case Received(learner, result):
                counted = {"samples": result.samples, "metrics": result.metrics}
                record = _encode({"learner": learner, **counted}, result.model)
            case LeftOut(learner, reason):
                record = _encode({"learner": learner, "reason": reason}, [])
            case TooFewResults():
                record = _encode({}, [])
        try:
            with self._path.open("r+b") as file:
                file.truncate(self._end)
                file.seek(self._end)
                file.write(record)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _explained(error, self._path) from error
        self._end += len(record)


_WAY_OUT = "move it away, and the round starts over"


def _encode(fields: dict[str, Any], model: Model) -> bytes:
    file = io.BytesIO()
    file.seek(_HEAD.size)
    file.write(encode_header(fields, model))
    write_arrays(file, model)
    body = file.getbuffer()[_HEAD.size :]
    length = _LENGTH.pack(len(body))
    digest = hashlib.sha256(body).digest()
    body.release()
    file.seek(0)
    file.write(_HEAD.pack(length, zlib.crc32(length), digest))
    return file.getvalue()


def _decode(fields: dict[str, Any], model: Model) -> Entry:
    if "samples" in fields:
        return Received(fields.pop("learner"), TrainResult(model=model, **fields))
    return LeftOut(**fields) if fields else TooFewResults()


def _read(file: BinaryIO, path: Path) -> tuple[dict[str, Any], Model] | None:
    """The body of the next record; ``None`` where the file ends, or a torn record does."""
    start = file.tell()
    rest = os.fstat(file.fileno()).st_size - start - _HEAD.size
    head = file.read(_HEAD.size)
    if rest < 0:
        return None
    packed, check, digest = _HEAD.unpack(head)
    if zlib.crc32(packed) != check:
        if any(file.read()):
            raise _damaged(path, start)
        return None  # torn as well: zeros are room that the file system gave and never filled
    (length,) = _LENGTH.unpack(packed)
    if length > rest:
        return None
    body = file.read(length)
    if hashlib.sha256(body).digest() != digest:
        if length == rest:
            return None
        raise _damaged(path, start)
    return read_body(io.BytesIO(body))


def _damaged(path: Path, start: int) -> ValueError:
    return ValueError(f"{path} is damaged in the record at byte {start}; {_WAY_OUT}")


def _explained(error: OSError, path: Path) -> OSError:
    return OSError(error.errno, f"the round's journal cannot be written: {error.strerror}", str(path))
