"""The table of serializers."""

from __future__ import annotations

from typing import Any

import pytest

from fuzz.properties.serializers import CBOR, JSON
from heartline.errors import ConfigurationError
from heartline.wire import decode_text, encode_text, get_serializer, register_serializer
from tests.wire.helpers import known


class Other:
    is_text = False

    def __init__(self, name: str, content_id: int) -> None:
        self.name, self.content_id = name, content_id

    def encode(self, value: Any, segments: list[Any]) -> bytes:
        return repr(value).encode()

    def decode(self, data: bytes, segments: Any = (), target: Any = Any) -> Any:
        return data.decode() if target is str else None


def test_a_registered_serializer_is_found() -> None:
    other = Other("other", 255)
    with known(other):
        assert get_serializer("other") is other
        assert get_serializer(255) is other
        assert encode_text(other, 5) == "NQ=="
        assert decode_text(other, "NQ==", str) == "5"


@pytest.mark.parametrize(
    ("name", "content_id", "message"),
    [
        ("cbor", 9, "'cbor' \\(1\\) is registered already"),
        ("other", 2, "'json' \\(2\\) is registered already"),
        ("other", 0, "content_id must be 1 to 255"),
        ("other", 256, "content_id must be 1 to 255"),
        ("other", -1, "content_id must be 1 to 255"),
    ],
)
def test_a_name_or_id_is_taken_once(name: str, content_id: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        register_serializer(Other(name, content_id))
    with pytest.raises(ConfigurationError):
        get_serializer("other")
    assert get_serializer("cbor") is CBOR
    assert get_serializer(2) is JSON


@pytest.mark.parametrize("key", ["yaml", 99, 0, ""])
def test_an_unknown_serializer_lists_the_known(key: str | int) -> None:
    with pytest.raises(ConfigurationError, match=rf"{key!r} is not known; registered: cbor, json"):
        get_serializer(key)
