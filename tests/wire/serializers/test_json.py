"""JSON: compact text, what a peer may not ask for, and the map that stands for an array."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fuzz.properties.serializers import JSON, carried, encoded
from heartline.errors import SerializationError
from heartline.wire.cbor import MAX_DEPTH


def test_json_is_compact_utf8() -> None:
    assert encoded(JSON, {"a": [1, "é", b"hi"], "b": None}) == '{"a":[1,"é","aGk="],"b":null}'.encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["lists", "maps"])
@pytest.mark.parametrize("segments", [(), (memoryview(b"x"),)], ids=["plain", "with segments"])
def test_nesting_of_json_is_bounded(opening: str, closing: str, segments: Any) -> None:
    assert JSON.decode((opening * MAX_DEPTH + "1" + closing * MAX_DEPTH).encode(), segments)
    for levels in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(SerializationError, match="cannot decode JSON"):
            JSON.decode((opening * levels + "1" + closing * levels).encode(), segments)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "[-Infinity]"])
def test_json_has_no_nan(text: str) -> None:
    with pytest.raises(SerializationError, match="is not JSON"):
        JSON.decode(text.encode())
    with pytest.raises(SerializationError, match="not JSON compliant"):
        encoded(JSON, float("nan"))


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_a_number_beyond_64_bits_is_refused(number: int) -> None:
    """Python takes time by the square of its digits, and of what it can be told its hash."""
    inside = number + (1 if number < 0 else -1)
    assert JSON.decode(f"[{inside}]".encode()) == [inside]
    for data in (f"{number}", f'{{"a":{number}}}', f"{number}" + "0" * 1_000_000):
        with pytest.raises(SerializationError, match=r"an integer of \d+ characters is beyond 64 bits"):
            JSON.decode(data.encode())


@pytest.mark.parametrize("index", [-1, 1, 2**63, "0", None, [0], 0.0, True])
def test_a_placeholder_names_a_segment_that_is_there(index: Any) -> None:
    segments = [memoryview(b"x")] if index is not True else [memoryview(b"x")] * 2
    with pytest.raises(SerializationError, match="is no raw segment of this envelope"):
        JSON.decode(msgspec.json.encode({"$segment": index}), segments)


def test_json_keeps_what_looks_like_a_placeholder_apart() -> None:
    looks = {"$segment": 0}
    for alone in (looks, [looks] * (MAX_DEPTH + 1)):
        assert carried(JSON, alone) == alone
    for value in ([looks, memoryview(b"x")], [memoryview(b"x"), {"a": {"$segment": "text", "b": 1}}]):
        with pytest.raises(SerializationError, match=r"no map may start with '\$segment'"):
            encoded(JSON, value)
    harmless = [{"a": 1, "$segment": 0}, '{"$segment":0}', memoryview(b"x")]
    assert carried(JSON, harmless) == harmless
