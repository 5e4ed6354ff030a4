"""Links that break and servers that restart at any moment, drawn by Hypothesis, on a mock clock."""

from __future__ import annotations

import pytest

from fuzz.properties import push
from fuzz.runner import Property, properties_of


@pytest.mark.parametrize("prop", properties_of(push), ids=lambda prop: prop.__name__)
def test_property(prop: Property) -> None:
    prop()
