"""Connections: nursery-scoped objects that own a stream, its session, its heartbeat and its reconnects."""

from heartline.connection._backoff import Backoff
from heartline.connection._channels import Channel
from heartline.connection._client import connect, run_client
from heartline.connection._connection import Connection
from heartline.connection._current import current_connection
from heartline.connection._events import (
    Closed,
    ConnectionEvent,
    Events,
    Lost,
    Message,
    Opened,
    Reconnected,
)
from heartline.connection._flusher import Flusher
from heartline.connection._link import Link
from heartline.connection._nursery import open_plain_nursery
from heartline.connection._serving import serve_link
from heartline.connection._setup import CallsPart, Part, PushPart, Setup
from heartline.connection._state import ConnectionState, ConnectionStatistics
from heartline.connection._timer import HeartbeatTimer

__all__ = [
    "Backoff",
    "CallsPart",
    "Channel",
    "Closed",
    "Connection",
    "ConnectionEvent",
    "ConnectionState",
    "ConnectionStatistics",
    "Events",
    "Flusher",
    "HeartbeatTimer",
    "Link",
    "Lost",
    "Message",
    "Opened",
    "Part",
    "PushPart",
    "Reconnected",
    "Setup",
    "connect",
    "current_connection",
    "open_plain_nursery",
    "run_client",
    "serve_link",
]
