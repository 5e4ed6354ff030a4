"""What heartline tests itself with, for you to test with.

A simulated world for whole applications, networks in memory, checkers of what was seen, and checks for
transports and stores.
"""

from __future__ import annotations

from heartline.transports.memory import MemoryNetwork, MemoryStream, memory_pair

from ._check_bounds import CreditChecker, LeakChecker
from ._check_calls import CallChecker
from ._check_messages import DeliveryChecker, OrderChecker, VersionChecker
from ._clock import NodeClock
from ._conformance import check_listener, check_stream
from ._disk import Disk
from ._link import Link
from ._node import Node
from ._store_checks import check_store
from ._trace import TraceEntry
from ._violation import Violation
from ._world import NotConverged, World

__all__ = [
    "CallChecker",
    "CreditChecker",
    "DeliveryChecker",
    "Disk",
    "LeakChecker",
    "Link",
    "MemoryNetwork",
    "MemoryStream",
    "Node",
    "NodeClock",
    "NotConverged",
    "OrderChecker",
    "TraceEntry",
    "VersionChecker",
    "Violation",
    "World",
    "check_listener",
    "check_store",
    "check_stream",
    "memory_pair",
]
