"""What heartline tests itself with, for you to test with.

A simulated world for whole applications, networks in memory, checkers of what was seen, and checks for
transports.
"""

from __future__ import annotations

from heartline.transports.memory import MemoryNetwork, MemoryStream, memory_pair

from ._clock import NodeClock
from ._conformance import check_listener, check_stream
from ._disk import Disk
from ._link import Link
from ._node import Node
from ._trace import TraceEntry
from ._world import NotConverged, World

__all__ = [
    "Disk",
    "Link",
    "MemoryNetwork",
    "MemoryStream",
    "Node",
    "NodeClock",
    "NotConverged",
    "TraceEntry",
    "World",
    "check_listener",
    "check_stream",
    "memory_pair",
]
