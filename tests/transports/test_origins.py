"""Which pages may connect: browsers say of which site a page is, and nobody else does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import websockets.exceptions
import websockets.trio.client

import heartline
from heartline.transports import TransportOptions
from tests.opening import make_context, open_listeners, open_stream

from .conftest import Case

PAGE = "https://app.example"


@asynccontextmanager
async def serving(case: Case, **options: Any) -> AsyncIterator[str]:
    """The URL of a listener whose streams say one word."""

    async def greet(stream: trio.abc.Stream) -> None:
        try:
            await stream.send_all(b"welcome")
        except trio.BrokenResourceError as error:
            refused.append(str(error))

    refused: list[str] = []
    listener = await case.listen(make_context(options=TransportOptions(**options)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, greet, [listener])
        yield listener.url
        nursery.cancel_scope.cancel()
    assert all("HTTP 403" in error for error in refused)


async def visit(case: Case, url: str, origin: str | None) -> None:
    """Connect as a page of ``origin`` does, and hear the word."""
    tls = case.tls and case.tls.client
    async with websockets.trio.client.connect(url, ssl=tls, proxy=None, origin=origin) as socket:  # type: ignore[arg-type]
        assert await socket.recv() == b"welcome"


async def expect_403(case: Case, url: str, origin: str) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as raised:
        await visit(case, url, origin)
    assert raised.value.response.status_code == 403
    assert b"allowed_origins" in (raised.value.response.body or b"")


async def test_no_page_may_by_default(websocket: Case) -> None:
    async with serving(websocket) as url:
        for origin in (PAGE, "null", "http://127.0.0.1"):
            await expect_403(websocket, url, origin)


async def test_programs_send_no_origin_and_are_let_in(websocket: Case) -> None:
    async with serving(websocket) as url:
        await visit(websocket, url, None)
        async with await websocket.connect(url) as stream:
            assert await stream.receive_some() == b"welcome"


async def test_pages_of_allowed_sites_may(websocket: Case) -> None:
    async with serving(websocket, allowed_origins=["https://other.example", PAGE]) as url:
        await visit(websocket, url, PAGE)
        for origin in (PAGE + ":8443", "http://app.example", "https://app.example.evil.example", "null"):
            await expect_403(websocket, url, origin)


async def test_pages_of_all_sites_may_where_that_is_wanted(websocket: Case) -> None:
    async with serving(websocket, allowed_origins="*") as url:
        for origin in (PAGE, "null"):
            await visit(websocket, url, origin)


async def test_the_servers_own_host_is_no_reason(websocket: Case) -> None:
    """A site whose name is made to lead here has the same host in both headers."""
    async with serving(websocket) as url:
        await expect_403(websocket, url, "https://" + url.split("/")[2])


async def test_two_origins_are_none_that_is_allowed() -> None:
    (listener,) = await open_listeners(
        "ws://127.0.0.1:0", options=TransportOptions(allowed_origins=[PAGE, "https://b.example"])
    )
    request = (
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Origin: https://app.example\r\nOrigin: https://b.example\r\n\r\n"
    )
    async with listener, await open_stream(listener.url.replace("ws", "tcp").rstrip("/")) as client:
        await client.send_all(request)
        async with await listener.accept() as stream:
            with pytest.raises(trio.BrokenResourceError, match="HTTP 403"):
                await stream.receive_some()
        assert (await client.receive_some()).startswith(b"HTTP/1.1 403 ")


async def test_the_origin_counts_before_the_path() -> None:
    """A page learns nothing of what is here."""
    (listener,) = await open_listeners("ws://127.0.0.1:0/here")
    async with listener, trio.open_nursery() as nursery:

        async def refuse() -> None:
            async with await listener.accept() as stream:
                with pytest.raises(trio.BrokenResourceError, match="HTTP 403"):
                    await stream.receive_some()

        nursery.start_soon(refuse)
        with pytest.raises(websockets.exceptions.InvalidStatus) as raised:
            async with websockets.trio.client.connect(
                listener.url.replace("here", "there"),
                proxy=None,
                origin=PAGE,  # type: ignore[arg-type]
            ):
                pass
        assert raised.value.response.status_code == 403


async def test_a_server_takes_the_option(websocket: Case) -> None:
    server_tls, client_tls = (websocket.tls.server, websocket.tls.client) if websocket.tls else (None, None)
    options = TransportOptions(allowed_origins=[PAGE])
    async with heartline.open_server(websocket.listen_url, tls=server_tls, transport=options) as server:
        for origin, status in ((PAGE, None), ("https://b.example", 403)):
            try:
                async with websockets.trio.client.connect(
                    server.urls[0],
                    ssl=client_tls,
                    proxy=None,
                    origin=origin,  # type: ignore[arg-type]
                ):
                    seen = None
            except websockets.exceptions.InvalidStatus as error:
                seen = error.response.status_code
            assert seen == status
        async with heartline.open_connection(server.urls[0], tls=client_tls) as client:
            assert client.id in server.connections
