"""The interface of a serializer, and the table of serializers that this process knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from heartline.errors import ConfigurationError
from heartline.wire.segments import Segment
from heartline.wire.serializers.cbor import CborSerializer
from heartline.wire.serializers.json import JsonSerializer
from heartline.wire.serializers.msgpack import MsgpackSerializer

__all__ = ["Serializer", "get_serializer", "register_serializer", "registered", "unknown"]


FIRST_FREE_ID: Final = 32
"""The lowest content id that is not kept for heartline's own serializers."""

_MEMBERS: Final = ("name", "content_id", "is_text", "encode", "decode")


class Serializer(Protocol):
    """How values become bytes, and bytes values.

    ``encode`` and ``decode`` raise :class:`~heartline.SerializationError`, and nothing else, for any value
    and any bytes. They are called in the event loop, with one value at a time.
    """

    name: str
    """The name in settings: ``open_connection(url, serializer="json")``."""

    content_id: int
    """The number on the wire, from 32 to 255; those below are heartline's own."""

    is_text: bool
    """Whether the bytes are text in UTF-8."""

    def encode(self, value: Any, segments: list[Segment]) -> bytes:
        """The bytes of ``value``.

        An array (a NumPy array or a memoryview) need not be in them: append it to ``segments``, which travel
        beside the bytes, and leave its index.
        """
        ...

    def decode(self, data: bytes, segments: Sequence[Segment] = (), target: Any = Any) -> Any:
        """The value of exactly these bytes, with the segments in their places.

        ``target`` is the annotation that the value will be converted to, ``Any`` where there is none. A
        format that describes itself has no need of it; one whose bytes mean something only together with a
        class finds the class there, and gives an instance of it.
        """
        ...


registered: Final[dict[str | int, Serializer]] = {}
"""Each serializer under its name and under its content id."""


def register_serializer(serializer: Serializer) -> None:
    """Make a serializer known to this process, under its name and its content id.

    The table belongs to the whole process, like that of URL schemes in :mod:`heartline.transports` and
    Python's own table of codecs: a name means the same everywhere. Raises :class:`ConfigurationError` when
    the name or id is taken, the id is not in 32 to 255, or the object is no :class:`Serializer`.
    """
    lacking = [name for name in _MEMBERS if not hasattr(serializer, name)]
    if lacking:
        raise ConfigurationError(f"serializer {serializer!r:.80} has no {', '.join(lacking)}")
    if type(serializer.content_id) is not int or not FIRST_FREE_ID <= serializer.content_id <= 255:
        raise ConfigurationError(
            f"serializer {serializer.name!r}: content_id must be {FIRST_FREE_ID} to 255, "
            f"not {serializer.content_id!r:.80}; those below are heartline's own"
        )
    _register(serializer)


def _register(serializer: Serializer) -> None:
    for taken in (registered.get(serializer.name), registered.get(serializer.content_id)):
        if taken is not None:
            raise ConfigurationError(
                f"serializer {serializer.name!r} with id {serializer.content_id}: "
                f"{taken.name!r} ({taken.content_id}) is registered already"
            )
    registered[serializer.name] = registered[serializer.content_id] = serializer


def get_serializer(key: str | int) -> Serializer:
    """The serializer of this name or content id; :class:`ConfigurationError` lists the known ones."""
    found = registered.get(key)
    if found is None:
        raise ConfigurationError(unknown(key))
    return found


def unknown(key: str | int) -> str:
    """The text of the error for a name or content id that is not in the table."""
    known = ", ".join(sorted({serializer.name for serializer in registered.values()}))
    return f"serializer {key!r} is not known; registered: {known}"


_register(CborSerializer())
_register(JsonSerializer())
_register(MsgpackSerializer())
