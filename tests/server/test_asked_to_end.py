"""A peer's call that ends connections, or the whole server: it is answered, and nothing waits for itself."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import CloseCode, ConnectionClosed, Server
from tests.connection.helpers import QUIET, no_leaks


@heartline.service
class Admin:
    """Ends what it is told to."""

    def __init__(self) -> None:
        self.server: Server

    async def end(self, how: str) -> Any:
        here = heartline.current_connection()
        if how.startswith("drain"):
            return await self.server.drain(float(how.split()[1]))
        if how == "close_connection":
            return await self.server.close_connection(here.id)
        return await here.aclose()

    async def ask_back(self, how: str) -> Any:
        """Have the peer ask for the end, which this call waits for."""
        return await heartline.current_connection().service(Relay).end(how)

    async def ask_elsewhere(self, how: str) -> Any:
        return await self.server.connections["other"].service(Relay).end(how)

    async def sleep(self, seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds


@heartline.service
class Relay:
    """A client's service that calls the server again."""

    async def end(self, how: str) -> Any:
        return await heartline.current_connection().service(Admin).end(how)


@pytest.mark.parametrize("method", ["end", "ask_back", "ask_elsewhere"])
@pytest.mark.parametrize("how", ["drain 4", "drain 0", "close_connection", "aclose"])
async def test_the_call_is_answered(how: str, method: str, autojump_clock: MockClock) -> None:
    admin = Admin()
    once: dict[str, Any] = {"reconnect": None, "services": [Relay()], "heartbeat": QUIET}
    with no_leaks():
        async with heartline.open_server("memory://", services=[admin], heartbeat=QUIET) as server:
            admin.server = server
            async with (
                heartline.open_connection(server.urls[0], identity="other", **once) as other,
                heartline.open_connection(server.urls[0], identity="asks", **once) as client,
            ):
                answer = await getattr(client.service(Admin), method)(how)
                assert answer is (True if "drain" in how else None)
                ended = other if method == "ask_elsewhere" and "drain" not in how else client
                with pytest.raises(ConnectionClosed) as caught:
                    await ended.receive()
                expected = {"close_connection": CloseCode.KICKED, "aclose": CloseCode.NORMAL}
                assert caught.value.code == expected.get(how, CloseCode.GOING_AWAY)
                assert trio.current_time() == 0


async def test_others_are_waited_for_as_long_as_the_drain_says(autojump_clock: MockClock) -> None:
    """The answer comes after the last of them, and it is not too late."""
    admin = Admin()
    once: dict[str, Any] = {"reconnect": None, "heartbeat": QUIET}
    async with heartline.open_server("memory://", services=[admin], heartbeat=QUIET) as server:
        admin.server = server
        async with (
            heartline.open_connection(server.urls[0], **once) as other,
            heartline.open_connection(server.urls[0], **once) as client,
            trio.open_nursery() as nursery,
        ):

            async def last(seconds: float) -> None:
                with pytest.raises(heartline.CallInterrupted):
                    await other.service(Admin).sleep(seconds)

            nursery.start_soon(last, 100)
            await trio.sleep(1)
            assert await client.service(Admin).end("drain 4") is False
            assert trio.current_time() >= 5


async def test_what_its_connection_does_beside_has_the_same_time(autojump_clock: MockClock) -> None:
    admin = Admin()
    async with heartline.open_server("memory://", services=[admin], heartbeat=QUIET) as server:
        admin.server = server
        opening = heartline.open_connection(server.urls[0], reconnect=None, heartbeat=QUIET)
        async with opening as client, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def beside() -> None:
                assert await client.service(Admin).sleep(3) == 3

            await trio.sleep(1)
            assert await client.service(Admin).end("drain 4") is True
            assert trio.current_time() == 1


async def test_what_a_method_leaves_to_others_waits_as_they_do(autojump_clock: MockClock) -> None:
    """A method that starts the drain elsewhere, and returns, is waited for by nobody."""
    admin = Admin()
    async with trio.open_nursery() as elsewhere:

        @heartline.service
        class Later:
            def end(self) -> None:
                elsewhere.start_soon(drain)

        async def drain() -> None:
            assert await admin.server.drain(10)
            assert trio.current_time() == 3

        services = [admin, Later()]
        async with heartline.open_server("memory://", services=services, heartbeat=QUIET) as server:
            admin.server = server
            opening = heartline.open_connection(server.urls[0], reconnect=None, heartbeat=QUIET)
            async with opening as client, trio.open_nursery() as nursery:

                @nursery.start_soon
                async def beside() -> None:
                    assert await client.service(Admin).sleep(3) == 3

                await trio.sleep(1)
                await client.service("Later").end()
                await trio.sleep(5)
