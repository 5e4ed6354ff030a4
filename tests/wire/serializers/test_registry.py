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
        ("cbor", 64, "'cbor' \\(1\\) is registered already"),
        *(("other", id, f"content_id must be 32 to 255, not {id!r}") for id in (-1, 0, 2, 31, 256, "64")),
    ],
)
def test_a_name_or_id_is_taken_once(name: str, content_id: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        register_serializer(Other(name, content_id))
    with pytest.raises(ConfigurationError):
        get_serializer("other")
    assert get_serializer("cbor") is CBOR
    assert get_serializer(2) is JSON


def test_an_id_is_taken_once() -> None:
    with (
        known(Other("one", 64)),
        pytest.raises(ConfigurationError, match="'one' \\(64\\) is registered already"),
    ):
        register_serializer(Other("other", 64))


def test_what_is_no_serializer_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match="serializer 3 has no name, content_id, is_text, encode, decode"
    ):
        register_serializer(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["yaml", 99, 0, ""])
def test_an_unknown_serializer_lists_the_known(key: str | int) -> None:
    with pytest.raises(ConfigurationError, match=rf"{key!r} is not known; registered: cbor, json"):
        get_serializer(key)
