"""The properties of every serializer."""

from __future__ import annotations

import pytest

from fuzz.properties import serializers as properties
from fuzz.runner import Property, properties_of


@pytest.mark.parametrize("prop", properties_of(properties), ids=lambda prop: prop.__name__)
def test_property(prop: Property) -> None:
    prop()
