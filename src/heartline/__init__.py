"""heartline: connections that live for days, on Trio.

Open a server and a connection, call methods across it, publish and subscribe, federate learning; every name
that is meant to be used is here or in one of the public subpackages: ``wire``, ``transports``, ``federated``
and ``testing``.
"""

from heartline.connection import (
    Channel,
    Closed,
    Connection,
    Lost,
    Message,
    Opened,
    Reconnected,
    current_connection,
)
from heartline.endpoints import open_connection, open_server, serve
from heartline.errors import (
    CallError,
    CallInterrupted,
    CallTimeout,
    ConfigurationError,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionLost,
    ConnectionRefusedByPeer,
    Forbidden,
    HeartlineError,
    HistoryGap,
    InvalidArguments,
    KeyReused,
    LocalProtocolError,
    Outcome,
    Overloaded,
    ProtocolError,
    PushError,
    RemoteError,
    RemoteProtocolError,
    SerializationError,
    SlowConsumer,
    StoreError,
    UnknownMethod,
)
from heartline.link import Backoff, ConnectionState, ConnectionStatistics
from heartline.push import (
    Fold,
    Gap,
    History,
    Level,
    Position,
    Receipt,
    SqliteStore,
    Subscription,
    TopicSettings,
    Update,
)
from heartline.rpc import Retry, method, service
from heartline.server import Broadcast, Server, ServerStatistics
from heartline.session import CloseCode, Heartbeat
from heartline.transports import TransportOptions
from heartline.wire import Limits

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "Broadcast",
    "CallError",
    "CallInterrupted",
    "CallTimeout",
    "Channel",
    "CloseCode",
    "Closed",
    "ConfigurationError",
    "Connection",
    "ConnectionClosed",
    "ConnectionFailed",
    "ConnectionLost",
    "ConnectionRefusedByPeer",
    "ConnectionState",
    "ConnectionStatistics",
    "Fold",
    "Forbidden",
    "Gap",
    "Heartbeat",
    "HeartlineError",
    "History",
    "HistoryGap",
    "InvalidArguments",
    "KeyReused",
    "Level",
    "Limits",
    "LocalProtocolError",
    "Lost",
    "Message",
    "Opened",
    "Outcome",
    "Overloaded",
    "Position",
    "ProtocolError",
    "PushError",
    "Receipt",
    "Reconnected",
    "RemoteError",
    "RemoteProtocolError",
    "Retry",
    "SerializationError",
    "Server",
    "ServerStatistics",
    "SlowConsumer",
    "SqliteStore",
    "StoreError",
    "Subscription",
    "TopicSettings",
    "TransportOptions",
    "UnknownMethod",
    "Update",
    "current_connection",
    "method",
    "open_connection",
    "open_server",
    "serve",
    "service",
]
