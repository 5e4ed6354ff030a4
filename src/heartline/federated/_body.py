"""Fields and arrays in a file: what checkpoints and journals are made of.

A body is the length of its header as u32, big-endian, the header, CBOR, with the number of arrays among its
fields, and then each array in NumPy's own ``.npy`` format, one behind the other. No pickle: nothing in it is
executed when it is read.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import cbor2
import numpy as np

from heartline.federated._model import Model

__all__ = ["encode_header", "read_body", "sync_directory", "write_arrays"]

_LENGTH = struct.Struct("!I")


def encode_header(fields: dict[str, Any], model: Model) -> bytes:
    """The header, with its length; raises :exc:`cbor2.CBOREncodeError` for what CBOR cannot carry."""
    header = cbor2.dumps(fields | {"arrays": len(model)})
    return _LENGTH.pack(len(header)) + header


def write_arrays(file: Any, model: Model) -> None:
    """Write the arrays behind the header."""
    for array in model:
        np.lib.format.write_array(file, array, allow_pickle=False)


def read_body(file: BinaryIO) -> tuple[dict[str, Any], Model]:
    """The fields and the arrays of a body whose checksum is right."""
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    fields = cbor2.loads(file.read(length))
    model = [np.lib.format.read_array(file, allow_pickle=False) for _ in range(fields.pop("arrays"))]
    return fields, model


def sync_directory(directory: Path) -> None:
    """Make a rename itself last: a directory is written to disk on its own."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
