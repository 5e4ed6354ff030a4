"""The tools that heartline tests itself with, for your own tests.

A simulated world for whole applications, networks in memory, checkers of what was seen, and checks for
transports and stores.
"""

from __future__ import annotations

from heartline.testing._check_bounds import CreditChecker, LeakChecker
from heartline.testing._check_calls import CallChecker
from heartline.testing._check_messages import DeliveryChecker, OrderChecker, VersionChecker
from heartline.testing._clock import NodeClock
from heartline.testing._conformance import check_listener, check_stream
from heartline.testing._disk import Disk
from heartline.testing._disk_store import DiskStore
from heartline.testing._explore import SeedFailed, explore, seeds
from heartline.testing._link import Link
from heartline.testing._node import Node
from heartline.testing._store_checks import check_store
from heartline.testing._trace import TraceEntry
from heartline.testing._violation import Violation
from heartline.testing._world import NotConverged, World
from heartline.transports.memory import MemoryNetwork, MemoryStream, memory_pair

__all__ = [
    "CallChecker",
    "CreditChecker",
    "DeliveryChecker",
    "Disk",
    "DiskStore",
    "LeakChecker",
    "Link",
    "MemoryNetwork",
    "MemoryStream",
    "Node",
    "NodeClock",
    "NotConverged",
    "OrderChecker",
    "SeedFailed",
    "TraceEntry",
    "VersionChecker",
    "Violation",
    "World",
    "check_listener",
    "check_store",
    "check_stream",
    "explore",
    "memory_pair",
    "seeds",
]
