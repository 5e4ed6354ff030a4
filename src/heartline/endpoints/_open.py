"""``open_connection``, ``open_server`` and ``serve``: the layers put together."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import trio

from heartline.connection import Announcer, Connection, Lanes, SharedInbox, face_of
from heartline.endpoints._builtin import ask_for_topic, make_push_service
from heartline.endpoints._settings import ServerSettings
from heartline.errors import ConfigurationError, ConnectionFailed
from heartline.link import (
    GOODBYE_GRACE,
    MAX_IDENTITY,
    Backoff,
    Core,
    Credentials,
    Engine,
    Flusher,
    HeartbeatTimer,
    Part,
    Peer,
    Setup,
    connect,
    connect_first,
    make_id,
    open_engine,
    run_client,
)
from heartline.observe import Hooks, Middleware, Observer, check_function
from heartline.push import History, Publisher, Push, TopicSettings
from heartline.rpc import Calls, ServiceTable, hook
from heartline.server import (
    HTTP_METHODS,
    NATIVE,
    TLS_HANDSHAKE,
    Acceptor,
    Authenticate,
    Dialect,
    Server,
    Table,
    answer_http,
    answer_tls,
    make_server,
)
from heartline.session import Heartbeat, Role
from heartline.session.messages import SMALLEST_FRAME
from heartline.transports import TransportContext, TransportOptions, open_listeners, open_stream
from heartline.wire import Limits, get_serializer
from heartline.wire.text import is_name

__all__ = ["open_connection", "open_server", "serve"]

LEAVING = 3 * GOODBYE_GRACE
"""Seconds that leaving a block is shielded: one for the peer to answer, one for it to read the rest, and one
more, after which not even a bug of this side keeps the block from ending."""


@asynccontextmanager
async def open_connection(
    target: str | trio.abc.Stream,
    *,
    services: Iterable[Any] = (),
    identity: str | None = None,
    credentials: Any = None,
    tls: ssl.SSLContext | None = None,
    transport: TransportOptions = TransportOptions(),  # noqa: B008 - frozen
    reconnect: Backoff | None = Backoff(),  # noqa: B008 - frozen
    patience: float = 0.0,
    heartbeat: Heartbeat = Heartbeat(),  # noqa: B008 - frozen
    limits: Limits = Limits(),  # noqa: B008 - frozen
    history: History = History(),  # noqa: B008 - frozen
    topics: Mapping[str, TopicSettings] | None = None,
    declared_only: bool = False,
    serializer: str = "cbor",
    middleware: Iterable[Middleware] = (),
    observers: Iterable[Observer] = (),
    rng: random.Random | None = None,
) -> AsyncIterator[Connection]:
    """Connect to a server, and stay connected until the block is left.

    ``target`` is a URL (``tcp://``, ``tls://``, ``unix://``, ``ws://``, ``wss://``, ``memory://`` or a
    registered scheme) or a stream that is open already. ``services`` are objects whose methods the server may
    call. ``identity`` is the name of this client, the same each time it is started; without one the server
    makes up an id, which the client keeps over reconnects. ``credentials``, for the server's
    ``authenticate``, is any value, or a function, sync or async, that is called for one before every
    handshake, so that a token can be renewed: what the function raises before the first handshake is raised
    here, and later counts as one failed attempt. ``tls`` is the context for ``tls://`` and ``wss://``;
    without one the system's authorities are trusted. ``transport`` is for registered schemes whose clients
    have options.

    ``reconnect`` says how to come back after a loss; with ``None`` the client does not. ``heartbeat`` says
    when to send a sign of life, and after which silence the link counts as lost. ``limits`` bounds what the
    server can make this side accept and hold. ``serializer`` names the format in which this side writes
    values; it reads every registered one. ``history``, ``topics`` and ``declared_only`` are for what this
    client publishes, as for :func:`open_server`. ``middleware`` runs around what the server asks of this
    client and what it publishes, and ``observers`` are told what happens: see :class:`Operation` and
    :class:`Observer`. ``rng`` is the source of random delays; a seeded one makes a run repeatable.

    ``patience``: seconds to go on trying for the first connection, with the delays of ``reconnect``, for a
    server that is not up yet. By default it is tried once, because a wrong address is a mistake that should
    be reported. Raises :class:`ConfigurationError`, :class:`RemoteProtocolError` or a refusal for good
    (:class:`ConnectionRefusedByPeer`) at once, and at the end of the patience the last
    :class:`ConnectionFailed`.

    Leaving the block, in whatever way, says goodbye and ends every task, socket and call. A healthy peer
    answers within a round trip. One that does not costs a second, and one that does not read either costs
    two, also when the block was cancelled.
    """
    if not isinstance(target, (str, trio.abc.Stream)):
        raise ConfigurationError(f"target must be a URL (scheme://address) or a stream, not {target!r:.80}")
    _check("transport", transport, TransportOptions)
    _check("identity", identity, str, type(None))
    _check("reconnect", reconnect, Backoff, type(None))
    if type(patience) not in (int, float) or not patience >= 0:
        raise ConfigurationError(f"patience must be seconds of at least 0, not {patience!r:.80}")
    _check("history", history, History)
    _check("topics", topics, Mapping, type(None))
    _check("declared_only", declared_only, bool)
    if identity is not None and not is_name(identity, MAX_IDENTITY):
        raise ConfigurationError(
            f"identity must be 1 to {MAX_IDENTITY} printable characters, not {identity!r:.80}"
        )
    delays = reconnect or Backoff()
    if not isinstance(target, str):
        reconnect, patience = None, 0.0
    if reconnect is None and isinstance(limits, Limits):
        # This client will not come back, so the server need not wait for it.
        limits = replace(limits, resume_window=0)
    async with open_engine() as engine:
        hooks = Hooks(middleware, observers)
        setup = _setup(engine, heartbeat, limits, serializer, rng, hooks, Announcer(hooks))
        publisher = await _open_publisher(setup, history, topics, declared_only)
        setup.parts = _parts(services, hooks, publisher, None)
        core = Core(setup, Role.CLIENT, Peer(url=target if isinstance(target, str) else "", address=""))
        if isinstance(target, str):
            context = TransportContext(nursery=engine.nursery, tls=tls, options=transport)
            dial = partial(open_stream, target, context)
        else:
            dial = partial(_give, [target])
        shown = Credentials(credentials, limits.handshake_timeout)
        again = partial(connect, core, dial, identity=identity, credentials=shown)
        link = await connect_first(core, again, delays.delays(setup.rng), patience)
        client = partial(run_client, core, link, again, reconnect, renewable=shown.renewable)
        engine.nursery.start_soon(client)
        try:
            await core.wait_open()
            yield face_of(core)
        finally:
            with trio.move_on_after(LEAVING, shield=True):
                await core.aclose()


async def _give(streams: list[trio.abc.Stream]) -> trio.abc.Stream:
    """Dial by handing out the stream that the user gave; works once."""
    await trio.lowlevel.checkpoint()
    if not streams:
        raise ConnectionFailed("a stream that was given cannot be opened again")
    stream = streams.pop()
    # Wrapped, so that its descriptor is not used directly: the user may close the stream, and the number
    # could soon belong to another file.
    return trio.StapledStream(stream, stream)


@asynccontextmanager
async def open_server(
    *urls: str,
    services: Iterable[Any] = (),
    authenticate: Authenticate | None = None,
    tls: ssl.SSLContext | None = None,
    transport: TransportOptions = TransportOptions(),  # noqa: B008 - frozen
    heartbeat: Heartbeat = Heartbeat(),  # noqa: B008 - frozen
    limits: Limits = Limits(),  # noqa: B008 - frozen
    history: History = History(),  # noqa: B008 - frozen
    topics: Mapping[str, TopicSettings] | None = None,
    declared_only: bool = False,
    serializer: str = "cbor",
    middleware: Iterable[Middleware] = (),
    observers: Iterable[Observer] = (),
    dialects: Mapping[int, Dialect] | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[Server]:
    """Listen on every URL, and serve the clients that connect, until the block is left.

    With port 0 the system picks one; ``Server.urls`` has the real addresses. ``services`` are the objects
    whose methods clients may call. ``authenticate(peer)`` judges a :class:`heartline.Peer`: it returns the id
    under which the client is let in, in place of an older connection with that id; or ``None`` to let it in
    under the identity that it claims, if that is free; or it raises :class:`PermissionError`. It may be
    async. ``tls`` is the context, with the server's certificate, that ``tls://`` and ``wss://`` need.
    ``transport`` says how to listen, and which sites' pages may connect from browsers.

    ``heartbeat`` says when to send a sign of life, and after which silence a link counts as lost. ``limits``
    bounds what each client, and all of them together, can make this side accept and hold. ``serializer``
    names the format in which this side writes values; it reads every registered one. ``history`` is what
    topics retain by default. ``topics`` are those with a store, a fold or other policies, by name: they
    are loaded from their stores before the first client is let in. With ``declared_only`` there are no other
    topics than these and those of :meth:`Server.declare_topic`: a misspelt name is refused, to publish to as
    to subscribe to. By default a topic comes about with its first use. ``middleware`` runs around what
    clients ask of this server and what it publishes, and ``observers`` are told what happens: see
    :class:`Operation` and :class:`Observer`. ``dialects`` serve streams whose first byte is not 0, as that of
    a heartline client is: a :data:`heartline.server.Dialect` by first byte. ``rng`` makes ids and epochs.

    Raises :class:`ConfigurationError` for a wrong setting, :class:`ConnectionFailed` when it cannot listen,
    and :class:`StoreError` when a store cannot be read.

    Leaving the block, in whatever way, says goodbye to every client, which will try to come back, and ends
    every task, socket and call; clients that do not answer cost two seconds at most. For a gentle end call
    :meth:`Server.drain` first.
    """
    _check("transport", transport, TransportOptions)
    _check("history", history, History)
    _check("topics", topics, Mapping, type(None))
    _check("declared_only", declared_only, bool)
    if authenticate is not None:
        check_function("authenticate", authenticate, "peer", may_be_async=True)
    spoken = _dialects(dialects or {})
    if not urls:
        raise ConfigurationError("open_server needs at least one URL to listen on, such as tcp://127.0.0.1:0")
    async with AsyncExitStack() as opened, open_engine() as engine:
        context = TransportContext(nursery=engine.nursery, tls=tls, options=transport)
        listeners = []
        for url in urls:
            for listener in await open_listeners(url, context):
                await opened.enter_async_context(listener)
                listeners.append(listener)
        hooks = Hooks(middleware, observers)
        announcer = Announcer(hooks)
        setup = _setup(engine, heartbeat, limits, serializer, rng, hooks, announcer)
        publisher = await _open_publisher(setup, history, topics, declared_only)
        inbox = SharedInbox(limits)
        setup.parts = _parts(services, hooks, publisher, inbox)
        table = Table(setup)
        addresses = tuple(dict.fromkeys(listener.url for listener in listeners))
        server = make_server(table, addresses, publisher, announcer, inbox)
        acceptor = Acceptor(table, authenticate, spoken)
        for listener in listeners:
            engine.nursery.start_soon(acceptor.accept, listener)
        try:
            yield server
        finally:
            with trio.move_on_after(LEAVING, shield=True):
                await server.drain(0)
            announcer.feeds.end()
            inbox.end()


async def serve(
    *urls: str,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    **settings: Unpack[ServerSettings],
) -> None:
    """Serve until cancelled; ``settings`` are those of :func:`open_server`, and so is what it raises.

    ``server = await nursery.start(heartline.serve, url)`` gives the :class:`Server`.
    """
    async with open_server(*urls, **settings) as server:
        task_status.started(server)
        await trio.sleep_forever()


def _check(name: str, value: object, *kinds: type) -> None:
    """Refuse a setting of the wrong kind at once, not where it is first used."""
    if not isinstance(value, kinds):
        wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
        raise ConfigurationError(f"{name} must be {wanted}, not {value!r:.80}")


def _setup(
    engine: Engine,
    heartbeat: Heartbeat,
    limits: Limits,
    serializer: str,
    rng: random.Random | None,
    hooks: Hooks,
    on_change: Announcer,
) -> Setup:
    """What the connections of an endpoint share, without their parts; starts the timer and the flusher."""
    _check("heartbeat", heartbeat, Heartbeat)
    _check("limits", limits, Limits)
    _check("serializer", serializer, str)
    if limits.frame_size < SMALLEST_FRAME:
        raise ConfigurationError(
            f"Limits.frame_size must be at least {SMALLEST_FRAME} bytes for a handshake to fit in, "
            f"not {limits.frame_size}"
        )
    _check("rng", rng, random.Random, type(None))
    rng = rng or random.SystemRandom()
    timer, flusher = HeartbeatTimer(heartbeat, rng), Flusher()
    engine.nursery.start_soon(timer.run)
    engine.nursery.start_soon(flusher.run)
    return Setup(
        limits=limits,
        heartbeat=heartbeat,
        serializer=get_serializer(serializer),
        rng=rng,
        nursery=engine.nursery,
        let_pass=engine.let_pass,
        timer=timer,
        flusher=flusher,
        parts={},
        hooks=hooks,
        on_change=on_change,
    )


async def _open_publisher(
    setup: Setup, history: History, topics: Mapping[str, TopicSettings] | None, declared_only: bool
) -> Publisher:
    """What an endpoint publishes: its topics, with what their stores have of them, and their journals."""
    publisher = Publisher(
        serializer=setup.serializer,
        flusher=setup.flusher,
        limits=setup.limits,
        history=history,
        declared_only=declared_only,
        make_epoch=partial(make_id, setup.rng),
        hooks=setup.hooks,
    )
    await publisher.open_topics(topics or {})
    for journal in publisher.journals:
        setup.nursery.start_soon(journal.run)
    return publisher


def _parts(
    services: Iterable[Any], hooks: Hooks, publisher: Publisher, inbox: SharedInbox | None
) -> dict[int, Callable[[Core], Part]]:
    """The parts of each connection of an endpoint: a line per part."""
    if not isinstance(services, Iterable):
        raise ConfigurationError(f"services must be a list of objects: services=[...], not {services!r:.80}")
    table = ServiceTable(partial(hook, hooks))
    table.add(make_push_service(hooks), "$push")
    for instance in services:
        table.add(instance)
    return {
        Lanes.family: partial(Lanes, inbox),
        Calls.family: partial(Calls, table),
        Push.family: partial(Push, publisher, ask_for_topic),
    }


def _dialects(more: Mapping[int, Dialect]) -> dict[int, Dialect]:
    """What serves a stream, by its first byte: a line per dialect, and ``more`` of the user's own."""
    _check("dialects", more, Mapping)
    for first in more:
        if type(first) is not int or first == NATIVE or not 0 <= first <= 255:
            raise ConfigurationError(
                f"dialects: {first!r:.80} cannot choose one; give the first byte of its streams, 1 to 255"
            )
        check_function(f"dialects[{first}]", more[first], "stream", "first", "visit", may_be_async=True)
    return {
        TLS_HANDSHAKE: answer_tls,
        **dict.fromkeys(HTTP_METHODS, answer_http),
        **more,
    }
