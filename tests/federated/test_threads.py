"""A training needs none of the worker threads that the program around it has for everything."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio

from heartline.federated import Trainer
from tests.federated.helpers import Adder, model, open_federation
from tests.patience import PATIENCE

pytestmark = pytest.mark.slow


async def test_a_round_goes_on_while_all_threads_are_taken(tmp_path: Path) -> None:
    """Its checkpoint and journal, a result of a large model, and the learner's training."""
    free = threading.Event()
    async with open_federation("memory://", tmp_path) as (server, join), trio.open_nursery() as nursery:
        try:
            limiter = trio.to_thread.current_default_thread_limiter()
            for _ in range(int(limiter.total_tokens)):
                nursery.start_soon(trio.to_thread.run_sync, lambda: free.wait())
            while limiter.available_tokens:
                await trio.sleep(0.01)
            join(Adder(), "a")
            with trio.fail_after(PATIENCE):
                for index, size in enumerate((1, 1_000_000)):
                    trainer = Trainer(server, model(*[0.0] * size), checkpoint=tmp_path / f"{index}")
                    assert (await trainer.train_round()).samples == {"a": 1}
        finally:
            free.set()
