"""Errors that callers expect: what they carry, what is logged, and what becomes of what cannot be sent."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline import (
    ApplicationError,
    ConfigurationError,
    Limits,
    Operation,
    Outcome,
    RemoteError,
    Retry,
    service,
)
from heartline.errors import CODE_SIZE
from heartline.observe import Proceed
from heartline.rpc._faults import DATA_SIZE, MESSAGE_SIZE
from heartline.wire import Frame, FrameType
from tests.rpc.helpers import CBOR, open_pair, raw_server, run


class OutOfStock(ApplicationError):
    """An error of a program's own, with a constructor of its own."""

    def __init__(self, item: str) -> None:
        super().__init__(f"{item} is gone", code="out of stock", data={"item": item})


class Careless(ApplicationError):
    def __init__(self) -> None:
        """Without the constructor of its base."""


class Late(ApplicationError):
    def __init__(self) -> None:
        super().__init__("late", code="fine")
        self.code = "x" * (CODE_SIZE + 1)


class Unwritable(ApplicationError):
    def __str__(self) -> str:
        raise RuntimeError


@service
class Shop:
    def __init__(self) -> None:
        self.error: Exception = OutOfStock("tea")
        self.calls = 0

    def inline(self) -> None:
        self.calls += 1
        raise self.error

    async def task(self) -> None:
        self.calls += 1
        await trio.lowlevel.checkpoint()
        raise self.error

    async def nursery(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.task)

    @heartline.method(thread=True)
    def thread(self) -> None:
        raise self.error


@pytest.mark.parametrize("name", ["inline", "task", "nursery", "thread"])
@pytest.mark.parametrize("serializer", ["cbor", "json", "msgpack"])
async def test_the_caller_gets_what_was_raised(
    name: str, serializer: str, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.DEBUG, "heartline.rpc")
    shop = Shop()
    async with heartline.open_server("memory://", services=[shop], serializer=serializer) as server:
        async with heartline.open_connection(server.urls[0]) as client:
            for proxy in (client.service(Shop), client.service("Shop")):
                with pytest.raises(ApplicationError) as info:
                    await getattr(proxy, name)()
                error = info.value
                assert type(error) is ApplicationError
                assert str(error) == f"Shop.{name} raised out of stock: tea is gone"
                assert (error.message, error.code, error.data) == (
                    "tea is gone",
                    "out of stock",
                    {"item": "tea"},
                )
                assert (error.type_name, error.outcome) == ("OutOfStock", Outcome.COMPLETED)
                assert error.method == f"Shop.{name}"
    assert not [record for record in caplog.records if record.name == "heartline.rpc"], "it is expected"


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
codes = st.text(min_size=1, max_size=CODE_SIZE).filter(str.isprintable)


@given(code=codes, data=plain, message=st.text(st.characters(exclude_categories=["C", "Z"]), max_size=100))
def test_any_code_and_data_arrive(code: str, data: Any, message: str) -> None:
    async def main() -> None:
        shop = Shop()
        shop.error = ApplicationError(message, code=code, data=data)
        async with open_pair(shop) as (client, _):
            with pytest.raises(ApplicationError) as info:
                await client.service("Shop").inline()
            assert (info.value.code, info.value.data, info.value.message) == (code, data, message)

    run(main)


@pytest.mark.parametrize("code", ["", "x" * (CODE_SIZE + 1), "a\nb", None, 5, b"code"])
def test_what_is_no_code(code: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"the code of an ApplicationError must be 1 to 64 printable"
    ):
        ApplicationError("no", code=code)


class Unsendable:
    pass


BAD: dict[str, tuple[Exception, str]] = {
    "no value": (ApplicationError("no", code="a", data=Unsendable()), "Unsendable cannot be sent"),
    "an array": (ApplicationError("no", code="a", data=np.zeros(3)), "arrays cannot be data"),
    "too long": (ApplicationError("no", code="a", data="x" * DATA_SIZE), "at most 4096 are sent"),
    "without a constructor": (Careless(), "no attribute 'code'"),
    "another code": (Late(), "must be 1 to 64 printable"),
}


@pytest.mark.parametrize("name", ["inline", "task"])
@pytest.mark.parametrize("kind", BAD)
async def test_what_cannot_be_sent_is_logged_and_told(
    kind: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop()
    shop.error, why = BAD[kind]
    async with open_pair(shop) as (client, _):
        with pytest.raises(
            RemoteError, match=rf"^Shop\.{name} raised .*\(sent without its code and data: .*{why}"
        ) as info:
            await getattr(client.service("Shop"), name)()
        assert not isinstance(info.value, ApplicationError)
        assert f"Shop.{name} raised {type(shop.error).__name__}" in caplog.text
        shop.error = Unwritable("text", code="fine")
        with pytest.raises(ApplicationError, match="could not be made"):
            await getattr(client.service("Shop"), name)()


async def test_the_longest_data() -> None:
    shop = Shop()
    data = "x" * (DATA_SIZE - 4)
    shop.error = ApplicationError("m" * 2 * MESSAGE_SIZE, code="c" * CODE_SIZE, data=data)
    async with open_pair(shop) as (client, _):
        with pytest.raises(ApplicationError) as info:
            await client.service("Shop").inline()
        assert info.value.data == data


async def test_a_caller_with_smaller_limits_is_told() -> None:
    shop = Shop()
    shop.error = ApplicationError("m" * 2 * MESSAGE_SIZE, code="a", data="x" * (DATA_SIZE - 4))
    small = Limits(frame_size=2048, message_size=2048)
    async with open_pair(shop, limits=small, server_limits=Limits()) as (client, _):
        with pytest.raises(
            RemoteError, match=r"raised ApplicationError: m+ \(sent without its code and data: "
        ):
            await client.service("Shop").inline()
        shop.error = OutOfStock("tea")
        with pytest.raises(ApplicationError, match="tea is gone"):
            await client.service("Shop").inline()


async def test_one_of_a_nested_call_is_not_ones_own(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """Its code belongs to a method that the caller knows nothing of."""

    @service
    class Front:
        async def forgets(self) -> None:
            await heartline.current_connection().service("Shop").inline()

        async def translates(self) -> None:
            try:
                await heartline.current_connection().service("Shop").inline()
            except ApplicationError as error:
                raise ApplicationError(error.message, code="sold out", data=error.data) from error

        async def misuses(self) -> None:
            await heartline.current_connection().service("Shop").inline(1, 2, 3)

        def refuses(self) -> None:
            raise heartline.InvalidArguments("odd", outcome=Outcome.COMPLETED)

    async with open_pair(Front(), client_services=[Shop()]) as (client, _):
        front: Any = client.service("Front")
        with pytest.raises(RemoteError) as info:
            await front.forgets()
        assert type(info.value) is RemoteError
        assert str(info.value) == (
            "Front.forgets raised ApplicationError: Shop.inline raised out of stock: tea is gone"
        )
        assert "Front.forgets raised ApplicationError" in caplog.text
        caplog.clear()
        with pytest.raises(ApplicationError, match=r"^Front\.translates raised sold out: tea is gone$"):
            await front.translates()
        with pytest.raises(heartline.InvalidArguments, match=r"^Front\.refuses: odd"):
            await front.refuses()
        assert not caplog.records
        with pytest.raises(
            RemoteError, match=r"^Front\.misuses raised InvalidArguments: Shop\.inline: too many"
        ):
            await front.misuses()
        assert "Front.misuses raised InvalidArguments" in caplog.text, "a bug of the one in the middle"


async def test_middleware_may_raise_one(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    async def refuse(operation: Operation, proceed: Proceed) -> Any:
        if operation.kind != "call":
            return await proceed()
        raise ApplicationError("pay first", code="unpaid", data=12)

    async with (
        heartline.open_server("memory://", services=[Shop()], middleware=[refuse]) as server,
        heartline.open_connection(server.urls[0]) as client,
    ):
        with pytest.raises(ApplicationError, match=r"^Shop\.inline raised unpaid: pay first$") as info:
            await client.service("Shop").inline()
        assert info.value.data == 12
    assert not caplog.records


async def test_it_is_never_retried() -> None:
    shop = Shop()
    async with open_pair(shop) as (client, _):
        with pytest.raises(ApplicationError):
            await client.service("Shop", retry=Retry(attempts=5, idempotent=True)).inline()
    assert shop.calls == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"code": ""}, "must be 1 to 64 printable"),
        ({"code": "a\nb"}, "must be 1 to 64 printable"),
        ({"code": 5}, "Expected `str`, got `int`"),
        ({"code": "a", "data": 5}, "Expected `bytes`"),
        ({"code": "a", "data": b"\x01"}, "cannot decode CBOR"),
        ({"code": "a", "data": b"\x63\x00"}, "serializer 99 is not known"),
        ({"code": "a", "data": b"\x01\x00\x00"}, "bytes behind the value"),
    ],
)
async def test_a_malformed_one_is_an_error_of_the_call(fields: dict[str, Any], message: str) -> None:
    fault = {"kind": "application", "message": "no"} | fields
    async with raw_server() as (client, peer), trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(
                RemoteError, match=rf"^S\.f was answered with a malformed FAULT: .*{message}"
            ) as info:
                await client.service("S").f()
            assert info.value.type_name == "RemoteProtocolError"
            assert info.value.method == "S.f"

        nursery.start_soon(call)
        frame = await peer.receive()
        await peer.send(Frame(FrameType.FAULT, id=frame.id, payload=CBOR.encode(fault, [])))


async def test_what_a_peer_writes_is_escaped() -> None:
    async with raw_server() as (client, peer), trio.open_nursery() as nursery:

        async def call() -> None:
            with pytest.raises(ApplicationError) as info:
                await client.service("S").f()
            assert str(info.value).isprintable()
            assert info.value.type_name.isprintable()

        nursery.start_soon(call)
        frame = await peer.receive()
        fault = {"kind": "application", "code": "a", "message": "two\nlines\x1b[2J", "type_name": "A\nB"}
        await peer.send(Frame(FrameType.FAULT, id=frame.id, payload=CBOR.encode(fault, [])))
