"""The engine below a connection: its links, its heartbeat, its reconnects and its goodbye.

What stands on it is written against :class:`Core` and :class:`Link`, and given to it as a :class:`Part`.
"""

from heartline.link._backoff import Backoff
from heartline.link._client import connect, connect_first, run_client
from heartline.link._construction import NoPublicConstructor
from heartline.link._core import Core
from heartline.link._credentials import Credentials
from heartline.link._current import current
from heartline.link._engine import Engine, open_engine
from heartline.link._flusher import Flusher
from heartline.link._goodbye import GOODBYE_GRACE
from heartline.link._handshake import read_some, receive_greeting, send_greeting
from heartline.link._id import MAX_IDENTITY, make_id
from heartline.link._link import Link, close_stream
from heartline.link._nursery import open_plain_nursery
from heartline.link._peer import Peer
from heartline.link._serving import serve_link
from heartline.link._setup import Change, Part, Setup, Unsent
from heartline.link._state import (
    CONNECTION_TRANSITIONS,
    LINK_TRANSITIONS,
    ConnectionState,
    ConnectionStatistics,
    ConnectionStep,
    LinkState,
    LinkStep,
)
from heartline.link._timer import HeartbeatTimer

__all__ = [
    "CONNECTION_TRANSITIONS",
    "GOODBYE_GRACE",
    "LINK_TRANSITIONS",
    "MAX_IDENTITY",
    "Backoff",
    "Change",
    "ConnectionState",
    "ConnectionStatistics",
    "ConnectionStep",
    "Core",
    "Credentials",
    "Engine",
    "Flusher",
    "HeartbeatTimer",
    "Link",
    "LinkState",
    "LinkStep",
    "NoPublicConstructor",
    "Part",
    "Peer",
    "Setup",
    "Unsent",
    "close_stream",
    "connect",
    "connect_first",
    "current",
    "make_id",
    "open_engine",
    "open_plain_nursery",
    "read_some",
    "receive_greeting",
    "run_client",
    "send_greeting",
    "serve_link",
]
