"""What a stream knows of its peer."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trustme

import heartline
from heartline.testing import memory_pair
from heartline.transports import StreamInfo, describe
from tests.opening import open_listeners, open_stream

from .conftest import Case, Contexts


def make_mutual(verify: ssl.VerifyMode) -> Contexts:
    """Contexts for both sides, each with a certificate; the server asks for the client's as it is told."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client = ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.issue_cert("device-7@fleet.example").configure_cert(client)
    for context in (server, client):
        authority.configure_trust(context)
    server.verify_mode = verify
    return Contexts(server, client)


@asynccontextmanager
async def open_pair(case: Case) -> AsyncIterator[tuple[trio.abc.Stream, trio.abc.Stream]]:
    client, server = await case.make_pair()
    async with client, server:
        yield client, server


async def test_the_address(case: Case) -> None:
    async with open_pair(case) as pair:
        for stream in pair:
            assert re.fullmatch(case.address, describe(stream).address)


async def test_nothing_else_is_known_of_most(case: Case) -> None:
    async with open_pair(case) as (_, server):
        info = describe(server)
        assert (info.certificate, info.certificate_der) == (None, None)
        assert (info.path is None) == (not info.headers)


@pytest.mark.parametrize("verify", [ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL])
async def test_a_clients_certificate(encrypted: Case, verify: ssl.VerifyMode) -> None:
    async with open_pair(replace(encrypted, tls=make_mutual(verify))) as (_, server):
        info = describe(server)
        assert info.certificate is not None
        assert info.certificate["subjectAltName"] == (("email", "device-7@fleet.example"),)
        assert info.certificate_der is not None
        assert "BEGIN CERTIFICATE" in ssl.DER_cert_to_PEM_cert(info.certificate_der)


async def test_a_servers_certificate(encrypted: Case) -> None:
    async with open_pair(encrypted) as (client, _):
        certificate = describe(client).certificate
        assert certificate is not None
        assert ("DNS", "localhost") in certificate["subjectAltName"]


async def test_a_certificate_that_was_not_verified_is_none(encrypted: Case) -> None:
    """Python gives out its bytes, which prove nothing."""
    contexts = make_mutual(ssl.CERT_NONE)
    contexts.client.check_hostname = False
    contexts.client.verify_mode = ssl.CERT_NONE
    async with open_pair(replace(encrypted, tls=contexts)) as pair:
        for stream in pair:
            assert (describe(stream).certificate, describe(stream).certificate_der) == (None, None)


async def test_before_the_handshake_there_is_an_address(networked: Case) -> None:
    async with await networked.listen() as listener, await networked.reach(listener.url):
        async with await listener.accept() as server:
            info = describe(server)
            assert info == StreamInfo(address=info.address)
            assert re.fullmatch(networked.address, info.address)


async def test_the_request_of_a_websocket(websocket: Case) -> None:
    async with await websocket.listen() as listener, trio.open_nursery() as nursery:

        async def connect() -> None:
            await (await websocket.connect(listener.url + "?token=1&room=a")).aclose()

        nursery.start_soon(connect)
        async with await listener.accept() as server:
            assert await server.receive_some() == b""
            info = describe(server)
        assert info.path == "/?token=1&room=a"
        assert info.headers["host"] == listener.url.split("/")[2]
        assert info.headers["sec-websocket-protocol"] == "heartline"
        assert info.headers["upgrade"].lower() == "websocket"


async def test_headers_have_names_in_lower_case_and_repeated_ones_are_joined() -> None:
    lines = [
        "GET / HTTP/1.1",
        "HOST: h",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Extensions: permessage-deflate",
        "X-Forwarded-For: 192.0.2.1",
        "X-FORWARDED-FOR: 192.0.2.2",
        "Authorization: Bearer caf\xe9",
    ]
    (listener,) = await open_listeners("ws://127.0.0.1:0")
    async with listener, await open_stream(listener.url.replace("ws", "tcp").rstrip("/")) as client:
        await client.send_all("\r\n".join([*lines, "", ""]).encode("latin-1"))
        async with await listener.accept() as server:
            await server.send_all(b"")
            headers = describe(server).headers
    assert headers["host"] == "h"
    assert headers["x-forwarded-for"] == "192.0.2.1, 192.0.2.2"
    assert headers["authorization"] == "Bearer caf\xe9"
    assert headers["sec-websocket-extensions"] == "permessage-deflate"
    assert all(name == name.lower() for name in headers)


async def test_an_ipv6_address_has_brackets() -> None:
    (listener,) = await open_listeners("tcp://[::1]:0")
    async with listener, await open_stream(listener.url) as client:
        assert "tcp://" + describe(client).address == listener.url


async def test_a_socket_that_is_closed() -> None:
    (listener,) = await open_listeners("tcp://127.0.0.1:0")
    async with listener:
        client = await open_stream(listener.url)
        await client.aclose()
        assert describe(client) == StreamInfo(address="gone")


class Plain(trio.abc.Stream):
    """Somebody else's stream."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise NotImplementedError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


class Wrapper(Plain):
    def __init__(self, inner: object) -> None:
        self.transport_stream = inner


class Telling(Plain):
    def describe_peer(self) -> StreamInfo:
        return StreamInfo(address="satellite 7", headers={"dish": "left"})


class TestStreamsOfOthers:
    def test_one_that_knows_nothing(self) -> None:
        assert describe(Plain()) == StreamInfo(address="Plain")

    def test_one_that_wraps_another(self) -> None:
        assert describe(Wrapper(Wrapper(memory_pair()[0]))) == StreamInfo(address="MemoryStream")

    @pytest.mark.parametrize("inner", [None, "a string", 7])
    def test_one_that_wraps_no_stream(self, inner: object) -> None:
        assert describe(Wrapper(inner)) == StreamInfo(address="Wrapper")

    def test_one_that_tells_itself(self) -> None:
        assert describe(Telling()).address == "satellite 7"
        assert describe(Wrapper(Telling())).headers == {"dish": "left"}


async def test_a_server_knows_where_its_clients_are(case: Case) -> None:
    server_tls, client_tls = (case.tls.server, case.tls.client) if case.tls else (None, None)
    async with heartline.open_server(case.listen_url, tls=server_tls) as server:
        async with heartline.open_connection(server.urls[0], tls=client_tls) as client:
            assert re.fullmatch(case.address, server.connections[client.id].peer.address)
