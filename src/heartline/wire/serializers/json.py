"""Values as JSON, for peers and places that want text."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from heartline.errors import SerializationError
from heartline.wire.cbor import MAX_DEPTH
from heartline.wire.segments import Segment
from heartline.wire.serializers.plain import is_segment, plain, segment_at, whole_minutes

__all__ = ["JsonSerializer"]

# What JSON has no type for, and msgspec turns into the text that it also reads back.
_TEXTUAL = (bytes, bytearray, datetime.datetime, datetime.date, datetime.time, uuid.UUID)


MAX_DIGITS: Final = 100
"""Characters of an integer: more than any that means a number, and read in a third of a microsecond."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse_integer(digits: str) -> int:
    # Python takes time by the square of their number.
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits, {MAX_DIGITS} are the most")
    return int(digits)


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

    _PLACEHOLDER: Final = "$segment"

    def encode(self, value: Any, segments: list[Segment]) -> bytes:
        """The bytes of ``value``; its arrays are appended to ``segments``."""
        before = len(segments)

        def other(value: Any) -> Any:
            if is_segment(value):
                segments.append(value)
                return {self._PLACEHOLDER: len(segments) - 1}
            if isinstance(value, datetime.datetime):
                value = whole_minutes(value)
            return msgspec.to_builtins(value) if isinstance(value, _TEXTUAL) else plain(value)

        try:
            text = json.dumps(
                value, default=other, ensure_ascii=False, allow_nan=False, separators=(",", ":")
            )
            # Inside a JSON string the quotes would be escaped: this counts maps, and only those.
            if segments and text.count(f'{{"{self._PLACEHOLDER}":') != len(segments) - before:
                raise SerializationError(f"beside arrays, no map may start with {self._PLACEHOLDER!r}")
            return text.encode()
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(f"cannot encode this {type(value).__name__} as JSON: {error}") from error

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
        if value.keys() == {self._PLACEHOLDER}:
            return segment_at(segments, value[self._PLACEHOLDER])
        return {key: self._restore(item, segments, levels - 1) for key, item in value.items()}
