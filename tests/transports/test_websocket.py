"""The WebSocket stream against a peer driven by hand, and so beyond what honest peers do."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import FrameProtocol

from heartline.errors import ConfigurationError, ConnectionFailed
from heartline.testing import memory_pair
from heartline.transports._url import NetworkURL
from heartline.transports._websocket_handshake import begin_request
from heartline.transports._websocket_stream import MAX_MESSAGE, PATIENCE, WebSocketStream
from tests.opening import open_listeners, open_stream

from .conftest import websocket_over


class Peer:
    """A WebSocket client without manners of its own: it sends what it is told, and notes what comes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.protocol = WSConnection(ConnectionType.CLIENT)

    async def shake(self, subprotocols: list[str] | None = None) -> AcceptConnection:
        await self.send(Request(host="h", target="/", subprotocols=subprotocols or []))
        (event,) = await self.receive()
        assert isinstance(event, AcceptConnection)
        return event

    async def send(self, *events: Event) -> None:
        await self.stream.send_all(b"".join(self.protocol.send(event) for event in events))

    async def receive(self) -> list[Event]:
        """The next events; none at the end of the stream."""
        while data := await self.stream.receive_some():
            self.protocol.receive_data(bytes(data))
            if events := list(self.protocol.events()):
                return events
        return []


def server_over(stream: trio.abc.Stream) -> WebSocketStream:
    return websocket_over(stream, stream)[1]


@asynccontextmanager
async def connected(buffer_size: int = 1 << 20) -> AsyncIterator[tuple[WebSocketStream, Peer]]:
    """A server's stream, and its client."""
    near, far = memory_pair(buffer_size=buffer_size)
    async with server_over(near) as stream, far:
        peer = Peer(far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.do_handshake)
            await peer.shake()
        yield stream, peer


class TestHandshake:
    @staticmethod
    async def ask(request: bytes) -> tuple[bytes, str]:
        """What a server on the path ``/here`` answers, and what its stream raises."""
        near, far = memory_pair()
        async with far, websocket_over(near, near, "/here")[1] as stream:
            await far.send_all(request)
            await far.send_eof()
            with pytest.raises(trio.BrokenResourceError) as raised:
                await stream.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")
            await stream.aclose()
            answer = bytearray()
            while chunk := await far.receive_some():
                answer += chunk
        return bytes(answer), str(raised.value)

    @pytest.mark.parametrize(
        ("request_", "status", "words"),
        [
            (b"GET /here HTTP/1.1\r\nHost: h\r\n\r\n", 426, "Missing header, 'Connection: Upgrade'"),
            (b"\x00\x01\x02\r\n\r\n", 400, "Bad HTTP message"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 17_000, 400, "Bad HTTP message"),
            (b"GET /here HTTP/1.1\r\nX: " + b"a" * 17_000, 400, "Bad HTTP message"),
        ],
    )
    async def test_what_is_no_websocket_gets_a_4xx(self, request_: bytes, status: int, words: str) -> None:
        answer, error = await self.ask(request_)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"This port speaks WebSocket: " in answer
        assert words in error

    @staticmethod
    def upgrade(target: bytes = b"/here", **headers: bytes) -> bytes:
        fields = {
            "Host": b"h",
            "Connection": b"Upgrade",
            "Upgrade": b"websocket",
            "Sec-WebSocket-Version": b"13",
            "Sec-WebSocket-Key": b"AAAAAAAAAAAAAAAAAAAAAA==",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: ".encode() + value for name, value in headers_of(fields)]
        return b"\r\n".join([b"GET " + target + b" HTTP/1.1", *lines, b"", b""])

    async def test_another_path_gets_a_404(self) -> None:
        answer, error = await self.ask(self.upgrade(b"/there"))
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"try /here" in answer
        assert "HTTP 404" in error

    async def test_another_version_gets_told_ours(self) -> None:
        answer, _ = await self.ask(self.upgrade(Sec_WebSocket_Version=b"12"))
        assert answer.startswith(b"HTTP/1.1 426 ")
        assert b"Sec-WebSocket-Version: 13" in answer

    async def test_headers_that_are_not_ascii(self) -> None:
        answer, _ = await self.ask(self.upgrade(Connection=b"\xff"))
        assert answer.startswith(b"HTTP/1.1 400 ")

    async def test_a_query_is_no_part_of_the_path(self) -> None:
        near, far = memory_pair()
        async with far, websocket_over(near, near, "/here")[1] as stream:
            await far.send_all(self.upgrade(b"/here?token=1"))
            await stream.do_handshake()
            assert (await far.receive_some()).startswith(b"HTTP/1.1 101 ")

    @pytest.mark.parametrize(
        ("offered", "chosen"), [([], None), (["chat"], None), (["chat", "heartline"], "heartline")]
    )
    async def test_the_subprotocol_is_chosen_if_offered(self, offered: list[str], chosen: str | None) -> None:
        near, far = memory_pair()
        async with far, server_over(near) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(stream.do_handshake)
            assert (await Peer(far).shake(offered)).subprotocol == chosen

    def test_the_subprotocol_is_offered(self) -> None:
        _, request = begin_request(NetworkURL("ws", "a", 80, "/"))
        assert b"Sec-WebSocket-Protocol: heartline\r\n" in request

    def test_a_host_that_fits_into_no_header_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="does not fit"):
            begin_request(NetworkURL("ws", "a" * 63, 65535, "/"))

    @given(st.binary(max_size=300), st.integers(0, 400))
    def test_garbage_only_breaks_the_stream(self, garbage: bytes, keep: int) -> None:
        """Nothing else comes out, be it from HTTP's parser or from WebSocket's."""

        async def main() -> None:
            near, far = memory_pair()
            async with far, server_over(near) as stream:
                await far.send_all(self.upgrade(b"/")[:keep] + garbage)
                await far.send_eof()
                with pytest.raises(trio.BrokenResourceError):
                    await drain(stream)

        trio.run(main, clock=MockClock(autojump_threshold=0))

    @given(st.binary(max_size=300), st.integers(0, 200))
    def test_garbage_from_a_server_only_fails(self, garbage: bytes, keep: int) -> None:
        """A good answer, cut, and garbage instead of its rest."""

        async def main() -> None:
            near, far = memory_pair()
            client, _ = websocket_over(near, near)
            async with client, far, trio.open_nursery() as nursery:

                async def answer() -> None:
                    server = WSConnection(ConnectionType.SERVER)
                    server.receive_data(await far.receive_some())
                    await far.send_all(server.send(AcceptConnection())[:keep] + garbage)
                    await far.send_eof()

                nursery.start_soon(answer)
                with pytest.raises(trio.BrokenResourceError):
                    await drain(client)

        trio.run(main, clock=MockClock(autojump_threshold=0))

    async def test_cancelled_it_can_be_tried_again(self) -> None:
        near, far = memory_pair()
        async with far, server_over(near) as stream:
            request = self.upgrade(b"/")
            for start in range(0, len(request), 50):
                with trio.move_on_after(0):
                    await stream.receive_some()
                await far.send_all(request[start : start + 50])
            await stream.do_handshake()
            assert (await far.receive_some()).startswith(b"HTTP/1.1 101 ")

    async def test_cancelled_while_answering_it_is_broken(self, autojump_clock: MockClock) -> None:
        near, far = memory_pair(buffer_size=10)
        async with far, server_over(near) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(far.send_all, self.upgrade(b"/"))
            with trio.move_on_after(0.01):
                await stream.do_handshake()
            with pytest.raises(trio.BrokenResourceError, match="half a frame"):
                await stream.send_all(b"x")

    async def test_sender_and_receiver_may_both_begin(self) -> None:
        near, far = memory_pair()
        async with far, server_over(near) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"hello")
            nursery.start_soon(stream.receive_some)
            peer = Peer(far)
            await peer.shake()
            assert (await peer.receive())[0] == BytesMessage(data=b"hello")
            await peer.send(BytesMessage(data=b"x"))

    async def test_waiting_for_room_shakes_hands_too(self) -> None:
        near, far = memory_pair()
        async with far, server_over(near) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(stream.wait_send_all_might_not_block)
            await Peer(far).shake()

    async def test_frames_sent_with_the_acceptance_are_kept(self) -> None:
        near, far = memory_pair()
        client, _ = websocket_over(near, near)
        async with client, far, trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            server = WSConnection(ConnectionType.SERVER)
            server.receive_data(await far.receive_some())
            await far.send_all(server.send(AcceptConnection()) + server.send(BytesMessage(data=b"early")))
            assert await client.receive_some() == b"early"

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404"),
            (b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n\x1b[2J\n\n", r"upgrade: .\\x1b\[2J.$"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhel", "HTTP 200 .*: hel$"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b"a" * 9999, "HTTP 200 .*: a{199}…$"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\nx", "HTTP 200 .*: he$"),
            (b"HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP 103 .*upgrade$"),
            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "handshake is wrong"),
            (b"HTTP/1.1 101 Switching Protocols\r\nConnection: \xff\r\n\r\n", "handshake is wrong"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "did not answer in HTTP: b'SSH-2.0"),
            (b"HT", "the peer left"),
            (b"", "does it listen for WebSockets"),
        ],
    )
    async def test_a_server_that_is_no_websocket(self, answer: bytes, words: str) -> None:
        (listener,) = await open_listeners("tcp://127.0.0.1:0")

        async def serve() -> None:
            async with await listener.accept() as stream:
                await stream.receive_some()
                await stream.send_all(answer)

        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with pytest.raises(ConnectionFailed, match=words):
                await open_stream(listener.url.replace("tcp", "ws"))

    async def test_a_refusal_whose_body_never_ends(self, autojump_clock: MockClock) -> None:
        near, far = memory_pair()
        client, _ = websocket_over(near, near)
        async with client, far:
            await far.send_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nlater")
            with pytest.raises(trio.BrokenResourceError, match=r"HTTP 503 .*: later$"):
                await client.do_handshake()


async def drain(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some():
        pass


def headers_of(fields: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return list(fields.items())


class TestMessages:
    async def test_one_send_is_one_binary_message(self) -> None:
        async with connected() as (stream, peer):
            await stream.send_all(b"")
            await stream.send_all(memoryview(b"abc"))
            assert await peer.receive() == [BytesMessage(data=b"abc")]

    async def test_a_large_send_is_cut(self) -> None:
        async with connected(buffer_size=4 * MAX_MESSAGE) as (stream, peer):
            await stream.send_all(bytes(2 * MAX_MESSAGE + 5))
            (frames,) = [await peer.stream.receive_some()]
            reader = FrameProtocol(client=True, extensions=[])
            reader.receive_bytes(bytes(frames))
            sizes = [len(frame.payload) for frame in reader.received_frames() if frame.message_finished]
            assert sizes == [MAX_MESSAGE, MAX_MESSAGE, 5]

    @given(
        messages=st.lists(st.lists(st.binary(max_size=200), min_size=1, max_size=4), max_size=8),
        seed=st.integers(0, 1000),
        max_bytes=st.integers(1, 100) | st.none(),
    )
    def test_fragments_pings_and_cuts_anywhere(
        self, messages: list[list[bytes]], seed: int, max_bytes: int | None
    ) -> None:
        """Cut by the peer, the network and by cancelling, the payloads arrive, and pings get answers."""
        dice = random.Random(seed)

        async def main() -> None:
            async with connected() as (stream, peer):
                wire = bytearray()
                for number, fragments in enumerate(messages):
                    for fragment in fragments[:-1]:
                        wire += peer.protocol.send(BytesMessage(data=fragment, message_finished=False))
                        wire += peer.protocol.send(Ping(payload=bytes([number])))
                    wire += peer.protocol.send(BytesMessage(data=fragments[-1]))
                wire += peer.protocol.send(Pong(payload=b"nobody asked"))
                wire += peer.protocol.send(Ping(payload=b"last"))
                wire += peer.protocol.send(CloseConnection(code=1000))

                async def send() -> None:
                    while wire:
                        size = dice.randrange(1, 100)
                        await peer.stream.send_all(bytes(wire[:size]))
                        del wire[:size]

                received = bytearray()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send)
                    while True:
                        with trio.move_on_after(dice.choice([0, 1])):
                            chunk = await stream.receive_some(max_bytes)
                            if not chunk:
                                break
                            received += chunk
                assert received == b"".join(b"".join(fragments) for fragments in messages)
                answers = await peer.receive()
                assert isinstance(answers[-1], CloseConnection)
                assert all(isinstance(answer, Pong) for answer in answers[:-1])

        trio.run(main, clock=MockClock(autojump_threshold=0))

    async def test_a_message_of_any_size_needs_little_memory(self) -> None:
        """It is passed on as it comes, so no size is too large."""
        size = 64 * MAX_MESSAGE
        header = bytes([0x82, 0xFF]) + size.to_bytes(8, "big") + bytes(4)  # masked with zeros
        async with connected(buffer_size=100_000) as (stream, peer), trio.open_nursery() as nursery:

            async def send() -> None:
                await peer.stream.send_all(header)
                for _ in range(64):
                    await peer.stream.send_all(bytes(MAX_MESSAGE))

            nursery.start_soon(send)
            received = 0
            while received < size:
                chunk = await stream.receive_some()
                assert len(chunk) <= 65536
                received += len(chunk)


class TestEnds:
    @pytest.mark.parametrize("code", [1000, 1001, None])
    async def test_a_clean_close_is_the_end(self, code: int | None) -> None:
        async with connected() as (stream, peer):
            await peer.send(BytesMessage(data=b"last"), CloseConnection(code=code or 1005))
            assert await stream.receive_some() == b"last"
            for _ in range(2):
                assert await stream.receive_some() == b""
            with pytest.raises(trio.BrokenResourceError, match="the peer closed the WebSocket"):
                await stream.send_all(b"x")
            (answer,) = await peer.receive()
            assert isinstance(answer, CloseConnection)
            assert peer.protocol.state is ConnectionState.CLOSED

    async def test_an_error_code_breaks_the_stream(self) -> None:
        async with connected() as (stream, peer):
            await peer.send(BytesMessage(data=b"last"), CloseConnection(code=1011, reason="out of tea"))
            assert await stream.receive_some() == b"last"
            for _ in range(2):
                with pytest.raises(trio.BrokenResourceError, match="1011 out of tea"):
                    await stream.receive_some()

    async def test_an_end_without_a_close_breaks_the_stream(self) -> None:
        async with connected() as (stream, peer):
            await peer.send(BytesMessage(data=b"last"))
            await peer.stream.aclose()
            assert await stream.receive_some() == b"last"
            with pytest.raises(trio.BrokenResourceError, match="without a WebSocket close"):
                await stream.receive_some()

    async def test_a_text_message_breaks_the_stream(self) -> None:
        async with connected() as (stream, peer):
            await peer.send(BytesMessage(data=b"last"), TextMessage(data="hello"), BytesMessage(data=b"lost"))
            assert await stream.receive_some() == b"last"
            for broken in (stream.receive_some(), stream.send_all(b"x")):
                with pytest.raises(trio.BrokenResourceError, match="text message"):
                    await broken
            assert await peer.receive() == [CloseConnection(code=1003, reason="the peer sent a text message")]

    @pytest.mark.parametrize(
        ("frame", "words"),
        [
            (bytes([0x82, 0x01, 0x00]), "unmasked"),
            (bytes([0x8F, 0x80, 0, 0, 0, 0]), "opcode"),
            (bytes([0xC2, 0x80, 0, 0, 0, 0]), "Reserved bit"),
            (bytes([0x80, 0x80, 0, 0, 0, 0]), "CONTINUATION"),
            (bytes([0x89, 0xFE, 0, 126, 0, 0, 0, 0]), "payload len > 125"),
        ],
    )
    async def test_a_broken_rule_breaks_the_stream(self, frame: bytes, words: str) -> None:
        async with connected() as (stream, peer):
            await peer.stream.send_all(frame)
            with pytest.raises(trio.BrokenResourceError, match=f"broke the WebSocket protocol: .*{words}"):
                await stream.receive_some()
            (answer,) = await peer.receive()
            assert isinstance(answer, CloseConnection)
            assert answer.code == 1002

    @given(st.lists(st.binary(max_size=30) | st.just(bytes([0x82, 0x81, 0, 0, 0, 0, 65])), max_size=5))
    def test_garbage_frames_only_break_the_stream(self, garbage: list[bytes]) -> None:
        async def main() -> None:
            async with connected() as (stream, peer):
                await peer.stream.send_all(b"".join(garbage))
                await peer.stream.send_eof()  # type: ignore[attr-defined]
                with suppress(trio.BrokenResourceError):  # a close frame can come about, too
                    await drain(stream)

        trio.run(main, clock=MockClock(autojump_threshold=0))

    async def test_closing_tells_the_peer(self) -> None:
        async with connected() as (stream, peer):
            await stream.send_all(b"last")
            await stream.aclose()
            assert await peer.receive() == [BytesMessage(data=b"last"), CloseConnection(code=1000, reason="")]
            assert await peer.receive() == []

    async def test_closing_during_a_send_does_not_tear_its_frame(self) -> None:
        async with connected(buffer_size=500) as (stream, peer):

            async def send() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.send_all(bytes(1000))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                await trio.testing.wait_all_tasks_blocked()
                await stream.aclose()
            received = bytearray()
            while chunk := await peer.stream.receive_some():
                received += chunk
            assert received == bytes([0x82, 126, 3, 232]) + bytes(496)

    async def test_a_cancelled_send_sends_no_more(self, autojump_clock: MockClock) -> None:
        async with connected(buffer_size=500) as (stream, peer):
            with trio.move_on_after(0.01):
                await stream.send_all(bytes(1000))
            with pytest.raises(trio.BrokenResourceError, match="half a frame"):
                await stream.send_all(b"x")
            await peer.send(BytesMessage(data=b"still heard"))
            assert await stream.receive_some() == b"still heard"
            received = await peer.stream.receive_some()
            assert len(received) == 500
            await stream.aclose()  # there is room to say so, but it would be taken for the frame's other half
            assert await peer.stream.receive_some() == b""

    async def test_a_send_cancelled_before_it_begins_harms_nothing(self) -> None:
        async with connected() as (stream, peer):
            with trio.move_on_after(0):
                await stream.send_all(b"never")
            await stream.send_all(b"sent")
            assert await peer.receive() == [BytesMessage(data=b"sent")]


class TestPatience:
    """The peer does not read: answers wait a little, and never in each other's way."""

    @staticmethod
    async def clog(stream: WebSocketStream) -> None:
        """Fill what is below ``stream``, leaving no half frame behind."""
        await stream.send_all(bytes(496))

    async def test_a_ping_is_answered(self) -> None:
        async with connected() as (stream, peer), trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            await peer.send(Ping(payload=b"?"))
            assert await peer.receive() == [Pong(payload=b"?")]
            nursery.cancel_scope.cancel()

    async def test_a_pong_without_room_does_not_stop_reading(self, autojump_clock: MockClock) -> None:
        async with connected(buffer_size=500) as (stream, peer):
            await self.clog(stream)
            await peer.send(Ping(payload=b"?"))
            before = trio.current_time()
            async with trio.open_nursery() as nursery:

                async def say() -> None:
                    await trio.sleep(PATIENCE / 2)
                    await peer.send(BytesMessage(data=b"listen"))

                nursery.start_soon(say)
                assert await stream.receive_some() == b"listen"
            assert trio.current_time() - before == pytest.approx(PATIENCE)
            await peer.stream.receive_some()
            await stream.send_all(b"next")  # carries the answer
            assert await peer.receive() == [BytesMessage(data=b"next"), Pong(payload=b"?")]

    async def test_a_pong_does_not_wait_for_our_own_send(self, autojump_clock: MockClock) -> None:
        async with connected(buffer_size=500) as (stream, peer), trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(1000))
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(Ping(payload=b"?"), BytesMessage(data=b"listen"))
            before = trio.current_time()
            assert await stream.receive_some() == b"listen"
            assert trio.current_time() == before
            events: list[Event] = []
            while not events or events[-1] != Pong(payload=b"?"):
                events += await peer.receive()

    async def test_cancelling_a_receive_does_not_tear_a_pong(self) -> None:
        """Whenever the cancellation comes, frames stay whole."""
        for delay in range(12):
            async with connected() as (stream, peer):
                await peer.send(Ping(payload=b"?"))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.receive_some)
                    for _ in range(delay):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
                await stream.send_all(b"whole")
                events = await peer.receive()
                assert BytesMessage(data=b"whole") in events
                assert set(map(type, events)) <= {BytesMessage, Pong}

    async def test_closing_waits_a_little_for_a_peer_that_does_not_read(
        self, autojump_clock: MockClock
    ) -> None:
        async with connected(buffer_size=500) as (stream, peer):
            await self.clog(stream)
            before = trio.current_time()
            await stream.aclose()
            assert trio.current_time() - before == pytest.approx(PATIENCE)
            assert await peer.receive() == [BytesMessage(data=bytes(496))]
            assert await peer.receive() == []

    async def test_a_cancelled_close_closes_at_once(self) -> None:
        async with connected(buffer_size=500) as (stream, peer):
            await self.clog(stream)
            await trio.aclose_forcefully(stream)
            assert await peer.receive() == [BytesMessage(data=bytes(496))]
            assert await peer.receive() == []
