"""Values as text."""

from __future__ import annotations

import re
import uuid

import pytest

from fuzz.properties.serializers import CBOR, JSON, MSGPACK
from heartline.errors import SerializationError
from heartline.wire import Serializer, decode_text, encode_text

EVERY = pytest.mark.parametrize("serializer", [CBOR, JSON, MSGPACK], ids=lambda serializer: serializer.name)


@EVERY
def test_arrays_are_not_text(serializer: Serializer) -> None:
    with pytest.raises(SerializationError, match="arrays cannot be written as text"):
        encode_text(serializer, [memoryview(b"x")])


def test_text_is_safe_in_a_url_or_json() -> None:
    assert encode_text(JSON, {"a": 1}) == '{"a":1}'
    assert re.fullmatch(r"[\w=-]+", encode_text(CBOR, [bytes(range(256))]))


@pytest.mark.parametrize("text", ["a", "a===", "äöü=", "A Q==", "AQ==\n", "\ud800"])
def test_what_is_no_text_of_a_value_is_refused(text: str) -> None:
    with pytest.raises(SerializationError):
        decode_text(CBOR, text)


@EVERY
def test_text_converts_to_an_annotation(serializer: Serializer) -> None:
    number = uuid.uuid4()
    assert decode_text(serializer, encode_text(serializer, number), uuid.UUID) == number
    with pytest.raises(SerializationError, match="Expected `int`, got `str`"):
        decode_text(serializer, encode_text(serializer, "x"), int)
