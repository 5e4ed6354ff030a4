"""What a trainer carries from round to round; kept on disk too, if there is a checkpoint file."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from heartline.federated._checkpoint import Checkpoint
from heartline.federated._files import Files
from heartline.federated._journal import Draw, Journal
from heartline.federated._keeper import StrategyKeeper
from heartline.federated._model import Model
from heartline.federated._values import unpack
from heartline.federated._worker import Worker

__all__ = ["Progress"]


class Progress:
    """The model, its version, the strategy's state, and what the next draw depends on.

    All of it changes at once, after it was written to disk: an error or a cancellation leaves the old state.
    """

    def __init__(
        self,
        model: Model,
        *,
        strategy: StrategyKeeper,
        seed: int,
        files: Files | None,
        worker: Worker,
        make_id: Callable[[], str],
    ) -> None:
        self.model: Model = model
        self.version: int = 0
        self.run: str = make_id()
        self.expected: set[str] = set()
        """Learners that take part: the next draw waits for them for a while."""
        self._random_state: Any = random.Random(seed).getstate()
        self._strategy = strategy
        self._files = files
        self._worker = worker
        self._make_id = make_id

    async def load(self) -> bool:
        """Load the checkpoint, or write the first one; tells whether there was one."""
        if self._files is None:
            return False
        saved = await self._worker.run(self._files.load)
        if saved is None:
            await self._save()
            return False
        self._strategy.load(saved.strategy)
        self.model, self.version, self._random_state = saved.model, saved.round, saved.random_state
        self.run, self.expected = saved.metadata["run"], set(saved.metadata["learners"])
        return True

    async def advance(self, model: Model, state: bytes, random_state: Any) -> None:
        """End a round with a new model, and a new state of the strategy."""
        await self._save(version=self.version + 1, model=model, state=state, random_state=random_state)
        self._strategy.settle(state)
        self.model, self.version, self._random_state = model, self.version + 1, random_state

    def skip(self, random_state: Any) -> None:
        """End a round without a model: the next one draws a new cohort."""
        self._random_state = random_state

    async def begin_new_run(self) -> None:
        """Go on from the same model as another run: its versions are not compared with those of this."""
        run = self._make_id()
        await self._save(run=run)
        self.run = run

    async def _save(
        self,
        *,
        run: str | None = None,
        version: int | None = None,
        model: Model | None = None,
        state: bytes | None = None,
        random_state: Any = None,
    ) -> None:
        """Write the checkpoint: what is there, except for what is given."""
        if self._files is None:
            return
        kept = self._strategy.kept if state is None else state
        make = partial(
            Checkpoint,
            round=self.version if version is None else version,
            model=self.model if model is None else model,
            random_state=self._random_state if random_state is None else random_state,
            metadata={"run": run or self.run, "learners": sorted(self.expected)},
        )
        await self._worker.run(_save, self._files, make, kept)

    # The round that follows

    async def open_journal(self) -> Journal | None:
        """The journal of the round that was begun, if there is one."""
        if self._files is None:
            return None
        return await self._worker.run(self._files.open_journal)

    async def create_journal(self, draw: Draw) -> Journal | None:
        """Begin the journal of a round, if there is a place for it."""
        if self._files is None:
            return None
        return await self._worker.run(self._files.create_journal, draw)

    def draw(
        self,
        present: list[str],
        count: int | float | None,
        least: int,
        configure: Callable[[list[str]], list[bytes]],
    ) -> Draw:
        """Draw ``count`` of the learners, or that fraction of them, and at least ``least``.

        ``configure`` makes the configs of a cohort. The state of the draws stays as it is until the round is
        over, so that it can be drawn again.
        """
        version, internal, gauss = self._random_state
        rng = random.Random()
        rng.setstate((version, tuple(internal), gauss))  # in a file tuples become lists
        if count is None:
            count = len(present)
        elif isinstance(count, float):
            count = round(count * len(present))
        cohort = sorted(rng.sample(present, min(len(present), max(least, count))))
        return Draw(
            checkpoint=b"" if self._files is None else self._files.digest,
            order=self._make_id(),
            cohort=cohort,
            present=present,
            random_state=rng.getstate(),
            configs=configure(cohort),
        )


def _save(files: Files, make: Callable[..., Checkpoint], state: bytes) -> None:
    files.save(make(strategy=unpack(state) if state else None))
