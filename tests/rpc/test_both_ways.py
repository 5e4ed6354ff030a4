"""Both sides call and serve; what a method knows of its caller; methods in threads; errors of methods."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import CloseCode, Connection, Heartbeat, current_connection, method, service
from heartline.errors import (
    CallInterrupted,
    Forbidden,
    InvalidArguments,
    LocalProtocolError,
    Outcome,
    RemoteError,
)
from tests.engine import core_of
from tests.rpc.helpers import QUIET, open_pair, settle


@service
class Ping:
    """Calls the peer back as often as it is told."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def down(self, depth: int) -> list[str]:
        if not depth:
            return [self.name]
        deeper = await current_connection().service("Ping").down(depth - 1)
        return [self.name, *deeper]

    async def failing(self, depth: int) -> None:
        if not depth:
            raise KeyError("bottom")
        await current_connection().service("Ping").failing(depth - 1)

    def sync(self) -> str:
        return self.name


@service
class WhoAsks:
    def inline(self) -> str:
        return current_connection().id

    async def task(self) -> str:
        await trio.lowlevel.checkpoint()
        return current_connection().id

    @method(thread=True)
    def thread(self) -> tuple[str, bool]:
        return current_connection().id, threading.current_thread() is threading.main_thread()


class TestBothWays:
    async def test_the_server_calls_its_client(self) -> None:
        async with open_pair(Ping("server"), client_services=[Ping("client")]) as (client, server):
            assert await client.service("Ping").sync() == "server"
            assert await server.service("Ping").sync() == "client"
            assert await server.service("Ping").down(0) == ["client"]

    @pytest.mark.parametrize("url", ["memory://", pytest.param("tcp://127.0.0.1:0", marks=pytest.mark.slow)])
    async def test_calls_within_calls(self, url: str) -> None:
        pings = (Ping("server"), Ping("client"))
        async with open_pair(pings[0], client_services=[pings[1]], url=url) as (client, server):
            assert await client.service("Ping").down(5) == ["server", "client"] * 3
            results = []

            async def go(connection: Connection) -> None:
                results.append(await connection.service("Ping").down(30))

            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(go, client)
                    nursery.start_soon(go, server)
            assert sorted(map(len, results)) == [31] * 40

    async def test_an_error_comes_up_through_all_levels(self) -> None:
        async with open_pair(Ping("server"), client_services=[Ping("client")]) as (client, _):
            with pytest.raises(RemoteError, match="KeyError: 'bottom'") as info:
                await client.service("Ping").failing(0)
            assert info.value.type_name == "KeyError"
            with pytest.raises(RemoteError, match=r"RemoteError: Ping\.failing raised KeyError: 'bottom'"):
                await client.service("Ping").failing(1)

    async def test_a_cancellation_goes_down_through_all_levels(self, autojump_clock: MockClock) -> None:
        ended: list[str] = []

        @service(name="Ping")
        class Bottom(Ping):
            async def down(self, depth: int) -> list[str]:
                try:
                    if not depth:
                        await trio.sleep_forever()
                    return await super().down(depth)
                finally:
                    ended.append(f"{self.name} {depth}")

        async with open_pair(Bottom("server"), client_services=[Bottom("client")]) as (client, _):
            with trio.move_on_after(1):
                await client.service("Ping").down(3)
            await settle()
            assert sorted(ended) == ["client 0", "client 2", "server 1", "server 3"]


class TestCurrentConnection:
    async def test_in_every_kind_of_method(self) -> None:
        async with (
            heartline.open_server("memory://", services=[WhoAsks()], heartbeat=QUIET) as server,
            heartline.open_connection(server.urls[0], identity="ann", heartbeat=QUIET) as ann,
            heartline.open_connection(server.urls[0], identity="bob", heartbeat=QUIET) as bob,
        ):
            for connection in (ann, bob, ann):
                asks: Any = connection.service(WhoAsks)
                assert await asks.inline() == connection.id
                assert await asks.task() == connection.id
                assert await asks.thread() == (connection.id, False)

    async def test_not_outside(self) -> None:
        async with open_pair():
            with pytest.raises(LocalProtocolError, match="no current connection"):
                current_connection()


class TestThreads:
    @pytest.mark.slow
    async def test_the_loop_goes_on_meanwhile(self) -> None:
        """Heartbeats, and other calls of the same connection."""
        beat = Heartbeat(interval=0.1, timeout=0.3)
        started, go = trio.Event(), threading.Event()

        @service
        class Blocks:
            @method(thread=True)
            def block(self) -> str:
                trio.from_thread.run_sync(started.set)
                go.wait(10)
                return "done"

            def quick(self) -> int:
                return 1

        async with (
            heartline.open_server("tcp://127.0.0.1:0", services=[Blocks()], heartbeat=beat) as server,
            heartline.open_connection(server.urls[0], heartbeat=beat, reconnect=None) as client,
            trio.open_nursery() as nursery,
        ):
            results = []

            async def call() -> None:
                results.append(await client.service("Blocks").block())

            nursery.start_soon(call)
            await started.wait()
            assert await client.service("Blocks").quick() == 1
            await trio.sleep(0.9)  # real: three times the silence that would end the link
            assert client.statistics().links == 1
            assert client.state is heartline.ConnectionState.OPEN
            go.set()
        assert results == ["done"]

    async def test_a_cancelled_call_lets_its_thread_end(self) -> None:
        """A thread cannot be stopped: the caller goes on at once, the server's block waits for the thread."""
        started, go, ended = trio.Event(), threading.Event(), threading.Event()

        @service
        class Blocks:
            @method(thread=True)
            def block(self) -> None:
                trio.from_thread.run_sync(started.set)
                go.wait(10)
                ended.set()

        async with open_pair(Blocks()) as (client, server):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.service("Blocks").block)
                await started.wait()
                nursery.cancel_scope.cancel()
            await settle()
            assert core_of(server).idle
            assert not ended.is_set()
            go.set()
        assert ended.is_set(), "leaving the block waits for what it started"


@service
class Fails:
    def __init__(self) -> None:
        self.error: BaseException = ValueError("text")

    def inline(self) -> None:
        raise self.error

    async def task(self) -> None:
        await trio.lowlevel.checkpoint()
        raise self.error

    @method(thread=True)
    def thread(self) -> None:
        raise self.error

    async def nursery(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.task)

    async def in_cleanup(self) -> None:
        """Its cleanup fails when it is cancelled; with a nursery, in one group with Cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise self.error

    def fine(self) -> int:
        return 1


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


METHODS = ["inline", "task", "thread", "nursery"]


class TestErrors:
    @pytest.mark.parametrize("name", METHODS)
    @pytest.mark.parametrize(
        ("error", "type_name", "message"),
        [
            (ValueError("text"), "ValueError", r"^Fails\.\w+ raised ValueError: text$"),
            (ValueError(), "ValueError", r"^Fails\.\w+ raised ValueError$"),
            (KeyError("k"), "KeyError", r"^Fails\.\w+ raised KeyError: 'k'$"),
            (trio.TooSlowError(), "TooSlowError", r"^Fails\.\w+ raised TooSlowError$"),
            (TypeError("f() takes 2"), "TypeError", "takes 2"),
            (StopIteration(5), "StopIteration|RuntimeError", "5|StopIteration"),
            (Unprintable(), "Unprintable", "own text could not be made"),
            (ValueError("\ud800 and more"), "ValueError", r"^Fails\.\w+ raised ValueError: . and more$"),
            (ValueError("x" * 1_000_000), "ValueError", r"^Fails\.\w+ raised ValueError: x{1024}$"),
            (FileNotFoundError(2, "gone", "/etc/x"), "FileNotFoundError", "gone"),
            (PermissionError(13, "Permission denied", "/etc/x"), "PermissionError", "Permission denied"),
            (
                ExceptionGroup("many", [ValueError("a"), ExceptionGroup("inner", [KeyError("b")])]),
                "ExceptionGroup",
                r"^Fails\.\w+ raised ExceptionGroup: ValueError: a; ExceptionGroup: KeyError: 'b'$",
            ),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
    )
    async def test_what_the_caller_learns(
        self, name: str, error: Exception, type_name: str, message: str
    ) -> None:
        fails = Fails()
        fails.error = error
        async with open_pair(fails) as (client, _):
            with pytest.raises(RemoteError, match=message) as info:
                await getattr(client.service("Fails"), name)()
            assert info.value.type_name in type_name.split("|")
            assert info.value.outcome is Outcome.COMPLETED
            assert await client.service("Fails").fine() == 1, "nobody else is harmed"

    @pytest.mark.parametrize("name", METHODS)
    async def test_forbidden(self, name: str) -> None:
        """PermissionError is the method's word about its caller; one from the system (above) is not."""
        fails = Fails()
        async with open_pair(fails) as (client, _):
            for error, text in ((PermissionError("not you"), "not you"), (PermissionError(), "not allowed")):
                fails.error = error
                with pytest.raises(Forbidden, match=f"Fails.{name}: {text}") as info:
                    await getattr(client.service("Fails"), name)()
                assert info.value.outcome is Outcome.COMPLETED

    @pytest.mark.parametrize("name", METHODS)
    async def test_arguments_that_only_the_method_can_judge(self, name: str) -> None:
        fails = Fails()
        fails.error = InvalidArguments("no such day", outcome=Outcome.COMPLETED)
        async with open_pair(fails) as (client, _):
            with pytest.raises(InvalidArguments, match=f"Fails.{name}: no such day"):
                await getattr(client.service("Fails"), name)()

    async def test_the_traceback_stays_in_the_callees_log(self, caplog: pytest.LogCaptureFixture) -> None:
        async with open_pair(Fails()) as (client, _):
            with pytest.raises(RemoteError) as info:
                await client.service("Fails").task()
        assert "Fails.task raised ValueError" in caplog.text
        assert "raise self.error" in caplog.text
        assert info.value.__cause__ is None

    async def test_an_error_while_cleaning_up_harms_nobody(self, autojump_clock: MockClock) -> None:
        async with open_pair(Fails()) as (client, _):
            with trio.move_on_after(1):
                await client.service("Fails").in_cleanup()
            await trio.sleep(1)
            assert await client.service("Fails").fine() == 1

    async def test_an_error_while_cleaning_up_does_not_join_that_of_the_block(
        self, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def call(url: str) -> None:
            async with heartline.open_connection(url, heartbeat=QUIET, reconnect=None) as client:
                with pytest.raises(CallInterrupted):
                    await client.service("Fails").in_cleanup()

        async with trio.open_nursery() as nursery:
            with pytest.raises(KeyError, match="of the block"):
                async with heartline.open_server("memory://", services=[Fails()], heartbeat=QUIET) as server:
                    nursery.start_soon(call, server.urls[0])
                    await settle()
                    raise KeyError("of the block")
        assert "Fails.in_cleanup raised ValueError" in caplog.text

    @pytest.mark.parametrize("name", ["inline", "task"])
    async def test_an_exit_is_the_services_own_will(self, name: str) -> None:
        """SystemExit is no answer to a caller: it ends the endpoint, as it ends any Trio program."""
        fails = Fails()
        fails.error = SystemExit(3)
        interrupted: list[CallInterrupted] = []

        async def call(url: str) -> None:
            async with heartline.open_connection(url, heartbeat=QUIET, reconnect=None) as client:
                try:
                    await getattr(client.service("Fails"), name)()
                except CallInterrupted as error:
                    interrupted.append(error)

        async def main(nursery: trio.Nursery) -> None:
            async with heartline.open_server("memory://", services=[fails], heartbeat=QUIET) as server:
                nursery.start_soon(call, server.urls[0])
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            with pytest.raises(SystemExit, match="3"):
                await main(nursery)
        assert interrupted[0].outcome is Outcome.MAYBE_EXECUTED

    async def test_a_method_that_closes_its_own_connection(self) -> None:
        @service
        class Bouncer:
            def leave(self) -> None:
                core_of(current_connection()).close(CloseCode.KICKED, "out")

            async def leave_later(self) -> None:
                await current_connection().aclose()

        async with open_pair(Bouncer()) as (client, _):
            assert await client.service("Bouncer").leave() is None, "its answer leaves with the goodbye"
        async with open_pair(Bouncer()) as (client, _):
            assert await client.service("Bouncer").leave_later() is None, "and so does this one's"
