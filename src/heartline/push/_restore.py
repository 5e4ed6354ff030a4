"""A topic begins where its store says that it ended."""

from __future__ import annotations

import trio

from heartline.errors import SerializationError, StoreError
from heartline.push._state import State, warn_of_end
from heartline.push._store import SavedTopic
from heartline.push._topic import Topic

__all__ = ["restore"]


def restore(topic: Topic, saved: SavedTopic) -> None:
    """Take what was saved for a topic that has no updates yet; raises :class:`StoreError`."""
    log, now = topic.log, trio.current_time()
    log.epoch = saved.epoch
    log.last = saved.last - len(saved.updates)
    for key in saved.keys:
        topic.keys.add(key, log.history.keys)
    if topic.state is not None:
        _restore_state(topic.state, saved)
    elif saved.state is not None and saved.state.payload and saved.state.offset + 1 >= _first(saved):
        warn_of_end(topic.name, saved.state.offset)
    for update in saved.updates:
        if update.offset != log.last + 1:
            raise StoreError(f"the store has update {update.offset} of topic {topic.name!r} after {log.last}")
        entry = log.append(update.payload, update.flags, now - update.age)
        if topic.state is not None and entry.offset > topic.state.offset:
            topic.state.apply(entry.offset, update.payload, update.flags)
    log.trim(now)


def _first(saved: SavedTopic) -> int:
    """The oldest update that was saved; one beyond the newest if none is."""
    return saved.last - len(saved.updates) + 1


def _restore_state(state: State, saved: SavedTopic) -> None:
    """The state from which the updates that were saved lead to the newest."""
    if saved.state is not None:
        try:
            state.restore(saved.state)
        except SerializationError as error:
            state.fail(
                f"the one after update {saved.state.offset} that was saved cannot be read: {error}", error
            )
            return
    first = _first(saved)
    if first > state.offset + 1:
        state.fail(
            f"updates {state.offset + 1} to {first - 1} are not stored any more; "
            "SqliteStore.drop_state lets the state begin anew"
        )
