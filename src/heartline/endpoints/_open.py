"""``open_connection``, ``open_server`` and ``serve``."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import trio

from heartline.connection import (
    Backoff,
    Connection,
    Flusher,
    HeartbeatTimer,
    Setup,
    open_plain_nursery,
    run_client,
)
from heartline.connection._client import connect
from heartline.errors import ConfigurationError, ConnectionFailed
from heartline.rpc import Calls, ServiceTable
from heartline.server import Authenticate, Server
from heartline.server._acceptor import serve_stream
from heartline.session import CloseCode, Heartbeat, Role
from heartline.transports import open_listeners, open_stream
from heartline.wire import Limits, get_serializer

__all__ = ["open_connection", "open_server", "serve"]


def _setup(
    nursery: trio.Nursery,
    services: Iterable[Any],
    heartbeat: Heartbeat,
    limits: Limits,
    serializer: str,
    rng: random.Random | None,
) -> Setup:
    table = ServiceTable()
    for instance in services:
        table.add(instance)
    timer = HeartbeatTimer()
    nursery.start_soon(timer.run)
    return Setup(
        limits=limits,
        heartbeat=heartbeat,
        serializer=get_serializer(serializer),
        rng=rng or random.SystemRandom(),
        nursery=nursery,
        timer=timer,
        make_calls=partial(Calls, table),
        make_push=_NoPush,
    )


class _NoPush:
    def __init__(self, connection):
        pass

    def on_frame(self, frame):
        pass

    def on_link_open(self):
        pass

    def on_link_end(self, reason, unsent):
        pass


@asynccontextmanager
async def open_connection(
    target: str | trio.abc.Stream,
    *,
    services: Iterable[Any] = (),
    identity: str | None = None,
    credentials: Any = None,
    tls: ssl.SSLContext | None = None,
    reconnect: Backoff | None = Backoff(),  # noqa: B008
    heartbeat: Heartbeat = Heartbeat(),  # noqa: B008
    limits: Limits = Limits(),  # noqa: B008
    serializer: str = "cbor",
    rng: random.Random | None = None,
) -> AsyncIterator[Connection]:
    """x"""
    async with open_plain_nursery() as nursery:
        setup = _setup(nursery, services, heartbeat, limits, serializer, rng)
        connection = Connection(setup, Role.CLIENT)
        if isinstance(target, str):
            dial = partial(open_stream, target, tls=tls)
            connection.address = target
        else:
            dial = _Once(target)
            reconnect = None
        again = partial(connect, connection, dial, identity=identity, credentials=credentials)
        link, early = await again()
        nursery.start_soon(run_client, connection, link, early, again, reconnect)
        try:
            await connection.wait_open()
            yield connection
            await connection.aclose()
        finally:
            nursery.cancel_scope.cancel()


class _Once:
    """Dials a stream that is already there, once."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream: trio.abc.Stream | None = stream

    async def __call__(self) -> trio.abc.Stream:
        stream, self._stream = self._stream, None
        if stream is None:
            raise ConnectionFailed("a stream that was given cannot be opened again")
        return stream


class _NoPublisher:
    async def publish(self, *a):
        raise NotImplementedError


@asynccontextmanager
async def open_server(
    *urls: str,
    services: Iterable[Any] = (),
    authenticate: Authenticate | None = None,
    tls: ssl.SSLContext | None = None,
    heartbeat: Heartbeat = Heartbeat(),  # noqa: B008
    limits: Limits = Limits(),  # noqa: B008
    serializer: str = "cbor",
    rng: random.Random | None = None,
) -> AsyncIterator[Server]:
    """x"""
    if not urls:
        raise ConfigurationError("open_server needs at least one URL to listen on, such as tcp://127.0.0.1:0")
    async with AsyncExitStack() as stack:
        listeners = []
        for url in urls:
            for listener in await open_listeners(url, tls=tls):
                listeners.append(listener)
                await stack.enter_async_context(listener)
        nursery = await stack.enter_async_context(open_plain_nursery())
        setup = _setup(nursery, services, heartbeat, limits, serializer, rng)
        flusher = Flusher()
        nursery.start_soon(flusher.run)
        server = Server(setup, tuple(dict.fromkeys(l.url for l in listeners)), _NoPublisher(), flusher)
        handler = partial(serve_stream, server, authenticate)
        nursery.start_soon(partial(trio.serve_listeners, handler, listeners, handler_nursery=nursery))
        try:
            yield server
            await server.drain(0)
        finally:
            nursery.cancel_scope.cancel()


async def serve(
    *urls: str, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED, **settings: Any
) -> None:
    """x"""
    async with open_server(*urls, **settings) as server:
        task_status.started(server)
        await trio.sleep_forever()
