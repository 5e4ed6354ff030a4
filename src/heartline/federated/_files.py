"""The two files of a training: its checkpoint, and the journal of the round that follows it."""

from __future__ import annotations

from pathlib import Path

from heartline.federated._checkpoint import Checkpoint, load_checkpoint, read_digest, save_checkpoint
from heartline.federated._journal import Draw, Journal

__all__ = ["Files"]


class Files:
    """A checkpoint at ``path`` and a journal beside it. The methods block; call them in a thread."""

    def __init__(self, path: Path) -> None:
        self.digest: bytes = b""
        """The checksum of the checkpoint that was loaded or saved last; a journal names it."""
        self._checkpoint = path
        self._journal = path.with_name(path.name + ".journal")

    def load(self) -> Checkpoint | None:
        """The checkpoint, ``None`` if there is none yet; raises :exc:`ValueError` if it is damaged."""
        try:
            saved = load_checkpoint(self._checkpoint)
        except FileNotFoundError:
            return None
        self.digest = read_digest(self._checkpoint)
        return saved

    def save(self, checkpoint: Checkpoint) -> None:
        """Put a checkpoint in place of the one before it, whose journal is void then."""
        save_checkpoint(self._checkpoint, checkpoint)
        self.digest = read_digest(self._checkpoint)

    def open_journal(self) -> Journal | None:
        """The journal of the round that follows the checkpoint, ``None`` if that was not begun."""
        return Journal.open(self._journal, self.digest)

    def create_journal(self, draw: Draw) -> Journal:
        """Begin the journal of a round, in place of the one before it."""
        return Journal.create(self._journal, draw)
