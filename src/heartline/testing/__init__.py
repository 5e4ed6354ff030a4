"""What heartline tests itself with, for you to test with: in-memory networks, and checks for transports."""

from __future__ import annotations

from heartline.transports.memory import MemoryNetwork, MemoryStream, memory_pair

from ._conformance import check_listener, check_stream

__all__ = ["MemoryNetwork", "MemoryStream", "check_listener", "check_stream", "memory_pair"]
