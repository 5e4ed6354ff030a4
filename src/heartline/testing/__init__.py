"""What heartline tests itself with, for you to test with: networks in memory, checks of what you write."""

from __future__ import annotations

from heartline.transports.memory import MemoryNetwork, MemoryStream, memory_pair

from ._conformance import check_listener, check_stream
from ._store_checks import check_store

__all__ = ["MemoryNetwork", "MemoryStream", "check_listener", "check_store", "check_stream", "memory_pair"]
