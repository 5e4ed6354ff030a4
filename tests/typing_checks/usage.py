"""How users' code looks to type checkers. Never run: mypy (strict) and pyright check it.

``assert_type`` says what must be known. A ``type: ignore`` says what must be an error, and is itself one when
that error is gone.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import Any, Unpack, assert_type

import trio

import heartline
from heartline import Backoff, Connection, Heartbeat, Limits, Outcome, Retry, Server, method, remote, service
from heartline.federated import Learner, run_learner


@service
class Calculator:
    """Async methods are awaited by who calls them here, and by who calls them from afar."""

    async def add(self, a: int, b: int) -> int:
        return a + b

    @method(idempotent=True, timeout=2.5)
    async def divide(self, a: float, b: float = 1.0) -> float:
        return a / b


@service(name="Fast")
class Fast:
    """Sync methods answer in the tick in which the call arrives."""

    def add(self, a: int, b: int) -> int:
        return a + b

    @method(thread=True)
    def compute(self, n: int) -> list[int]:
        return list(range(n))


async def call(conn: Connection) -> None:
    calc = conn.service(Calculator)
    assert_type(calc, Calculator)
    assert_type(await calc.add(1, 2), int)
    assert_type(await calc.divide(1, b=2), float)
    await calc.add("1", 2)  # type: ignore[arg-type]
    await calc.subtract(1)  # type: ignore[attr-defined]

    by_name = conn.service(
        "Calculator", retry=Retry(attempts=5, backoff=Backoff(initial=0.5), idempotent=True)
    )
    assert_type(by_name, Any)
    await by_name.whatever(1, key=2)

    # By the class that serves it a sync method seems not to be awaitable: that is what remote is for.
    fast = conn.service(Fast)
    await fast.add(1, 2)  # type: ignore[misc]
    assert_type(await remote(fast.add)(1, b=2), int)
    assert_type(await remote(fast.compute)(3), list[int])
    await remote(fast.add)("1", 2)  # type: ignore[arg-type]
    await remote(fast.add)(1)  # type: ignore[call-arg]
    # For async methods it changes nothing.
    assert_type(await remote(calc.add)(1, 2), int)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(remote(fast.compute), 3)


async def errors(conn: Connection) -> None:
    try:
        await conn.service(Calculator).divide(1, 0)
    except heartline.RemoteError as error:
        assert_type(error.type_name, str)
        assert_type(error.outcome, Outcome)
    except heartline.CallTimeout as error:
        assert_type(error.timeout, float)
    except heartline.CallError as error:
        assert_type(error.outcome, Outcome)


async def open_both() -> None:
    async with heartline.open_server(
        "tcp://127.0.0.1:0",
        services=[Calculator(), Fast()],
        heartbeat=Heartbeat(interval=1, timeout=5),
        limits=Limits(calls=10),
    ) as server:
        assert_type(server, Server)
        assert_type(server.urls, tuple[str, ...])
        async with heartline.open_connection(server.urls[0], reconnect=None) as conn:
            assert_type(conn, Connection)
            await call(conn)
            assert_type(conn.id, str)
        for connection in server.connections.values():
            await call(connection)
        await server.send_to(conn.id, b"message")
        async for message in server.messages():
            assert_type(message, heartline.Message)
            assert_type(message.value, Any)
            await message.connection.send("an answer")
        statistics = server.statistics()
        assert_type(statistics.connections, int)


async def serve(**settings: Unpack[heartline.ServerSettings]) -> None:
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(heartline.serve, "tcp://127.0.0.1:0")
        assert_type(await server.drain(5), bool)
    await heartline.serve("tcp://127.0.0.1:0", **settings)
    await heartline.serve("tcp://127.0.0.1:0", limits=10)  # type: ignore[arg-type]
    await heartline.serve("tcp://127.0.0.1:0", limit=Limits())  # type: ignore[call-arg]


async def learn(learner: Learner) -> None:
    await run_learner("tcp://127.0.0.1:1", learner, identity="ward 7", patience=5)
    await run_learner("tcp://127.0.0.1:1", learner, identity=7)  # type: ignore[arg-type]
    await run_learner("tcp://127.0.0.1:1", learner, identify="ward 7")  # type: ignore[call-arg]


async def connect(url: str, **settings: Unpack[heartline.ConnectionSettings]) -> None:
    async with heartline.open_connection(url, **settings) as conn:
        assert_type(conn, Connection)


async def channels(conn: Connection) -> None:
    channel = await conn.open_channel("bulk")
    assert_type(channel, heartline.Channel)
    async with channel:
        await channel.send({"any": ["value"]})
    assert_type(conn.send_nowait(b"message"), None)
    assert_type(await conn.receive(), Any)
    async for received in conn.messages():
        assert_type(received, Any)
    async for event in conn.events():
        match event:
            case heartline.Opened(connection) | heartline.Reconnected(connection):
                assert_type(connection, Connection)
            case heartline.Lost(reason=reason) | heartline.Closed(reason=reason):
                assert_type(reason, heartline.HeartlineError)


class NoService:
    pass


service(NoService)
service(5)  # type: ignore[call-overload]
Retry(3)  # type: ignore[call-arg]
Retry(attempt=3)  # type: ignore[call-arg]
method(timeout="soon")  # type: ignore[call-overload]
