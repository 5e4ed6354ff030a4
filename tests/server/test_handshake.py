"""The handshake as a server sees it: whoever comes, with whatever, harms nobody else."""

from __future__ import annotations

import contextlib
import logging
import random
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

import heartline
from heartline import CloseCode, ConnectionRefusedByPeer, Limits, Peer
from heartline.server import _acceptor
from heartline.session import GoAway, PeerLimits, Refuse, Role, Welcome
from heartline.session.messages import Hello, parse, render
from heartline.wire import Frame, FrameDecoder, FrameType, encode
from heartline.wire.limits import LEAST_ITEMS
from tests.opening import open_stream

from ..connection.helpers import QUIET, SOCKETS, RawPeer, data, no_leaks, settle, url_of
from .helpers import vouch


@heartline.service
class Echo:
    """Says it back: the others are fine as long as it does."""

    def echo(self, value: str) -> str:
        return value


def hello(**fields: Any) -> bytes:
    settings: dict[str, Any] = {
        "version": 1,
        "limits": PeerLimits.of(Limits()),
        "heartbeat_timeout": QUIET.timeout,
    } | fields
    return encode([Frame(FrameType.HELLO, payload=render(Hello(**settings)))])


def hello_of(payload: bytes) -> bytes:
    return encode([Frame(FrameType.HELLO, payload=payload)])


async def answer(stream: trio.abc.Stream) -> tuple[int, Any]:
    """The type of the only frame that comes, and its message; the stream must end behind it."""
    received = bytearray()
    while some := await stream.receive_some():
        received += some
    frames = FrameDecoder().feed(bytes(received))
    if not frames:
        return 0, None
    (frame,) = frames
    kinds: dict[int, Any] = {FrameType.REFUSE: Refuse, FrameType.WELCOME: Welcome}
    return frame.type, parse(frame.payload, kinds[frame.type])


BAD = {
    "garbage": (b"\0\xad\xbe\xef" * 50, CloseCode.PROTOCOL_ERROR),
    "long length": (b"\0\xff\xff\xff\x01\0\0\0\0\0\0\0", CloseCode.PROTOCOL_ERROR),
    "deep CBOR": (hello_of(b"\x81" * 100_000), CloseCode.PROTOCOL_ERROR),
    "wide CBOR": (hello_of(b"\x9b" + b"\xff" * 8), CloseCode.PROTOCOL_ERROR),
    "no map": (hello_of(b"\x01"), CloseCode.PROTOCOL_ERROR),
    "other frame": (encode([data(b"x")]), CloseCode.PROTOCOL_ERROR),
    "PING first": (encode([Frame(FrameType.PING, payload=bytes(16))]), CloseCode.PROTOCOL_ERROR),
    "WELCOME first": (
        encode([Frame(FrameType.WELCOME, payload=hello()[12:])]),
        CloseCode.PROTOCOL_ERROR,
    ),
    "other version": (hello(version=2), CloseCode.UNSUPPORTED_VERSION),
    "empty identity": (hello(identity=""), CloseCode.PROTOCOL_ERROR),
    "long identity": (hello(identity="x" * 257), CloseCode.PROTOCOL_ERROR),
    "identity of control characters": (hello(identity="a\nb"), CloseCode.PROTOCOL_ERROR),
    "no patience": (hello(heartbeat_timeout=0.0), CloseCode.PROTOCOL_ERROR),
    "a PING every 3 ms": (hello(heartbeat_timeout=0.01), CloseCode.PROTOCOL_ERROR),
    "no window": (
        hello(limits=replace(PeerLimits.of(Limits()), window=0)),
        CloseCode.PROTOCOL_ERROR,
    ),
    "too few items": (
        hello(limits=replace(PeerLimits.of(Limits()), items=LEAST_ITEMS - 1)),
        CloseCode.PROTOCOL_ERROR,
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_start_is_refused_and_harms_nobody(case: str, autojump_clock: MockClock) -> None:
    sent, code = BAD[case]
    with no_leaks():
        async with (
            heartline.open_server("memory://", services=[Echo()], heartbeat=QUIET) as server,
            heartline.open_connection(server.urls[0], heartbeat=QUIET) as other,
        ):
            async with await open_stream(server.urls[0]) as stream:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.send_all, sent)
                    kind, refusal = await answer(stream)
                    nursery.cancel_scope.cancel()
            assert kind == FrameType.REFUSE
            assert refusal.code == code
            assert len(refusal.reason) > 10
            await settle()
            statistics = server.statistics()
            assert (statistics.refused, statistics.handshaking, statistics.accepted) == (1, 0, 1)
            assert list(server.connections) == [other.id]
            assert await heartline.remote(other.service(Echo).echo)("fine") == "fine"
        assert trio.current_time() < 1


@pytest.mark.parametrize("kind", SOCKETS)
async def test_the_same_on_sockets(kind: str, tmp_path: object) -> None:
    with no_leaks():
        async with (
            heartline.open_server(url_of(kind, tmp_path), services=[Echo()]) as server,
            heartline.open_connection(server.urls[0]) as other,
        ):
            for sent, code in BAD.values():
                async with await open_stream(server.urls[0]) as stream:
                    await stream.send_all(sent)
                    try:
                        _, refusal = await answer(stream)
                        assert refusal.code == code
                    except trio.BrokenResourceError:
                        assert len(sent) > 10_000  # closed before all was read: the system resets
            assert await heartline.remote(other.service(Echo).echo)("fine") == "fine"
            assert server.statistics().refused == len(BAD)


@pytest.mark.parametrize("cut", [0, 1, 11, 12, 30, -1])
async def test_an_end_in_the_middle(cut: int, autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://") as server:
        stream = await open_stream(server.urls[0])
        await stream.send_all(hello()[:cut])
        await stream.aclose()
        await settle()
        assert server.statistics().refused == 1
        assert server.statistics().handshaking == 0
        assert trio.current_time() == 0


@pytest.mark.parametrize("sent", [b"", hello()[:20]])
async def test_a_silent_client_costs_the_handshakes_time(sent: bytes, autojump_clock: MockClock) -> None:
    limits = Limits(handshake_timeout=7)
    async with heartline.open_server("memory://", limits=limits, heartbeat=QUIET) as server:
        stream = await open_stream(server.urls[0])
        await stream.send_all(sent)
        await settle()
        assert server.statistics().handshaking == 1
        kind, refusal = await answer(stream)
        assert kind == FrameType.REFUSE
        assert refusal.code == CloseCode.HANDSHAKE_TIMEOUT
        assert trio.current_time() == 7
        await settle()
        assert server.statistics().handshaking == 0


async def test_dripping_bytes_do_not_prolong_it(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        stream = await open_stream(server.urls[0])
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def drip() -> None:
                for byte in hello():
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(1.3)

            _, refusal = await answer(stream)
            assert refusal.code == CloseCode.HANDSHAKE_TIMEOUT
            assert trio.current_time() == 10
            nursery.cancel_scope.cancel()


async def test_only_so_many_shake_hands_at_a_time(autojump_clock: MockClock) -> None:
    limits = Limits(handshakes=5)
    async with heartline.open_server("memory://", limits=limits, heartbeat=QUIET) as server:
        silent = [await open_stream(server.urls[0]) for _ in range(5)]
        await settle()
        assert server.statistics().handshaking == 5
        async with heartline.open_connection(server.urls[0], heartbeat=QUIET):
            assert server.statistics().connections == 1
        assert (server.statistics().handshaking, server.statistics().refused) == (4, 1)
        _, refusal = await answer(silent[0])
        assert refusal.code == CloseCode.OVERLOADED


async def test_garbage_behind_a_good_hello(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        stream = await open_stream(server.urls[0])
        await stream.send_all(hello() + encode([data(b"before the WELCOME")]))
        received = await stream.receive_some()
        while some := await stream.receive_some():
            received += some
        frames = FrameDecoder().feed(bytes(received))
        assert [frame.type for frame in frames] == [FrameType.WELCOME, FrameType.GOAWAY]
        assert parse(frames[1].payload, GoAway).code == CloseCode.PROTOCOL_ERROR
        assert trio.current_time() < 1
        await settle()
        assert not server.connections


async def test_a_server_that_ends_while_someone_shakes_hands(autojump_clock: MockClock) -> None:
    with no_leaks():
        for way in ("normally", "cancelled"):
            with trio.CancelScope() as scope:
                async with heartline.open_server("memory://") as server:
                    stream = await open_stream(server.urls[0])
                    await stream.send_all(hello()[:5])
                    await settle()
                    if way == "cancelled":
                        scope.cancel()
            assert trio.current_time() == 0
            assert await stream.receive_some() == b""
            await stream.aclose()


@pytest.mark.parametrize("way", ["normally", "cancelled", "by an error"])
@pytest.mark.parametrize("where", ["authenticate", "middleware"])
async def test_a_server_that_ends_while_someone_waits_to_be_let_in(
    way: str, where: str, autojump_clock: MockClock
) -> None:
    """The client is told, and knows that it may try again."""
    asked = trio.Event()

    async def judge(*_: Any) -> Any:
        asked.set()
        await trio.sleep_forever()

    settings: dict[str, Any] = {"authenticate": judge} if where == "authenticate" else {"middleware": [judge]}
    reasons = []

    async def come(url: str) -> None:
        reasons.append(await refused(url))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope, contextlib.suppress(KeyError):
            async with heartline.open_server("memory://", **settings) as server:
                nursery.start_soon(come, server.urls[0])
                await asked.wait()
                if way == "cancelled":
                    scope.cancel()
                elif way == "by an error":
                    raise KeyError(way)
    assert [reason.code for reason in reasons] == [CloseCode.GOING_AWAY]
    assert trio.current_time() == 0


# Who is let in


async def refused(url: str, **settings: Any) -> ConnectionRefusedByPeer:
    with pytest.raises(ConnectionRefusedByPeer) as caught:
        async with heartline.open_connection(url, **settings):
            pass
    return caught.value


def by_password(peer: Peer) -> str | None:
    match peer.credentials:
        case {"user": str(user), "password": "right"}:
            return user
        case "take me at my word":
            return None
        case "wrong type":
            return 5  # type: ignore[return-value]
        case "bug":
            raise ZeroDivisionError("secret details")
    raise PermissionError("the password is wrong" if peer.credentials else "")


async def slowly(peer: Peer) -> str | None:
    await trio.sleep(1)
    if peer.credentials == "never":
        await trio.sleep_forever()
    return by_password(peer)


@pytest.mark.parametrize("authenticate", [by_password, slowly])
async def test_authenticate_says_who_it_is(
    authenticate: Any, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with heartline.open_server("memory://", authenticate=authenticate) as server:
        url = server.urls[0]
        right = {"user": "ada", "password": "right"}
        async with heartline.open_connection(url, identity="claimed", credentials=right) as connection:
            assert connection.id == "ada"
            assert list(server.connections) == ["ada"]
        async with heartline.open_connection(
            url, identity="claimed", credentials="take me at my word"
        ) as connection:
            assert connection.id == "claimed"

        error = await refused(url, credentials="wrong")
        assert (error.code, error.reason) == (CloseCode.UNAUTHENTICATED, "the password is wrong")
        assert error.terminal
        error = await refused(url)
        assert (error.code, error.reason) == (
            CloseCode.UNAUTHENTICATED,
            "the credentials were not accepted",
        )
        assert {record.levelno for record in caplog.records} <= {logging.INFO}
        caplog.clear()
        for bug in ("bug", "wrong type"):
            error = await refused(url, credentials=bug)
            assert error.code == CloseCode.INTERNAL_ERROR
            assert not error.terminal
            assert "secret" not in error.reason
        assert len(caplog.records) == 2
        assert "ZeroDivisionError" in caplog.text
        assert "authenticate returned an object of int" in caplog.text


async def test_a_bug_in_a_handshake_is_logged_and_harms_nobody(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(stream: trio.abc.Stream) -> Any:
        raise ZeroDivisionError

    async with (
        heartline.open_server("memory://", services=[Echo()]) as server,
        heartline.open_connection(server.urls[0]) as other,
    ):
        monkeypatch.setattr(_acceptor, "describe", bug)
        error = await refused(server.urls[0])
        assert error.code == CloseCode.INTERNAL_ERROR
        assert await heartline.remote(other.service(Echo).echo)("fine") == "fine"
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


async def test_an_authenticate_that_never_ends(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", authenticate=slowly) as server:
        limits = Limits(handshake_timeout=60)
        error = await refused(server.urls[0], credentials="never", limits=limits)
        assert error.code == CloseCode.HANDSHAKE_TIMEOUT
        assert trio.current_time() == 10


async def test_a_client_that_leaves_during_authenticate(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", authenticate=slowly) as server:
        peer = RawPeer.of(await open_stream(server.urls[0]), Role.CLIENT)
        peer.session.hello(credentials="take me at my word")
        await peer.flush()
        await settle()
        await peer.stream.aclose()
        await trio.sleep(2)
        assert not server.connections
        assert server.statistics().handshaking == 0


async def test_a_full_server(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", limits=Limits(connections=2), authenticate=vouch) as server:
        url = server.urls[0]
        async with heartline.open_connection(url, identity="a"):
            async with heartline.open_connection(url, identity="b"):
                error = await refused(url, identity="c")
                assert error.code == CloseCode.OVERLOADED
                assert "Limits.connections" in error.reason
                assert not error.terminal
                # Who comes back takes its own place, however full it is.
                async with heartline.open_connection(url, identity="b"):
                    assert set(server.connections) == {"a", "b"}
            await settle()
            async with heartline.open_connection(url, identity="c"):
                assert set(server.connections) == {"a", "c"}


async def test_a_slow_authenticate_lets_no_more_in_than_there_is_room(autojump_clock: MockClock) -> None:
    limits = Limits(connections=3)
    outcomes: list[str] = []
    async with heartline.open_server("memory://", limits=limits, authenticate=slowly) as server:
        done = trio.Event()

        async def visit() -> None:
            try:
                async with heartline.open_connection(server.urls[0], credentials="take me at my word"):
                    outcomes.append("in")
                    await done.wait()
            except ConnectionRefusedByPeer:
                outcomes.append("refused")

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(visit)
            await trio.sleep(5)
            assert len(server.connections) == 3
            done.set()
    assert sorted(outcomes) == ["in"] * 3 + ["refused"] * 7


async def test_made_up_ids_can_be_repeated(autojump_clock: MockClock) -> None:
    ids = []
    for _ in range(2):
        async with (
            heartline.open_server("memory://", rng=random.Random(7)) as server,
            heartline.open_connection(server.urls[0]) as one,
            heartline.open_connection(server.urls[0]) as two,
        ):
            ids.append((one.id, two.id))
    assert ids[0] == ids[1]
    assert ids[0][0] != ids[0][1]
