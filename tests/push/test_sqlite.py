"""The store in a file: what is refused, what a failure leaves behind, and how old things are."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from heartline import SqliteStore
from heartline.errors import LocalProtocolError, StoreError
from heartline.push import SavedKey, SavedState, StoredUpdate
from heartline.push import _sqlite as module


def update(offset: int, payload: bytes = b"payload", topic: str = "topic", **more: Any) -> StoredUpdate:
    return StoredUpdate(topic=topic, offset=offset, payload=payload, flags=0, **more)


async def fill(path: Path, count: int = 3) -> None:
    """A store with some updates."""
    async with SqliteStore(path) as store:
        await store.load("topic", "epoch")
        await store.append([update(offset) for offset in range(1, count + 1)])


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statement)


async def refused(path: Path, match: str) -> None:
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError, match=match) as caught:
        async with SqliteStore(path):
            pass
    assert str(path) in str(caught.value)
    if before is not None:
        assert path.read_bytes() == before, "what is refused must not be touched"


# What is no store.


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    await refused(tmp_path / "nowhere" / "store", "unable to open")


async def test_no_database_at_all(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.write_text("Dear diary, " * 1000)
    await refused(path, "not a database")


async def test_a_database_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "store"
    change(path, "CREATE TABLE cakes (name TEXT); INSERT INTO cakes VALUES ('apple')")
    await refused(path, "a database of something else")
    change(path, "DROP TABLE cakes; PRAGMA application_id = 77")
    await refused(path, "a database of something else")


async def test_a_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "store"
    await fill(path)
    change(path, f"PRAGMA user_version = {module.FORMAT + 1}")
    await refused(path, f"written by a newer heartline: its format is {module.FORMAT + 1}")


async def test_an_older_format(tmp_path: Path) -> None:
    """That of 0.1, whose payloads began with their offset."""
    path = tmp_path / "store"
    await fill(path)
    change(path, "PRAGMA user_version = 1")
    await refused(path, "written by an older heartline: its format is 1.*begin a new file")


async def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "store"
    await fill(path, 200)
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 4096):
        data[at : at + 64] = bytes(64)
    path.write_bytes(data)
    await refused(path, "damaged|malformed")


async def test_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "store"
    await fill(path, 200)
    path.write_bytes(path.read_bytes()[:5000])
    await refused(path, "damaged|malformed")


@pytest.mark.slow
async def test_a_file_in_use_by_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_PATIENCE", 0.1)
    path = tmp_path / "store"
    holder = (
        "import sys, trio, heartline\n"
        "async def main():\n"
        "    async with heartline.SqliteStore(sys.argv[1]):\n"
        "        print('open', flush=True)\n"
        "        sys.stdin.read()\n"
        "trio.run(main)\n"
    )
    command = [sys.executable, "-c", holder, str(path)]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        assert (await process.stdout.receive_some()).startswith(b"open")
        await refused(path, "database is locked")
        process.kill()
    await fill(path)


# Opening and closing.


async def test_it_is_opened_once_and_used_inside(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store")
    with pytest.raises(LocalProtocolError, match=r"open the store first: async with SqliteStore"):
        await store.load("topic", "epoch")
    async with store:
        with pytest.raises(LocalProtocolError, match="is open already"):
            await store.__aenter__()
        await store.load("topic", "epoch")
    async with store:
        assert (await store.load("topic", "another")).epoch == "epoch"


async def test_a_cancelled_append_is_finished_and_the_file_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun has an outcome, and nobody is left with the lock."""
    path = tmp_path / "store"
    begun, go_on = trio.Event(), threading.Event()
    append = module._append

    def append_slowly(*arguments: Any) -> None:
        trio.from_thread.run_sync(begun.set)
        assert go_on.wait(10)
        append(*arguments)

    monkeypatch.setattr(module, "_append", append_slowly)
    with trio.CancelScope() as scope:
        async with SqliteStore(path) as store, trio.open_nursery() as nursery:
            await store.load("topic", "epoch")
            nursery.start_soon(store.append, [update(offset) for offset in range(1, 100)])
            await begun.wait()
            scope.cancel()
            go_on.set()
    async with SqliteStore(path) as store:
        assert (await store.load("topic", "epoch")).last == 99


# Failures.


async def test_a_full_disk(tmp_path: Path) -> None:
    """The batch is refused whole, and with room again the same offsets are taken."""
    async with SqliteStore(tmp_path / "store") as store:
        await store.load("topic", "epoch")
        await store.append([update(1)])
        assert store._connection is not None
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StoreError, match="full") as caught:
            await store.append([update(2), update(3, bytes(100_000))])
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        assert (await store.load("topic", "epoch")).last == 1
        store._connection.execute("PRAGMA max_page_count = 1000000")
        await store.append([update(2), update(3)])
        assert (await store.load("topic", "epoch")).last == 3


async def test_a_commit_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything was written, and only the commit itself is refused: by a rule that is checked then."""
    async with SqliteStore(tmp_path / "store") as store:
        await store.load("topic", "epoch")
        assert store._connection is not None
        store._connection.executescript(
            "PRAGMA foreign_keys = ON; CREATE TABLE rules"
            " (topic INTEGER REFERENCES topics DEFERRABLE INITIALLY DEFERRED)"
        )
        with monkeypatch.context() as patch:
            append = module._append_to

            def append_and_break(connection: sqlite3.Connection, *rest: Any) -> None:
                append(connection, *rest)
                connection.execute("INSERT INTO rules VALUES (77)")

            patch.setattr(module, "_append_to", append_and_break)
            with pytest.raises(StoreError, match="FOREIGN KEY"):
                await store.append([update(1)])
        assert (await store.load("topic", "epoch")).last == 0
        await store.append([update(1)])


async def test_what_sqlite_cannot_hold(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "store") as store:
        with pytest.raises(StoreError, match="cannot read"):
            await store.load("\ud800", "epoch")
        await store.load("topic", "epoch")
        with pytest.raises(StoreError, match="cannot write"):
            await store.append([update(1, key=SavedKey(key="\ud800", offset=1, digest=b""))])
        with pytest.raises(StoreError, match="updates 1 to 1 of topic 'unknown' do not follow None"):
            await store.append([update(1, topic="unknown")])
        await store.append([update(1)])


async def test_it_waits_for_the_disk(tmp_path: Path) -> None:
    """A commit is on the disk before it is confirmed; SQLite is asked, as no test can pull the plug."""
    async with SqliteStore(tmp_path / "store") as store:
        assert store._connection is not None
        assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# Time.


async def test_ages_are_by_the_clock_that_was_given(tmp_path: Path) -> None:
    times = [1000.0]
    async with SqliteStore(tmp_path / "store", clock=lambda: times[-1]) as store:
        await store.load("topic", "epoch")
        await store.append([update(1)])
        times.append(1007.0)
        await store.append([update(2)])
        # A clock that was put back makes nothing newer than it is.
        for time, ages in ((1010.0, [10.0, 3.0]), (1005.0, [5.0, 0.0]), (0.0, [0.0, 0.0])):
            times.append(time)
            saved = await store.load("topic", "epoch")
            assert [each.age for each in saved.updates] == ages


async def test_the_file_does_not_grow_with_what_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "store"
    async with SqliteStore(path) as store:
        await store.load("topic", "epoch")
        for offset in range(1, 200):
            await store.append([update(offset, bytes(50_000), first=offset - 3)])
    assert path.stat().st_size < 1_000_000


async def test_a_backup_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "store"
    await fill(path)
    async with SqliteStore(path) as store:
        await store.begin_anew()
        saved = await store.load("topic", "new")
        assert (saved.epoch, saved.last, len(saved.updates)) == ("new", 3, 3)
    async with SqliteStore(path) as store:
        assert (await store.load("topic", "newer")).epoch == "new"


async def test_a_state_is_dropped(tmp_path: Path) -> None:
    """What is left says where the initial one stands."""
    path = tmp_path / "store"
    await fill(path)
    async with SqliteStore(path) as store:
        await store.load("other", "epoch")
        await store.drop_state("topic")
        saved = await store.load("topic", "new")
        assert saved.state == SavedState(offset=3, payload=b"", flags=0)
        assert (saved.last, len(saved.updates)) == (3, 3)
        assert (await store.load("other", "new")).state is None
        with pytest.raises(StoreError, match="the store has no topic 'topix'"):
            await store.drop_state("topix")
