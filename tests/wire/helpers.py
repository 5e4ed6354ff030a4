"""For tests of serializers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from heartline.wire import Serializer, register_serializer
from heartline.wire.serializers.registry import registered


@contextmanager
def known(serializer: Serializer) -> Iterator[None]:
    """While open, the serializer is registered."""
    register_serializer(serializer)
    try:
        yield
    finally:
        del registered[serializer.name], registered[serializer.content_id]
