"""Settings of the whole suite."""

from __future__ import annotations

import signal
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.database import (
    DirectoryBasedExampleDatabase,
    MultiplexedDatabase,
    ReadOnlyDatabase,
)

from fuzz.runner import CORPUS

# What a fuzz run found is tried here too, and first.
_found = [ReadOnlyDatabase(DirectoryBasedExampleDatabase(path)) for path in CORPUS.iterdir() if path.is_dir()]

# A shell that starts a job in the background has it ignore Ctrl-C, and Python keeps to that; so do children.
signal.signal(signal.SIGINT, signal.default_int_handler)

EXAMPLES = {"quick": 20, "suite": 40, "deep": 4_000}
"""Examples of a property, by profile: in the loop of development, in `make test`, and in `make deep`."""

for _name, _examples in EXAMPLES.items():
    settings.register_profile(
        _name,
        max_examples=_examples,
        database=MultiplexedDatabase(DirectoryBasedExampleDatabase(".hypothesis/examples"), *_found),
        # Machines of CI are slow at times, and virtual clocks make a deadline meaningless.
        deadline=None,
        # Each run tries something new; what it finds is printed, and kept for the next.
        derandomize=False,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
# Until the command line says otherwise: --hypothesis-profile=NAME.
settings.load_profile("suite")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Lone surrogates, which some tests print or log, travel from a worker as their escapes."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_encodable, value))
    return value
