"""What a transport is given: options that were checked, and a nursery that ends with the endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Any

import pytest
import trio
import trio.testing

import heartline
from heartline.errors import ConfigurationError, ConnectionFailed
from heartline.testing import MemoryNetwork
from heartline.transports import (
    Listener,
    TransportContext,
    TransportOptions,
    _registry,
    open_listeners,
    open_stream,
    register,
)
from tests.opening import make_context

from .conftest import Case


class TestOptions:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("backlog", 0),
            ("backlog", -1),
            ("backlog", 65_536),
            ("backlog", 1.5),
            ("backlog", True),
            ("backlog", "128"),
            ("reuse_port", 1),
            ("reuse_port", None),
            ("allowed_origins", None),
            ("allowed_origins", "https://a.example"),
            ("allowed_origins", [b"https://a.example"]),
            ("allowed_origins", ["a.example"]),
            ("allowed_origins", ["https://a.example/"]),
            ("allowed_origins", ["https://A.example"]),
            ("allowed_origins", ["https://*.a.example"]),
            ("allowed_origins", ["https://u@a.example"]),
            ("allowed_origins", ["https://a.example:443"]),
            ("allowed_origins", ["http://a.example:80"]),
            ("allowed_origins", ["null"]),
        ],
    )
    def test_a_bad_value_is_refused_by_name(self, name: str, value: object) -> None:
        with pytest.raises(ConfigurationError) as caught:
            TransportOptions(**{name: value})  # type: ignore[arg-type]
        assert f"TransportOptions.{name}" in str(caught.value)
        culprit = value[0] if isinstance(value, list) else value
        assert repr(culprit) in str(caught.value)

    def test_a_misspelt_option_is_refused_by_name(self) -> None:
        with pytest.raises(TypeError, match="'backlogs'"):
            TransportOptions(backlogs=5)  # type: ignore[call-arg]

    @pytest.mark.parametrize(
        "origin", ["https://a.example", "http://localhost:3000", "http://[::1]:8001", "app-1.2+x://id_7"]
    )
    def test_origins(self, origin: str) -> None:
        options = TransportOptions(allowed_origins=[origin])
        assert options.allows(origin)
        assert not options.allows("https://b.example")
        assert TransportOptions(allowed_origins="*") == TransportOptions(allowed_origins=["*"])
        assert TransportOptions(allowed_origins="*").allows(origin)
        assert not TransportOptions().allows(origin)

    def test_they_do_not_change(self) -> None:
        origins = ["https://a.example"]
        options = TransportOptions(allowed_origins=origins)
        origins.append("https://b.example")
        assert not options.allows("https://b.example")
        with pytest.raises(FrozenInstanceError):
            options.backlog = 5  # type: ignore[misc]

    @pytest.mark.parametrize("open_", [heartline.open_server, heartline.open_connection])
    async def test_endpoints_refuse_what_are_no_options(self, open_: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"transport must be TransportOptions, not \{'backlog'"):
            async with open_("tcp://127.0.0.1:1", transport={"backlog": 5}):
                pass


async def test_a_context_needs_a_nursery_and_options(nursery: trio.Nursery) -> None:
    assert TransportContext(nursery=nursery).options == TransportOptions()
    with pytest.raises(ConfigurationError, match=r"TransportContext\.nursery must be a trio\.Nursery"):
        TransportContext(nursery=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"TransportContext\.options must be TransportOptions"):
        TransportContext(nursery=nursery, options={})  # type: ignore[arg-type]


async def test_the_backlog_is_bounded(case: Case) -> None:
    context = make_context(options=TransportOptions(backlog=1))
    async with await case.listen(context) as listener:
        waiting = [await case.reach(listener.url)]
        with trio.move_on_after(0.1), suppress(ConnectionFailed):
            while len(waiting) < 10:
                waiting.append(await case.reach(listener.url))
        assert len(waiting) in (1, 2)  # systems take one more than they are told
        for _ in range(len(waiting)):
            await trio.aclose_forcefully(await listener.accept())
        waiting.append(await case.reach(listener.url))  # there is room again
        for stream in waiting:
            await trio.aclose_forcefully(stream)


async def test_servers_share_a_port_if_they_are_told_to(networked: Case) -> None:
    context = make_context(options=TransportOptions(reuse_port=True))
    count = 60
    async with await networked.listen(context) as first:
        with pytest.raises(ConnectionFailed, match="in use"):
            await replace(networked, listen_url=first.url).listen()
        async with await replace(networked, listen_url=first.url).listen(context) as second:
            assert first.url == second.url
            accepted: dict[Listener, int] = {first: 0, second: 0}
            async with trio.open_nursery() as nursery:

                async def accept(listener: Listener) -> None:
                    while True:
                        await trio.aclose_forcefully(await listener.accept())
                        accepted[listener] += 1
                        if sum(accepted.values()) == count:
                            nursery.cancel_scope.cancel()

                for listener in accepted:
                    nursery.start_soon(accept, listener)
                for _ in range(count):
                    await trio.aclose_forcefully(await networked.reach(first.url))
                await trio.sleep_forever()
            assert min(accepted.values()) > 0


@dataclass(frozen=True, kw_only=True)
class OwnOptions(TransportOptions):
    """Those of a transport by somebody else."""

    spice: str = "none"


class Tasked:
    """A scheme ``x-tasked`` over a memory network, with a task for each stream and listener."""

    def __init__(self) -> None:
        self.contexts: list[TransportContext] = []
        self.running: list[str] = []
        self.network = MemoryNetwork()

    async def open_stream(self, url: str, context: TransportContext) -> trio.abc.Stream:
        stream = await self.network.connect(url.partition("://")[2])
        self.start(context, f"stream {len(self.contexts)}")
        return stream

    async def open_listeners(self, url: str, context: TransportContext) -> list[Listener]:
        name = url.partition("://")[2]
        self.start(context, f"listener {name}")
        return [Listener(self.network.listen(name), url)]

    def start(self, context: TransportContext, name: str) -> None:
        self.contexts.append(context)
        self.running.append(name)
        context.nursery.start_soon(self.serve, name)

    async def serve(self, name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.running.remove(name)


class TestEndpoints:
    @pytest.fixture
    def tasked(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tasked]:
        monkeypatch.setattr(_registry, "_transports", dict(_registry._transports))
        tasked = Tasked()
        register("x-tasked", open_stream=tasked.open_stream, open_listeners=tasked.open_listeners)
        yield tasked
        assert tasked.running == []

    async def test_the_tasks_of_a_transport_end_with_the_endpoint(self, tasked: Tasked) -> None:
        async with heartline.open_server("x-tasked://a", "x-tasked://b") as server:
            assert tasked.running == ["listener a", "listener b"]
            async with heartline.open_connection(server.urls[0]):
                assert tasked.running == ["listener a", "listener b", "stream 2"]
            assert tasked.running == ["listener a", "listener b"]
        assert tasked.running == []

    async def test_options_come_through_as_they_are(self, tasked: Tasked) -> None:
        ours, theirs = TransportOptions(backlog=7), OwnOptions(spice="pepper")
        async with heartline.open_server("x-tasked://a", transport=ours) as server:
            async with heartline.open_connection(server.urls[0], transport=theirs):
                pass
        assert [context.options for context in tasked.contexts] == [ours, theirs]
        assert tasked.contexts[0].options is ours
        assert tasked.contexts[1].options is theirs

    async def test_a_listener_that_cannot_be_opened_leaves_nothing(self, tasked: Tasked) -> None:
        async with heartline.open_server("memory://taken"):
            with pytest.raises(ConnectionFailed, match="in use"):
                async with heartline.open_server("x-tasked://a", "memory://taken"):
                    pass
        assert tasked.running == []
        await tasked.network.listen("a").aclose()  # the name is free again

    async def test_an_error_of_the_block_comes_out_as_it_is(self, tasked: Tasked) -> None:
        with pytest.raises(KeyError, match="mine"):
            async with heartline.open_server("x-tasked://a") as server:
                async with heartline.open_connection(server.urls[0]):
                    raise KeyError("mine")
        assert tasked.running == []

    async def test_a_task_that_fails_ends_the_endpoint(self, tasked: Tasked) -> None:
        async def fail() -> None:
            raise KeyError("a bug")

        with pytest.raises(KeyError, match="a bug"):
            async with heartline.open_server("x-tasked://a"):
                tasked.contexts[0].nursery.start_soon(fail)
                await trio.sleep_forever()

    async def test_reconnecting_uses_the_same_context(
        self, tasked: Tasked, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with heartline.open_server("x-tasked://a") as server:
            async with heartline.open_connection(server.urls[0]):
                await server.drain(0)  # the client tries to come back, for nothing
                await trio.sleep(60)
                assert len(tasked.contexts) > 3
                assert len({id(context) for context in tasked.contexts[1:]}) == 1

    async def test_cancelled_it_leaves_nothing(self, tasked: Tasked) -> None:
        with trio.CancelScope() as scope:
            async with heartline.open_server("x-tasked://a") as server:
                async with heartline.open_connection(server.urls[0]):
                    scope.cancel()
                    await trio.sleep_forever()
        assert scope.cancelled_caught
        assert tasked.running == []


async def test_who_opens_by_hand_owns_the_nursery() -> None:
    """The public functions take a context like everybody else."""
    async with trio.open_nursery() as nursery:
        context = TransportContext(nursery=nursery)
        (listener,) = await open_listeners("memory://by-hand", context)
        async with listener, await open_stream(listener.url, context) as client:
            async with await listener.accept() as accepted:
                await client.send_all(b"hello")
                assert await accepted.receive_some() == b"hello"
