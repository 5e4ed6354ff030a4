"""The property of the world, a few examples of it; ``python -m fuzz federation`` runs more."""

from __future__ import annotations

import pytest

from fuzz.properties.world import nothing_is_lost_whatever_goes_wrong
from tests.few_examples import few_examples


@pytest.mark.slow
def test_any_script() -> None:
    few_examples(nothing_is_lost_whatever_goes_wrong)()
