"""The picture of the states is the one that the table gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_picture_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate_states", DOCS / "_generate_states.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "_static" / "session-states.svg").read_text() == module.render(), (
        "run python docs/_generate_states.py"
    )
