"""What heartline relies on in a store, as checks that the author of any store can run."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import trio

from heartline.errors import StoreError
from heartline.push import SavedKey, SavedState, SavedTopic, Store, StoredUpdate

__all__ = ["check_store"]

OpenStore = Callable[[str], AbstractAsyncContextManager[Store]]

PATIENCE = 30.0
"""Seconds for each check: many times what a disk needs, so that a hang ends with a name."""

LIVES = 12
"""Openings in the run at random, of several batches each, so that every kind comes several times."""

LONG = 4 * 1024 * 1024
"""Bytes of a long update: more than the common pages, buffers and limits of a row."""


async def check_store(open_store: OpenStore) -> None:
    """Check a store.

    ``open_store(name)`` returns a store, to be entered, at the place of that name: an empty one for a new
    name, and for a name that was used before one with all that was committed there. Run this on the real
    clock.

    The first rule that is broken raises ``AssertionError``, or lets the store's own error out.
    """
    for check in _CHECKS:
        with trio.move_on_after(PATIENCE) as scope:
            await check(open_store)
        assert not scope.cancelled_caught, f"{check.__name__} took more than {PATIENCE:g} s"


async def _the_first_epoch_stays(open_store: OpenStore) -> None:
    for epoch in ("first", "second"):
        async with open_store("epoch") as store:
            for _ in range(2):
                saved = await store.load("topic", epoch)
                assert saved.epoch == "first", "a topic keeps the epoch with which it was loaded first"
                assert (saved.last, list(saved.updates), list(saved.keys), saved.state) == (0, [], [], None)
            assert (await store.load("other", "its own")).epoch == "its own"


async def _any_update_comes_back_as_it_was(open_store: OpenStore) -> None:
    payloads = [b"", bytes(range(256)), b"'; DROP", bytes(LONG)]
    topics = ["topic", "Τοπος", "a b/c'\"\\%", "x" * 256]
    batch = [
        StoredUpdate(topic=topic, offset=offset, payload=payload, flags=offset * 50)
        for offset, payload in enumerate(payloads, 1)
        for topic in topics
    ]
    async with open_store("values") as store:
        for topic in topics:
            await store.load(topic, "epoch")
        await store.append(batch)
    async with open_store("values") as store:
        for topic in topics:
            saved = await store.load(topic, "epoch")
            assert [u.payload for u in saved.updates] == payloads, f"other payloads in {topic!r}"
            assert [u.flags for u in saved.updates] == [50, 100, 150, 200]
            assert all(0 <= u.age < PATIENCE for u in saved.updates), "the age is in seconds since the append"


async def _what_was_appended_survives_without_a_goodbye(open_store: OpenStore) -> None:
    with trio.CancelScope() as scope:
        async with open_store("cancelled") as store:
            await store.load("topic", "epoch")
            await store.append([StoredUpdate(topic="topic", offset=1, payload=b"1", flags=0)])
            scope.cancel()
            await trio.sleep_forever()
    async with open_store("cancelled") as store:
        assert (await store.load("topic", "epoch")).last == 1, "append has returned, so it is committed"


async def _a_batch_that_was_cancelled_is_whole_or_absent(open_store: OpenStore) -> None:
    batch = [StoredUpdate(topic="topic", offset=n, payload=bytes(1000), flags=0) for n in range(1, 101)]
    async with open_store("half") as store:
        await store.load("topic", "epoch")
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.append(batch)
        assert (await store.load("topic", "epoch")).last in (0, 100), "a part of a batch was kept"


async def _places_are_apart(open_store: OpenStore) -> None:
    async with open_store("here") as store, open_store("there") as other:
        assert (await store.load("topic", "here")).epoch == "here"
        assert (await other.load("topic", "there")).epoch == "there"


@dataclass
class _Model:
    """What a store should have of a topic."""

    last: int = 0
    updates: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    keys: dict[int, SavedKey] = field(default_factory=dict)
    state: SavedState | None = None

    def add(self, update: StoredUpdate) -> None:
        self.last = update.offset
        self.updates[update.offset] = (update.payload, update.flags)
        if update.key is not None:
            self.keys[update.offset] = update.key
        if update.state is not None:
            self.state = update.state

    def check(self, saved: SavedTopic, needed: tuple[int, int]) -> None:
        """What may be forgotten may also be there."""
        assert saved.last == self.last
        offsets = [update.offset for update in saved.updates]
        assert offsets == list(range(saved.last - len(offsets) + 1, saved.last + 1)), "updates have a hole"
        assert {u.offset: (u.payload, u.flags) for u in saved.updates}.items() <= self.updates.items()
        assert len(offsets) >= saved.last + 1 - max(needed[0], 1), "an update is missing"
        keys = {key.offset: key for key in saved.keys}
        assert list(keys) == sorted(keys), "keys are not in the order of their offsets"
        assert keys.items() <= self.keys.items()
        assert {offset for offset in self.keys if offset >= needed[1]} <= keys.keys(), "a key is missing"
        assert saved.state == self.state


async def _it_is_like_a_list(open_store: OpenStore) -> None:
    """Batches, refusals and restarts at random; the seed is fixed, so a failure comes again."""
    rng = random.Random(1)
    models = {name: _Model() for name in ("a", "b", "c")}
    needed = dict.fromkeys(models, (0, 0))
    for _ in range(LIVES):
        async with open_store("random") as store:
            for name, model in models.items():
                model.check(await store.load(name, "epoch"), needed[name])
            for _ in range(rng.randint(1, 10)):
                batch = _batch(rng, models, needed)
                if rng.random() < 0.2:
                    await _refuse(store, batch, models, rng)
                    continue
                await store.append(batch)
                for update in batch:
                    models[update.topic].add(update)
                    needed[update.topic] = (update.first, update.first_key)


def _batch(
    rng: random.Random, models: dict[str, _Model], needed: dict[str, tuple[int, int]]
) -> list[StoredUpdate]:
    batch = []
    last = {name: model.last for name, model in models.items()}
    for name in rng.choices(list(models), k=rng.randint(1, 8)):
        offset = last[name] = last[name] + 1
        key = SavedKey(key=f"key {rng.random()}", offset=offset, digest=rng.randbytes(16))
        state = SavedState(offset=models[name].last, payload=rng.randbytes(5), flags=2)
        batch.append(
            StoredUpdate(
                topic=name,
                offset=offset,
                payload=rng.randbytes(rng.randint(0, 100)),
                flags=rng.choice([0, 2]),
                key=rng.choice([key, None]),
                state=state if offset == models[name].last + 1 and rng.random() < 0.3 else None,
                first=max(needed[name][0], models[name].last - 5),
                first_key=max(needed[name][1], models[name].last - 3),
            )
        )
    return batch


async def _refuse(
    store: Store, batch: list[StoredUpdate], models: dict[str, _Model], rng: random.Random
) -> None:
    """One update of the batch does not follow: all must be refused."""
    name = rng.choice(list(models))
    offset = models[name].last + sum(update.topic == name for update in batch) + rng.choice([0, 2])
    wrong = StoredUpdate(topic=name, offset=offset, payload=b"wrong", flags=0)
    if offset:
        try:
            await store.append([*batch, wrong])
        except StoreError:
            return
        raise AssertionError(f"update {offset} of a topic was taken, which does not follow the last one")


_CHECKS = (
    _the_first_epoch_stays,
    _any_update_comes_back_as_it_was,
    _what_was_appended_survives_without_a_goodbye,
    _a_batch_that_was_cancelled_is_whole_or_absent,
    _places_are_apart,
    _it_is_like_a_list,
)
