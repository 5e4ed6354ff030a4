"""The settings of connections and servers as types, for functions that pass them on."""

from __future__ import annotations

import random
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from heartline.link import Backoff
from heartline.observe import Middleware, Observer
from heartline.push import History, TopicSettings
from heartline.server import Authenticate, Dialect
from heartline.session import Heartbeat
from heartline.transports import TransportOptions
from heartline.wire import Limits

__all__ = ["ConnectionSettings", "ServerSettings"]


class ConnectionSettings(TypedDict, total=False):
    """The keyword arguments of :func:`heartline.open_connection`, for ``**settings: Unpack[...]``."""

    services: Iterable[Any]
    identity: str | None
    credentials: Any
    tls: ssl.SSLContext | None
    transport: TransportOptions
    reconnect: Backoff | None
    patience: float
    heartbeat: Heartbeat
    limits: Limits
    history: History
    topics: Mapping[str, TopicSettings] | None
    declared_only: bool
    serializer: str
    middleware: Iterable[Middleware]
    observers: Iterable[Observer]
    rng: random.Random | None


class ServerSettings(TypedDict, total=False):
    """The keyword arguments of :func:`heartline.open_server`, for ``**settings: Unpack[...]``."""

    services: Iterable[Any]
    authenticate: Authenticate | None
    tls: ssl.SSLContext | None
    transport: TransportOptions
    heartbeat: Heartbeat
    limits: Limits
    history: History
    topics: Mapping[str, TopicSettings] | None
    declared_only: bool
    serializer: str
    middleware: Iterable[Middleware]
    observers: Iterable[Observer]
    dialects: Mapping[int, Dialect] | None
    rng: random.Random | None
