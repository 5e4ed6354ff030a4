"""Values as JSON, for peers and places that want text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from heartline.errors import SerializationError
from heartline.wire.cbor import MAX_DEPTH
from heartline.wire.segments import Segment
from heartline.wire.serializers.plain import HIGHEST, Form, lower_narrow, refusal, segment_at

__all__ = ["JsonSerializer"]

_PLACEHOLDER: Final = "$segment"
_PLACE_HEAD: Final = b'{"$segment":'

# What JSON has no type for, msgspec turns into the text that it also reads back.
_FORM = Form(
    keys=frozenset({str}),
    place=lambda index: {_PLACEHOLDER: index},
    leaf=msgspec.to_builtins,
    finite=True,
)
_refuse_nan = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_LONGEST: Final = len(str(HIGHEST))
"""Characters of an integer of 64 bits."""
_BESIDE_ARRAYS = replace(_FORM, reserved=_PLACEHOLDER)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse_integer(digits: str) -> int:
    # Python takes time by the square of their number. And what no peer sends could be chosen by its hash.
    number = int(digits) if len(digits) <= _LONGEST else HIGHEST + 1
    if not _FORM.lowest <= number <= HIGHEST:
        raise ValueError(f"an integer of {len(digits)} characters is beyond 64 bits")
    return number


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_parse_integer)


def _check_depth(value: Any) -> None:
    """Refuse a value that nests too deeply, without building it again."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for outer in level
            if isinstance(outer, (list, dict))
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, (list, dict))
        ]
        if not level:
            return
    raise ValueError(f"more than {MAX_DEPTH} levels of nesting")


class JsonSerializer:
    """JSON text in UTF-8. Bytes travel as base64 text, dates as ISO 8601, arrays as raw segments."""

    name = "json"
    content_id = 2
    is_text = True

    def encode(self, value: Any, segments: list[Segment]) -> bytes:
        """The bytes of ``value``; its arrays are appended to ``segments``."""
        before, form = len(segments), _FORM
        try:
            lowered = lower_narrow(form, value, segments)
            text = msgspec.json.encode(lowered)
            if b"null" in text:  # what msgspec writes for NaN and infinities, too
                _refuse_nan(lowered)
            # Inside a JSON string the quotes would be escaped: this counts maps, and only those.
            if segments and text.count(_PLACE_HEAD) != len(segments) - before:
                form = _BESIDE_ARRAYS
                raise ValueError("a map looks like a placeholder")
            return text
        except Exception as error:
            raise refusal(form, value, "JSON", error) from error

    def decode(self, data: bytes, segments: Sequence[Segment] = (), target: Any = Any) -> Any:
        """The value of exactly these bytes; the target plays no part."""
        try:
            text = bytes(data).decode()
            value = _DECODER.decode(text)
            if segments:
                return self._restore(value, segments, MAX_DEPTH)
            # A few brackets cannot nest deeply: a small value is not walked.
            if text.count("[") + text.count("{") > MAX_DEPTH:
                _check_depth(value)
            return value
        except Exception as error:
            raise SerializationError(f"cannot decode JSON: {error}") from None

    def _restore(self, value: Any, segments: Sequence[Segment], levels: int) -> Any:
        """``value`` with its arrays in their places, if it has no more than so many levels of nesting."""
        if not isinstance(value, (list, dict)):
            return value
        if not levels:
            raise ValueError(f"more than {MAX_DEPTH} levels of nesting")
        if isinstance(value, list):
            return [self._restore(item, segments, levels - 1) for item in value]
        if value.keys() == {_PLACEHOLDER}:
            return segment_at(segments, value[_PLACEHOLDER])
        return {key: self._restore(item, segments, levels - 1) for key, item in value.items()}
