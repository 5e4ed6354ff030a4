"""The properties of sessions, a few examples of each; ``python -m fuzz session`` runs more."""

from __future__ import annotations

import pytest

from fuzz.properties import heartbeat, session
from fuzz.runner import Property, properties_of


@pytest.mark.parametrize("prop", properties_of(session, heartbeat), ids=lambda prop: prop.__name__)
def test_property(prop: Property) -> None:
    prop()
