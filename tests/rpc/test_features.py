"""One test for each capability of RPC that the source design names, in the form it has here."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import ConnectionState, Heartbeat, Limits, Retry, method, remote, service
from heartline.errors import (
    CallError,
    CallInterrupted,
    CallTimeout,
    ConnectionFailed,
    HeartlineError,
    InvalidArguments,
    Outcome,
    Overloaded,
    RemoteError,
    SerializationError,
    UnknownMethod,
)
from heartline.testing import memory_pair
from heartline.wire import Frame, FrameType, convert, decode_text, encode_text, get_serializer
from tests.engine import core_of
from tests.rpc.helpers import CBOR, QUIET, open_pair, raw_server
from tests.wire.helpers import known


@service
class UserService:
    def get_user(self, user_id: int, *, detailed: bool = False) -> dict[str, Any]:
        return {"id": user_id, "detailed": detailed}

    def fail(self) -> None:
        raise LookupError("no such user")

    @method(timeout=0.25)
    async def slow(self) -> None:
        await trio.sleep_forever()


@service
class OrderService:
    def get_user(self, user_id: int, *, detailed: bool = False) -> str:
        return f"user of order {user_id}"


async def test_a_client_of_transport_serializer_and_settings() -> None:
    """EF-09: any URL or stream, any serializer, settings; entering the block starts it, its state shows."""
    settings: dict[str, Any] = {"heartbeat": Heartbeat(interval=5, timeout=20), "limits": Limits(calls=7)}
    async with heartline.open_server("memory://", services=[UserService()]) as server:
        async with heartline.open_connection(server.urls[0], serializer="json", **settings) as client:
            assert client.state is ConnectionState.OPEN
            assert await client.service("UserService").get_user(1) == {"id": 1, "detailed": False}
            await client.aclose()
            await client.aclose()  # closing twice is fine
            assert client.state is ConnectionState.CLOSED
    here, there = memory_pair()
    there.close()
    with pytest.raises(ConnectionFailed):
        async with heartline.open_connection(here):
            pass


async def test_no_calls_outside_of_the_block() -> None:
    """EF-10, EF-11: a proxy stands on its connection, whose life is that of the block."""
    async with open_pair(UserService()) as (client, _):
        users = client.service("UserService")
        assert users.get_user is users.get_user
    with pytest.raises(CallInterrupted, match=r"UserService\.get_user was not called") as info:
        await users.get_user(1)
    assert info.value.outcome is Outcome.NOT_SENT


async def test_services_are_registered_by_class_name_or_their_own() -> None:
    """EF-12."""

    @service(name="users", version="1.0")
    class Named(UserService):
        def count(self) -> int:
            return 3

    async with open_pair(UserService(), Named()) as (client, _):
        assert (await client.service("UserService").get_user(1))["id"] == 1
        assert await client.service("users@1.0").count() == 3
        assert (await remote(client.service(Named).get_user)(2))["id"] == 2


async def test_a_server_serves_several_services_until_its_block_is_left() -> None:
    """EF-13, EF-14: a call finds its service, then its method."""
    async with open_pair(UserService(), OrderService()) as (client, _):
        assert await remote(client.service(UserService).get_user)(5) == {"id": 5, "detailed": False}
        assert await remote(client.service(OrderService).get_user)(5) == "user of order 5"
        with pytest.raises(UnknownMethod, match=r"OrderService\.fail"):
            await client.service("OrderService").fail()


async def test_what_a_call_says() -> None:
    """EF-15, EF-16, EF-23: any name becomes a call: service, version, method, arguments and its id."""
    async with raw_server() as (client, peer), trio.open_nursery() as nursery:
        proxy = client.service("svc@2.0")
        nursery.start_soon(lambda: proxy.anything_at_all(1, b"two", three=3.0))
        nursery.start_soon(proxy.other)
        frames = sorted([await peer.receive(), await peer.receive()], key=lambda frame: len(frame.payload))
        assert len({frame.id for frame in frames}) == 2
        assert b"svc@2.0.other" in frames[0].payload
        head, arguments = frames[1].payload.split(b"svc@2.0.anything_at_all")
        assert CBOR.decode(arguments) == [[1, b"two"], {"three": 3.0}]
        assert head[0] == CBOR.content_id
        for frame in frames:
            await peer.result(frame.id, None)


async def test_an_error_raises_and_a_result_returns() -> None:
    """EF-17, EF-30: an answer is one or the other; the error names its class and text at the peer."""
    async with open_pair(UserService()) as (client, _):
        assert await client.service("UserService").get_user(1) == {"id": 1, "detailed": False}
        with pytest.raises(RemoteError, match="LookupError: no such user"):
            await client.service("UserService").fail()


async def test_keyword_arguments() -> None:
    """EF-18."""
    async with open_pair(UserService()) as (client, _):
        users = client.service("UserService")
        assert await users.get_user(user_id=4, detailed=True) == {"id": 4, "detailed": True}
        assert await users.get_user(4, detailed=True) == {"id": 4, "detailed": True}


class Backwards:
    """A serializer of one's own: JSON in base64, backwards."""

    name = "backwards"
    content_id = 177
    is_text = True

    def encode(self, value: Any, segments: list[Any]) -> bytes:
        return base64.b64encode(json.dumps(value).encode())[::-1]

    def decode(self, data: bytes, segments: Sequence[Any] = (), target: Any = Any) -> Any:
        return json.loads(base64.b64decode(bytes(data)[::-1]))


async def test_serializers() -> None:
    """EF-24, EF-25: to bytes and to text and back, to a wanted type; and one's own, chosen by name."""
    cbor = get_serializer("cbor")
    now = datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    data = cbor.encode({"at": now}, [])
    assert convert(cbor.decode(data), dict[str, datetime.datetime]) == {"at": now}
    text = encode_text(cbor, {"at": now})
    assert decode_text(cbor, text, dict[str, datetime.datetime]) == {"at": now}
    with pytest.raises(SerializationError):
        decode_text(cbor, text, dict[str, int])

    with known(Backwards()):
        async with open_pair(UserService(), serializer="backwards") as (client, _):
            assert await client.service("UserService").get_user(6) == {"id": 6, "detailed": False}


async def test_one_family_of_errors() -> None:
    """EF-26, EF-27, EF-29: one root, and the cause where there is one."""
    for error in (CallError, ConnectionFailed, SerializationError, RemoteError, CallTimeout):
        assert issubclass(error, HeartlineError)
    with pytest.raises(ConnectionFailed, match="nobody listens there"):
        async with heartline.open_connection("memory://nowhere"):
            pass
    async with open_pair(reconnect=None) as (client, _):
        with pytest.raises(InvalidArguments) as unsendable:
            await client.service("X").m(object())
        assert isinstance(unsendable.value.__cause__, SerializationError)
        await client.aclose()
        with pytest.raises(CallInterrupted) as info:
            await client.service("X").m()
        assert isinstance(info.value.__cause__, heartline.ConnectionClosed)


async def test_a_timeout_says_how_long_it_was(autojump_clock: MockClock) -> None:
    """EF-28."""
    async with open_pair(UserService()) as (client, _):
        with pytest.raises(
            CallTimeout, match=r"UserService\.slow did not answer \(timeout: 250 ms\)"
        ) as info:
            await client.service(UserService).slow()
        assert info.value.timeout == 0.25


async def test_retries(autojump_clock: MockClock) -> None:
    """EF-31: so many attempts, with delays between them, where the error allows it; then the last error."""
    retry = Retry(attempts=4, backoff=heartline.Backoff(initial=0.5, factor=1, maximum=0.5))
    async with raw_server() as (client, peer), trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(Overloaded):
                await client.service("X", retry=retry).m()

        nursery.start_soon(call)
        for _ in range(4):
            frame = await peer.receive()
            fault = CBOR.encode({"kind": "overloaded", "message": "later"}, [])
            await peer.send(Frame(FrameType.FAULT, id=frame.id, payload=fault))
        await trio.testing.wait_all_tasks_blocked()
        assert core_of(client).idle
        assert 0 < trio.current_time() <= 1.5


async def test_calls_run_at_the_same_time(autojump_clock: MockClock) -> None:
    """EF-32: a hundred calls of a second take a second, and nothing else waits for them."""

    @service
    class Waits:
        async def second(self) -> None:
            await trio.sleep(1)

        def quick(self) -> float:
            return trio.current_time()

    async with open_pair(Waits(), heartbeat=QUIET) as (client, _):
        waits = client.service("Waits")
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(waits.second)
            await trio.testing.wait_all_tasks_blocked()
            assert await waits.quick() == 0
        assert trio.current_time() == pytest.approx(1)
