"""The yardstick for durable publishes: SQLite itself, an update of each publisher in a commit."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks._sockets import messages

KEPT = 1024
"""Updates that stay in the table, as with heartline's default history."""

Report = Callable[[object], None]


def publish_durable(report: Report, publishers: int, seconds: float) -> None:
    """Report the updates per second."""
    (payload,) = messages(1)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        connection = sqlite3.connect(Path(folder) / "store", isolation_level=None)
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE updates (number INTEGER PRIMARY KEY, payload BLOB)")
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            connection.execute("BEGIN")
            rows = [(count + number, payload) for number in range(publishers)]
            connection.executemany("INSERT INTO updates VALUES (?, ?)", rows)
            connection.execute("DELETE FROM updates WHERE number < ?", (count - KEPT,))
            connection.execute("COMMIT")
            count += publishers
        rate = count / (time.perf_counter() - start)
        connection.close()
    report(rate)  # which may be the end of this process: the folder is gone by now
