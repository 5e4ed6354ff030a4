"""A store in a file, by SQLite.

All work is done in a worker thread, one piece at a time. A piece that was begun is finished, whether its
caller is cancelled or not, so its outcome is always known. Another program that opens the same file is
refused: two servers would give out the same offsets.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import trio

from heartline.errors import ConfigurationError, LocalProtocolError, StoreError
from heartline.push._store import SavedKey, SavedState, SavedTopic, SavedUpdate, StoredUpdate

__all__ = ["SqliteStore"]

T = TypeVar("T")

APPLICATION = 0x68656172
"""``hear`` in ASCII: marks the file as heartline's."""

FORMAT = 2
"""The version of the tables below, and of the payloads in them: in format 1 they began with their offset."""

LOCK_PATIENCE = 5.0
"""Seconds for another program to leave the file: an older server that is about to end takes less."""

_SCHEMA = f"""
BEGIN EXCLUSIVE;
CREATE TABLE topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL, last INTEGER NOT NULL
);
CREATE TABLE updates (
    topic INTEGER NOT NULL, offset INTEGER NOT NULL, time REAL NOT NULL, flags INTEGER NOT NULL,
    payload BLOB NOT NULL, PRIMARY KEY (topic, offset)
);
CREATE TABLE keys (
    topic INTEGER NOT NULL, offset INTEGER NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (topic, offset)
) WITHOUT ROWID;
CREATE TABLE states (
    topic INTEGER PRIMARY KEY, offset INTEGER NOT NULL, flags INTEGER NOT NULL, payload BLOB NOT NULL
);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
COMMIT;
"""

_INITIAL_STATES = """
REPLACE INTO states (topic, offset, flags, payload) SELECT id, last, 0, x'' FROM topics
"""


class SqliteStore:
    """A store in the file ``path``, which is made if it is not there; open it with ``async with``.

    A batch is one transaction, on the disk when it is confirmed. ``clock`` gives the seconds since any fixed
    moment, over restarts of the machine too, for :attr:`History.age`.

    Opening raises :class:`StoreError`, with the path, for a file that cannot be opened, is damaged, is
    something else, was written by a version with another format, or is in use by another program for 5
    seconds.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise ConfigurationError(f"the path of a SqliteStore must be a str or a Path, not {path!r:.80}")
        self.path: Path = Path(path)
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        # One piece of work at a time, and not one of the places that the program's own threads share.
        self._thread = trio.CapacityLimiter(1)

    async def __aenter__(self) -> SqliteStore:
        if self._connection is not None:
            raise LocalProtocolError(f"the store {self.path} is open already")
        self._connection = await self._run("open", self._open)
        return self

    async def __aexit__(self, *_error: object) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        # Closing waits for the piece of work that is being done, and that is bounded by the lock's patience.
        with trio.CancelScope(shield=True):
            await self._run("close", connection.close)

    async def load(self, topic: str, epoch: str) -> SavedTopic:
        """What is kept of a topic; see :meth:`Store.load`."""
        return await self._run("read", partial(_load, self._opened(), topic, epoch, self._clock()))

    async def append(self, batch: Sequence[StoredUpdate]) -> None:
        """Keep all these updates or none; see :meth:`Store.append`."""
        await self._run("write", partial(_append, self._opened(), batch, self._clock()))

    async def begin_anew(self) -> None:
        """Give every topic a new epoch at its next loading.

        To be called once when a backup was put in the file's place: updates that the backup does not know
        have been published, and their offsets will be given out again. With the new epoch subscribers are
        told of a gap. Without it, a subscriber that comes back from such an update before its offset is
        reached again is told too, but one that comes later cannot be recognized. Updates and states stay.
        """
        await self._run("write", partial(_begin_anew, self._opened()))

    async def drop_state(self, topic: str) -> None:
        """Let the state of a topic count from here: what :attr:`heartline.Fold.initial` makes is the state
        after the newest update that is stored, and the fold applies only what comes later.

        For a topic whose state is lost, or that has got its fold when its history had forgotten updates. To
        be called while no server has the topic. The updates, the epoch and the offsets stay, so a subscriber
        that was there before goes on with the state it has. Raises :class:`StoreError` for a topic that the
        store does not have.
        """
        await self._run("write", partial(_drop_state, self._opened(), topic))

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LocalProtocolError(f"open the store first: async with SqliteStore({str(self.path)!r})")
        return self._connection

    async def _run(self, what: str, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._thread)
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise StoreError(f"cannot {what} the store {self.path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        """Open the file and make sure that it is a store of ours and whole."""
        # The pieces of work come from different threads of Trio's, never two at once.
        connection = sqlite3.connect(
            self.path, timeout=LOCK_PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            self._check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        # Exclusive for as long as it is open; the first access takes the lock.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION and (application or version or tables):
            raise StoreError(f"{self.path} is a database of something else, not a store of heartline's")
        if (tables or version) and version != FORMAT:
            writer = "a newer" if version > FORMAT else "an older"
            raise StoreError(
                f"the store {self.path} was written by {writer} heartline: its format is {version}, "
                f"this version reads and writes {FORMAT}; go on with that one, or begin a new file"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if not tables:
            connection.executescript(_SCHEMA)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreError(f"the store {self.path} is damaged: {verdict}")
        connection.execute("BEGIN EXCLUSIVE")  # the lock is taken now, not with the first write
        connection.execute("COMMIT")


class _Transaction:
    """All or nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, error: object, *_rest: object) -> None:
        if error is None:
            try:
                self._connection.execute("COMMIT")
                return
            except sqlite3.Error:
                self._roll_back()
                raise
        self._roll_back()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # some errors end it by themselves
            self._connection.execute("ROLLBACK")


def _load(connection: sqlite3.Connection, name: str, epoch: str, now: float) -> SavedTopic:
    with _Transaction(connection):
        connection.execute("INSERT OR IGNORE INTO topics (name, epoch, last) VALUES (?, ?, 0)", (name, epoch))
        connection.execute("UPDATE topics SET epoch = ? WHERE name = ? AND epoch = ''", (epoch, name))
    number, epoch, last = _one(connection, "SELECT id, epoch, last FROM topics WHERE name = ?", name)
    updates = connection.execute(
        "SELECT offset, payload, flags, time FROM updates WHERE topic = ? ORDER BY offset", (number,)
    )
    keys = connection.execute(
        "SELECT key, offset, digest FROM keys WHERE topic = ? ORDER BY offset", (number,)
    )
    state = _one(connection, "SELECT offset, payload, flags FROM states WHERE topic = ?", number)
    return SavedTopic(
        epoch=epoch,
        last=last,
        updates=[
            SavedUpdate(offset=offset, payload=payload, flags=flags, age=max(0.0, now - stored))
            for offset, payload, flags, stored in updates
        ],
        keys=[SavedKey(key=key, offset=offset, digest=digest) for key, offset, digest in keys],
        state=None if state is None else SavedState(offset=state[0], payload=state[1], flags=state[2]),
    )


def _one(connection: sqlite3.Connection, question: str, *arguments: Any) -> Any:
    with closing(connection.execute(question, arguments)) as rows:
        return rows.fetchone()


def _append(connection: sqlite3.Connection, batch: Sequence[StoredUpdate], now: float) -> None:
    with _Transaction(connection):
        for name, updates in groupby(sorted(batch, key=attrgetter("topic")), attrgetter("topic")):
            _append_to(connection, name, list(updates), now)


def _append_to(connection: sqlite3.Connection, name: str, updates: list[StoredUpdate], now: float) -> None:
    """The updates of one topic, in their order, which sorting has kept."""
    first, last = updates[0].offset, updates[-1].offset
    row = _one(connection, "SELECT id, last FROM topics WHERE name = ?", name)
    offsets = [update.offset for update in updates]
    if row is None or offsets != list(range(row[1] + 1, row[1] + 1 + len(updates))):
        raise StoreError(
            f"updates {first} to {last} of topic {name!r} do not follow {row and row[1]}, "
            "the last one stored: does another server publish on it?"
        )
    number = row[0]
    connection.execute("UPDATE topics SET last = ? WHERE id = ?", (last, number))
    connection.executemany(
        "INSERT INTO updates (topic, offset, time, flags, payload) VALUES (?, ?, ?, ?, ?)",
        [(number, update.offset, now, update.flags, update.payload) for update in updates],
    )
    connection.executemany(
        "INSERT INTO keys (topic, offset, key, digest) VALUES (?, ?, ?, ?)",
        [(number, key.offset, key.key, key.digest) for update in updates if (key := update.key) is not None],
    )
    connection.executemany(
        "REPLACE INTO states (topic, offset, flags, payload) VALUES (?, ?, ?, ?)",
        [(number, s.offset, s.flags, s.payload) for update in updates if (s := update.state) is not None],
    )
    connection.execute(
        "DELETE FROM updates WHERE topic = ? AND offset < ?", (number, max(u.first for u in updates))
    )
    connection.execute(
        "DELETE FROM keys WHERE topic = ? AND offset < ?", (number, max(u.first_key for u in updates))
    )


def _begin_anew(connection: sqlite3.Connection) -> None:
    with _Transaction(connection):
        connection.execute("UPDATE topics SET epoch = ''")


def _drop_state(connection: sqlite3.Connection, topic: str) -> None:
    if connection.execute(f"{_INITIAL_STATES} WHERE name = ?", (topic,)).rowcount == 0:
        raise StoreError(f"the store has no topic {topic!r:.80}")
