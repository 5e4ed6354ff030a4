"""The property of the world, a few examples of it; ``python -m fuzz federation`` runs more."""

from __future__ import annotations

import pytest
from hypothesis import settings

from fuzz.properties.world import nothing_is_lost_whatever_goes_wrong


@pytest.mark.slow
def test_any_script() -> None:
    settings(max_examples=20)(nothing_is_lost_whatever_goes_wrong)()
