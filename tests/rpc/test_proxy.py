"""Proxies: a remote service that looks like the object itself, made by class or by name."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline import Backoff, Retry, method, remote, service
from heartline.errors import (
    CallError,
    ConfigurationError,
    HeartlineError,
    InvalidArguments,
    RemoteError,
    UnknownMethod,
)
from heartline.rpc import Proxy, RemoteMethod
from heartline.rpc._service import MAX_NAME
from tests.engine import core_of
from tests.rpc.helpers import open_pair, raw_server, run


@service
class Calculator:
    def add(self, a: int, b: int) -> int:
        return a + b

    async def divide(self, a: float, b: float) -> float:
        await trio.lowlevel.checkpoint()
        return a / b

    @method(thread=True)
    def power(self, a: int, b: int = 2) -> int:
        return int(a**b)


@service(name="greetings", version="3")
class Greeter:
    async def greet(self, name: str, *, loud: bool = False) -> str:
        return f"hello {name}".upper() if loud else f"hello {name}"


@pytest.mark.parametrize("target", [Calculator, "Calculator"])
async def test_every_kind_of_method_is_awaited(target: Any) -> None:
    async with open_pair(Calculator()) as (client, _):
        calc = client.service(target)
        assert await calc.add(1, 2) == 3
        assert await calc.divide(1, 2) == 0.5
        assert await calc.power(3) == 9


async def test_a_call_is_an_awaitable_and_does_nothing_before() -> None:
    async with open_pair(Calculator()) as (client, server):
        call: Any = client.service(Calculator).add(1, 2)
        assert inspect.isawaitable(call)
        await trio.testing.wait_all_tasks_blocked()
        assert core_of(client).idle
        assert core_of(server).idle
        assert await call == 3


async def test_the_name_on_the_wire() -> None:
    async with open_pair(Calculator(), Greeter()) as (client, _):
        assert await client.service("Calculator").add(1, 2) == 3
        assert await client.service("greetings@3").greet("you") == "hello you"
        assert await client.service(Greeter).greet("you", loud=True) == "HELLO YOU"
        for wrong in ("greetings", "Greeter", "calculator", "greetings@2"):
            with pytest.raises(UnknownMethod, match=f"{wrong}.greet: the peer has no such service"):
                await client.service(wrong).greet("you")
        with pytest.raises(UnknownMethod, match="great: the peer has no such public method"):
            await client.service("greetings@3").great()


async def test_any_name_becomes_a_call() -> None:
    """A dynamic proxy knows no names: whatever is asked for goes to the peer as it is."""
    async with raw_server() as (client, peer), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: client.service("Some-thing").any_method(1, b"x", key=None))
        frame = await peer.receive()
        assert b"Some-thing.any_method" in frame.payload
        await peer.result(frame.id, "done")


class TestAttributes:
    async def test_methods_are_made_once(self) -> None:
        async with open_pair(Calculator()) as (client, _):
            calc: Any = client.service(Calculator)
            assert calc.add is calc.add
            assert vars(calc)["add"] is calc.add
            assert isinstance(calc, Proxy)
            assert isinstance(calc.add, RemoteMethod)
            assert calc.add is not calc.power

    async def test_reprs_say_what_is_called(self) -> None:
        async with open_pair(Calculator()) as (client, _):
            calc: Any = client.service(Calculator)
            assert repr(calc) == "<heartline.Proxy Calculator>"
            assert repr(calc.add) == "<heartline.RemoteMethod Calculator.add>"

    async def test_a_typed_proxy_knows_its_methods(self) -> None:
        async with open_pair(Calculator()) as (client, _):
            calc: Any = client.service(Calculator)
            with pytest.raises(AttributeError, match="'Calculator' has no public method 'subtract'"):
                calc.subtract  # noqa: B018
            assert not hasattr(calc, "subtract")
            assert hasattr(client.service("Calculator"), "subtract")

    @pytest.mark.parametrize("target", [Calculator, "Calculator"])
    async def test_private_names_are_no_methods(self, target: Any) -> None:
        async with open_pair(Calculator()) as (client, _):
            proxy = client.service(target)
            for name in ("_private", "__len__", "__await__", "__deepcopy__"):
                with pytest.raises(AttributeError, match="underscore"):
                    getattr(proxy, name)
            assert copy.copy(proxy).add is not None

    @given(name=st.text(st.characters(exclude_categories=())))
    def test_names_that_cannot_stand_on_the_wire(self, name: str) -> None:
        async def main() -> None:
            async with raw_server() as (client, _):
                proxy = client.service("Calculator")
                usable = 0 < len(name) <= MAX_NAME and name.isprintable() and "." not in name
                is_method = isinstance(getattr(proxy, name, None), RemoteMethod)
                assert is_method == (usable and not name.startswith("_"))

        run(main)


class TestMakingProxies:
    @pytest.mark.parametrize("name", ["", "a.b", "\n", "\ud800", "a@", "@1", "a@\n", "x" * (MAX_NAME + 1)])
    async def test_bad_names(self, name: str) -> None:
        async with open_pair() as (client, _):
            with pytest.raises(ConfigurationError, match=r"service (name|version)"):
                client.service(name)

    @pytest.mark.parametrize("thing", [5, None, Calculator()])
    async def test_neither_class_nor_name(self, thing: Any) -> None:
        async with open_pair() as (client, _):
            with pytest.raises(ConfigurationError, match="service must be a service class or its name"):
                client.service(thing)

    async def test_a_class_that_is_no_service(self) -> None:
        async with open_pair() as (client, _):
            with pytest.raises(ConfigurationError, match="int is not a service: decorate it"):
                client.service(int)

    @pytest.mark.parametrize("retry", [3, True, Backoff(), Retry])
    async def test_retry_is_a_retry(self, retry: Any) -> None:
        async with open_pair() as (client, _):
            with pytest.raises(ConfigurationError, match=r"retry must be a heartline\.Retry"):
                client.service("Calculator", retry=retry)


async def test_many_calls_at_once_each_get_their_own_answer(autojump_clock: MockClock) -> None:
    """Out of order, too: the later a call, the sooner it is answered."""

    @service
    class Waits:
        async def echo(self, value: int) -> int:
            await trio.sleep((100 - value) / 1000)
            return value

    results: dict[int, int] = {}
    order: list[int] = []

    async def call(waits: Any, value: int) -> None:
        results[value] = await waits.echo(value)
        order.append(value)

    async with open_pair(Waits()) as (client, _), trio.open_nursery() as nursery:
        waits = client.service("Waits")
        for value in range(100):
            nursery.start_soon(call, waits, value)
    assert results == {value: value for value in range(100)}
    assert order == sorted(order, reverse=True)


async def test_errors_are_one_family() -> None:
    async with open_pair(Calculator()) as (client, _):
        calc: Any = client.service(Calculator)
        for call, kind in (
            (calc.divide(1.0, 0.0), RemoteError),
            (calc.add("1", 2), InvalidArguments),
            (client.service("Nobody").home(), UnknownMethod),
        ):
            with pytest.raises(kind) as info:
                await call
            assert isinstance(info.value, CallError)
            assert isinstance(info.value, HeartlineError)


@pytest.mark.slow
async def test_over_a_real_socket() -> None:
    async with open_pair(Calculator(), url="tcp://127.0.0.1:0") as (client, _):
        calc: Any = client.service(Calculator)
        assert await calc.add(1, 2) == 3
        with pytest.raises(RemoteError, match="ZeroDivisionError: "):
            await calc.divide(1, 0)
        assert await calc.power(2, 10) == 1024


async def test_the_readme_example() -> None:
    urls = ("tcp://127.0.0.1:0", "ws://127.0.0.1:0")
    async with heartline.open_server(*urls, services=[Calculator()]) as server:
        for url in server.urls:
            async with heartline.open_connection(url) as conn:
                calc: Any = conn.service(Calculator)
                assert await calc.add(1, 2) == 3


async def test_remote_gives_the_method_of_a_proxy_and_refuses_any_other() -> None:
    async with open_pair(Calculator()) as (client, _):
        calc = client.service(Calculator)
        assert await remote(calc.add)(1, b=2) == 3
        assert await remote(calc.divide)(1, 2) == 0.5
        assert remote(calc.power) is calc.power
        others: list[Any] = [Calculator().add, Calculator.add, len]
        for method in others:
            with pytest.raises(ConfigurationError, match="remote is for methods of proxies"):
                remote(method)


@pytest.mark.parametrize("cls", [Proxy, RemoteMethod])
def test_only_a_connection_makes_proxies(cls: Any) -> None:
    with pytest.raises(TypeError, match="no public constructor"):
        cls(None, "Calculator", None, None)
