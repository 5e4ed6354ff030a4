"""What a trainer carries from round to round; kept on disk too, if there is a checkpoint file."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import trio

from heartline.federated._checkpoint import Checkpoint
from heartline.federated._files import Files
from heartline.federated._journal import Draw, Journal
from heartline.federated._model import Model
from heartline.wire import CborSerializer, Segment, unwrap, wrap

__all__ = ["Progress", "config_of"]

_cbor = CborSerializer()


class Progress:
    """The model, its version, and what the next draw depends on.

    All of it changes at once, after it was written to disk: an error or a cancellation leaves the old state.
    """

    def __init__(self, model: Model, *, seed: int, files: Files | None, make_id: Callable[[], str]) -> None:
        self.model: Model = model
        self.version: int = 0
        self.run: str = make_id()
        self.expected: set[str] = set()
        """Learners that take part: the next draw waits for them for a while."""
        self._random_state: Any = random.Random(seed).getstate()
        self._files = files
        self._make_id = make_id

    async def load(self) -> bool:
        """Load the checkpoint, or write the first one; tells whether there was one."""
        if self._files is None:
            return False
        saved = await trio.to_thread.run_sync(self._files.load)
        if saved is None:
            await self._save(self.run, self.version, self.model, self._random_state)
            return False
        self.model, self.version, self._random_state = saved.model, saved.round, saved.random_state
        self.run, self.expected = saved.metadata["run"], set(saved.metadata["learners"])
        return True

    async def advance(self, model: Model, random_state: Any) -> None:
        """End a round with a new model."""
        await self._save(self.run, self.version + 1, model, random_state)
        self.model, self.version, self._random_state = model, self.version + 1, random_state

    def skip(self, random_state: Any) -> None:
        """End a round without a model: the next one draws a new cohort."""
        self._random_state = random_state

    async def begin_new_run(self) -> None:
        """Go on from the same model as another run: its versions are not compared with those of this."""
        run = self._make_id()
        await self._save(run, self.version, self.model, self._random_state)
        self.run = run

    async def _save(self, run: str, version: int, model: Model, random_state: Any) -> None:
        if self._files is not None:
            metadata = {"run": run, "learners": sorted(self.expected)}
            saved = Checkpoint(round=version, model=model, random_state=random_state, metadata=metadata)
            await trio.to_thread.run_sync(self._files.save, saved)

    # The round that follows

    async def open_journal(self) -> Journal | None:
        """The journal of the round that was begun, if there is one."""
        if self._files is None:
            return None
        return await trio.to_thread.run_sync(self._files.open_journal)

    async def create_journal(self, draw: Draw) -> Journal | None:
        """Begin the journal of a round, if there is a place for it."""
        if self._files is None:
            return None
        return await trio.to_thread.run_sync(self._files.create_journal, draw)

    def draw(self, present: list[str], count: int | float | None, least: int, config: dict[str, Any]) -> Draw:
        """Draw ``count`` of the learners, or that fraction of them, and at least ``least``.

        The state of the draws stays as it is until the round is over, so that it can be drawn again.
        """
        version, internal, gauss = self._random_state
        rng = random.Random()
        rng.setstate((version, tuple(internal), gauss))  # in a file tuples become lists
        if count is None:
            count = len(present)
        elif isinstance(count, float):
            count = round(count * len(present))
        segments: list[Segment] = []
        return Draw(
            checkpoint=b"" if self._files is None else self._files.digest,
            order=self._make_id(),
            cohort=sorted(rng.sample(present, min(len(present), max(least, count)))),
            present=present,
            random_state=rng.getstate(),
            config=wrap(_cbor.encode(config, segments), segments),
        )


def config_of(draw: Draw) -> dict[str, Any]:
    """The config that the learners get with the order."""
    config: dict[str, Any] = _cbor.decode(*unwrap(draw.config))
    return config
