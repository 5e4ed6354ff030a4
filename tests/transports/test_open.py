"""Opening and listening by URL: what is the same for every transport."""

from __future__ import annotations

import errno
import gc
import os
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from heartline.errors import ConfigurationError, ConnectionFailed
from heartline.testing import memory_pair
from heartline.transports import Listener, TransportContext, TransportOptions, register, tcp
from tests.opening import open_listeners, open_stream
from tests.patience import PATIENCE
from tests.ports import free_port

from .conftest import Case, Contexts


async def test_the_reported_url_is_the_real_one(case: Case) -> None:
    async with await case.listen() as listener:
        assert not listener.url.endswith((":0", ":0/", "//"))
        assert listener.url.startswith(case.listen_url[:6])
        assert listener.url in repr(listener)


async def test_nobody_there(case: Case) -> None:
    async with await case.listen() as listener:
        url = listener.url
    with pytest.raises(ConnectionFailed, match="cannot connect to") as raised:
        await case.connect(url)
    assert url in str(raised.value)
    assert isinstance(raised.value.__cause__, case.refusal)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_refusal_says_the_address_once(host: str) -> None:
    """The same whether the name has one address or several."""
    url = f"tcp://{host}:{free_port()}"
    with pytest.raises(ConnectionFailed) as raised:
        await open_stream(url)
    reasons = str(raised.value).removeprefix(f"cannot connect to {url}: ").split("; ")
    assert os.strerror(errno.ECONNREFUSED) in reasons
    assert not any("connect to" in reason or "connecting to" in reason for reason in reasons)


async def test_an_address_in_use(case: Case) -> None:
    async with await case.listen() as listener:
        with pytest.raises(ConnectionFailed, match=r"cannot listen on .* in use") as raised:
            await replace(case, listen_url=listener.url).listen()
        assert listener.url in str(raised.value)
    async with await case.listen():
        pass  # and when it was left, it is free again


@pytest.mark.parametrize("name", ["tcp", "unix"])
async def test_plain_streams_are_socket_streams(name: str, socket_dir: Path) -> None:
    """The connection above writes to exactly these without a detour."""
    url = "tcp://127.0.0.1:0" if name == "tcp" else f"unix://{socket_dir}/s"
    (listener,) = await open_listeners(url)
    async with listener, await open_stream(listener.url) as client, await listener.accept() as server:
        for stream in (client, server):
            assert type(stream) is trio.SocketStream
            if name == "tcp":
                assert stream.getsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY)


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:1", "unix:///a", "memory://a", "ws://127.0.0.1:1"])
async def test_tls_where_there_is_none(url: str, contexts: Contexts) -> None:
    with pytest.raises(ConfigurationError, match=r"tls: .* not encrypted"):
        await open_stream(url, tls=contexts.client)
    with pytest.raises(ConfigurationError, match=r"tls: .* not encrypted"):
        await open_listeners(url, tls=contexts.server)


@pytest.mark.parametrize("url", ["tls://127.0.0.1:1", "wss://127.0.0.1:1"])
async def test_tls_contexts_of_the_wrong_kind(url: str, contexts: Contexts) -> None:
    with pytest.raises(ConfigurationError, match="tls: a PROTOCOL_TLS_SERVER context"):
        await open_stream(url, tls=contexts.server)
    with pytest.raises(ConfigurationError, match="tls: a PROTOCOL_TLS_CLIENT context"):
        await open_listeners(url, tls=contexts.client)
    with pytest.raises(ConfigurationError, match="needs a certificate"):
        await open_listeners(url)
    with pytest.raises(ConfigurationError, match=r"is not an ssl\.SSLContext"):
        await open_stream(url, tls="cert.pem")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["tls", "ws", "wss"])
async def test_a_connect_cancelled_in_its_handshake_leaves_nothing(name: str, contexts: Contexts) -> None:
    """The peer, which never answers, sees the end of the stream."""
    (mute,) = await open_listeners("tcp://127.0.0.1:0")
    url = mute.url.replace("tcp", name)
    async with mute, trio.open_nursery() as nursery:

        async def connect() -> None:
            await open_stream(url, tls=None if name == "ws" else contexts.client)

        nursery.start_soon(connect)
        async with await mute.accept() as peer:
            assert await peer.receive_some()  # the client's first words
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(PATIENCE):
                while await peer.receive_some():
                    pass
    gc.collect()  # a socket left open would warn here, and warnings are errors


@pytest.mark.parametrize("name", ["tls", "ws", "wss"])
async def test_a_peer_that_leaves_during_the_handshake(name: str, contexts: Contexts) -> None:
    (rude,) = await open_listeners("tcp://127.0.0.1:0")

    async def hang_up() -> None:
        async with await rude.accept() as peer:
            await peer.receive_some()

    async with rude, trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        with pytest.raises(ConnectionFailed, match="cannot connect to"):
            await open_stream(rude.url.replace("tcp", name), tls=None if name == "ws" else contexts.client)


@pytest.mark.parametrize("name", ["tls", "ws", "wss"])
async def test_a_silent_peer_delays_nobody(name: str, contexts: Contexts) -> None:
    server_tls, client_tls = (None, None) if name == "ws" else (contexts.server, contexts.client)
    (listener,) = await open_listeners(f"{name}://127.0.0.1:0", tls=server_tls)
    raw_url = "tcp" + listener.url.removeprefix(name).removesuffix("/")

    async def echo(stream: trio.abc.Stream) -> None:
        await stream.send_all(await stream.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        with trio.fail_after(PATIENCE):
            async with await open_stream(raw_url), await open_stream(raw_url):
                async with await open_stream(listener.url, tls=client_tls) as good:
                    await good.send_all(b"hello")
                    assert await good.receive_some() == b"hello"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", ["tls", "ws", "wss"])
async def test_a_server_that_gives_up_on_a_handshake_hangs_up(name: str, contexts: Contexts) -> None:
    (listener,) = await open_listeners(f"{name}://127.0.0.1:0", tls=None if name == "ws" else contexts.server)
    raw_url = "tcp" + listener.url.removeprefix(name).removesuffix("/")
    async with listener, await open_stream(raw_url) as silent:
        with trio.fail_after(PATIENCE):
            async with await listener.accept() as stream:
                with trio.move_on_after(0.01) as deadline:
                    await stream.receive_some()
                assert deadline.cancelled_caught
            assert await silent.receive_some() == b""


@pytest.mark.parametrize("name", ["tls", "wss"])
async def test_garbage_breaks_only_the_stream_it_came_on(name: str, contexts: Contexts) -> None:
    (listener,) = await open_listeners(f"{name}://127.0.0.1:0", tls=contexts.server)
    raw_url = "tcp" + listener.url.removeprefix(name).removesuffix("/")
    async with listener, await open_stream(raw_url) as rude:
        await rude.send_all(b"\x00garbage" * 100)
        async with await listener.accept() as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
    gc.collect()


async def expect_nothing(listener: Listener) -> None:
    """Serve one client, which hangs up in the handshake: that is an end or an error, but no bytes."""
    async with await listener.accept() as stream:
        with suppress(trio.BrokenResourceError):
            assert await stream.receive_some() == b""


@pytest.mark.parametrize("scheme", ["tls", "wss"])
async def test_a_certificate_that_nobody_vouches_for(scheme: str, contexts: Contexts) -> None:
    (listener,) = await open_listeners(f"{scheme}://127.0.0.1:0", tls=contexts.server)

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(expect_nothing, listener)
        with pytest.raises(ConnectionFailed, match=r"certificate verify failed: .*cafile=") as raised:
            await open_stream(listener.url)  # the system's authorities, by default
        assert isinstance(raised.value.__cause__, ssl.SSLCertVerificationError)


async def test_a_certificate_for_another_name(contexts: Contexts) -> None:
    (listener,) = await open_listeners("tls://127.0.0.2:0", tls=contexts.server)

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(expect_nothing, listener)
        with pytest.raises(ConnectionFailed, match=r"not valid for '127\.0\.0\.2'"):
            await open_stream(listener.url, tls=contexts.client)


@pytest.mark.parametrize("url", ["tcp://[::1]:0", "ws://[::1]:0/x", "wss://[::1]:0", "tls://localhost:0"])
async def test_brackets_and_names(url: str, contexts: Contexts) -> None:
    server_tls, client_tls = (
        (contexts.server, contexts.client) if url.startswith(("tls", "wss")) else (None, None)
    )
    (listener,) = await open_listeners(url, tls=server_tls)
    assert listener.url.rpartition(":")[0] == url.rpartition(":")[0]
    async with listener, trio.open_nursery() as nursery:

        async def serve() -> None:
            async with await listener.accept() as stream:
                await stream.send_all(b"hello")

        nursery.start_soon(serve)
        async with await open_stream(listener.url, tls=client_tls) as stream:
            assert await stream.receive_some() == b"hello"


class TwoAddresses(trio.abc.HostnameResolver):
    """A name service in which every name has two addresses on this machine."""

    async def getaddrinfo(self, host: bytes | None, port: Any, *args: int) -> list[Any]:
        kind = (trio.socket.AF_INET, trio.socket.SOCK_STREAM, trio.socket.IPPROTO_TCP, "")
        return [(*kind, (address, int(port))) for address in ("127.0.0.1", "127.0.0.2")]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def test_the_addresses_of_a_name_share_one_free_port() -> None:
    trio.socket.set_custom_hostname_resolver(TwoAddresses())
    first, second = await open_listeners("tcp://both.example:0")
    async with first, second:
        assert first.url == second.url
        assert first.url.startswith("tcp://both.example:")
        for address, listener in (("127.0.0.1", first), ("127.0.0.2", second)):
            async with await open_stream(first.url.replace("both.example", address)):
                await trio.aclose_forcefully(await listener.accept())


@pytest.mark.parametrize("taken", [1, 2])
async def test_a_port_that_only_one_address_has_free(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each address offers a port for both; the first that is ``taken`` on the other is passed over."""
    trio.socket.set_custom_hostname_resolver(TwoAddresses())
    real = tcp._listen
    refused: list[int] = []

    async def listen(host: str, port: int, options: TransportOptions) -> list[trio.SocketListener]:
        if port and len(refused) < taken:
            refused.append(port)
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return await real(host, port, options)

    monkeypatch.setattr(tcp, "_listen", listen)
    if taken == 2:
        with pytest.raises(ConnectionFailed, match="in use"):
            await open_listeners("tcp://both.example:0")
        return
    first, second = await open_listeners("tcp://both.example:0")
    async with first, second:
        assert first.url == second.url


async def test_an_address_of_a_family_that_the_system_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is passed over, as long as there is another one; any other lack is an error."""
    trio.socket.set_custom_hostname_resolver(TwoAddresses())
    real = trio.socket.socket
    outcomes: Iterator[int] = iter(())

    def socket(*kind: int) -> trio.socket.SocketType:
        error = next(outcomes)
        if error:
            raise OSError(error, os.strerror(error))
        return real(*kind)

    monkeypatch.setattr(trio.socket, "socket", socket)
    outcomes = iter((errno.EAFNOSUPPORT, 0))
    (listener,) = await open_listeners("tcp://both.example:0")
    await listener.aclose()
    for outcomes, words in (
        (iter((errno.EAFNOSUPPORT, errno.EAFNOSUPPORT)), "family not supported"),
        (iter((0, errno.EMFILE)), "Too many open files"),
    ):
        with pytest.raises(ConnectionFailed, match=words):
            await open_listeners("tcp://both.example:0")
    gc.collect()  # a socket left open would warn here


async def test_the_error_of_two_addresses_says_the_reason_of_both_once() -> None:
    trio.socket.set_custom_hostname_resolver(TwoAddresses())
    first, second = await open_listeners("tcp://both.example:0")
    async with first, second:
        url = first.url
    with pytest.raises(ConnectionFailed, match=r"both\.example:\d+: Connection refused$") as raised:
        await open_stream(url)
    assert isinstance(raised.value.__cause__, OSError)


async def test_a_lack_of_file_descriptors_stays_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """``trio.serve_listeners`` waits and goes on after EMFILE: it must see it."""
    (listener,) = await open_listeners("ws://127.0.0.1:0")

    async def accept(self: trio.SocketListener) -> trio.SocketStream:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(trio.SocketListener, "accept", accept)
    async with listener:
        with pytest.raises(OSError, match="Too many open files"):
            await listener.accept()


class TestRegister:
    @staticmethod
    async def open_stream(url: str, context: TransportContext) -> trio.abc.Stream:
        return memory_pair()[0]

    @staticmethod
    async def open_listeners(url: str, context: TransportContext) -> list[Listener]:
        return []

    async def test_a_scheme_of_ones_own(self) -> None:
        register("x-own", open_stream=self.open_stream, open_listeners=self.open_listeners)
        assert isinstance(await open_stream("X-OWN://anything at all"), trio.abc.Stream)
        assert await open_listeners("x-own://") == []
        with pytest.raises(ConfigurationError, match="'x-own' is registered already"):
            register("x-own", open_stream=self.open_stream, open_listeners=self.open_listeners)

    @pytest.mark.parametrize("scheme", ["", "Upper", "1st", "a b", "a_b", "é"])
    def test_bad_schemes(self, scheme: str) -> None:
        with pytest.raises(ConfigurationError, match="scheme: "):
            register(scheme, open_stream=self.open_stream, open_listeners=self.open_listeners)

    @pytest.mark.parametrize("scheme", ["tcp", "wss"])
    def test_taken_schemes(self, scheme: str) -> None:
        with pytest.raises(ConfigurationError, match="registered already"):
            register(scheme, open_stream=self.open_stream, open_listeners=self.open_listeners)

    async def test_an_entry_point_is_loaded_on_first_use(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "x_plugged.py").write_text(
            "from heartline.testing import memory_pair\n"
            "async def open_stream(url, context): return memory_pair()[0]\n"
            "async def open_listeners(url, context): return []\n"
        )
        info = tmp_path / "x_plugged-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: x-plugged\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[heartline.transports]\nx-plugged = x_plugged\n")
        monkeypatch.syspath_prepend(tmp_path)

        with pytest.raises(ConfigurationError, match=r"known are .*x-plugged"):
            await open_stream("x-unknown://")
        assert isinstance(await open_stream("x-plugged://"), trio.abc.Stream)
        assert await open_listeners("x-plugged://") == []
