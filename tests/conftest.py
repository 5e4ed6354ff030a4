"""Settings of the whole suite."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.database import (
    DirectoryBasedExampleDatabase,
    MultiplexedDatabase,
    ReadOnlyDatabase,
)

from fuzz.runner import CORPUS

# What a fuzz run found is tried here too, and first.
_found = [ReadOnlyDatabase(DirectoryBasedExampleDatabase(path)) for path in CORPUS.iterdir() if path.is_dir()]

settings.register_profile(
    "heartline",
    max_examples=100,
    database=MultiplexedDatabase(DirectoryBasedExampleDatabase(".hypothesis/examples"), *_found),
    # Machines of CI are slow at times, and virtual clocks make a deadline meaningless.
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("heartline")
