"""A WebSocket as a byte stream, without a task of its own.

wsproto keeps the protocol's state; the bytes move within the caller's ``receive_some`` and ``send_all``. So
nothing runs in the background, back pressure is that of the stream below, and an idle connection costs no
task.
Message boundaries carry no meaning: payloads are passed on piece by piece as they arrive, never assembled, so
the peer's message size needs no limit and memory is bounded by :data:`RECEIVE_SIZE`.
"""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import final

import trio
import wsproto
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from heartline.transports._peer import StreamInfo, describe
from heartline.transports._websocket_request import UpgradeRequest
from heartline.transports.conflict import ConflictDetector

MAX_MESSAGE = 1024 * 1024
"""Bytes of an outgoing message: the least that common peers and proxies let through by default."""

RECEIVE_SIZE = 64 * 1024
"""Bytes to read at once, as Trio's sockets do."""

PATIENCE = 1.0
"""Seconds that a pong or a close may wait for room to be sent: it is a courtesy, and worth no longer wait."""

CLEAN_CLOSES = {CloseReason.NORMAL_CLOSURE, CloseReason.GOING_AWAY, CloseReason.NO_STATUS_RCVD}

OPEN_STATES = {ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING}

Write = Callable[[bytes], Awaitable[None]]
Handshake = Callable[[wsproto.WSConnection, trio.abc.Stream, Write], Awaitable[UpgradeRequest | None]]
"""Returns what a client asked for, on the server's side."""


@final
class WebSocketStream(trio.abc.Stream):
    """The bytes of a WebSocket's binary messages, over the stream ``transport_stream``.

    Errors are those of any Trio stream: a text message, a broken rule, an end without a close or with an
    error's code is :exc:`trio.BrokenResourceError`, saying which; a clean close is the end of the stream.
    """

    def __init__(
        self, transport_stream: trio.abc.Stream, protocol: wsproto.WSConnection, handshake: Handshake
    ) -> None:
        self.transport_stream = transport_stream
        self._protocol = protocol
        self._handshake: Handshake | None = handshake
        self._handshaking = trio.Lock()
        self._request: UpgradeRequest | None = None
        self._closed = False
        self._received = bytearray()
        self._incoming_end: str | None = None
        """Why no more bytes come: ``""`` after a clean close."""
        self._outgoing_end: str | None = None
        """Why no more bytes can be sent."""
        self._torn = False
        """Half a frame was written: nothing may follow it."""
        self._owed: Pong | CloseConnection | None = None
        """A pong or close that waits to be sent."""
        self._receiving = ConflictDetector("another task is receiving on this WebSocketStream")
        self._sending = ConflictDetector("another task is sending on this WebSocketStream")
        self._frames = trio.Lock()
        """Keeps apart the frames of ``send_all`` and the answers of ``receive_some``."""

    async def do_handshake(self) -> None:
        """Do the opening handshake, unless it is done; any I/O does so by itself.

        Cancelled while it waits for the peer, it can be tried again.
        """
        async with self._handshaking:
            self._check_sendable()
            if self._handshake is None:
                return
            try:
                self._request = await self._handshake(self._protocol, self.transport_stream, self._write)
            except trio.BrokenResourceError as error:
                self._incoming_end = self._outgoing_end = str(error)
                raise
            self._handshake = None
            self._digest()  # the peer's first frames may have come along

    def describe_peer(self) -> StreamInfo:
        """What the stream below knows of the peer; on a server also the client's request, once it came."""
        info = describe(self.transport_stream)
        if self._request is None:
            return info
        return replace(info, path=self._request.path, headers=self._request.headers)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Wait for at most ``max_bytes`` bytes, none after the peer's close; cancelled, it loses nothing."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        with self._receiving:
            if self._handshake is not None:
                await self.do_handshake()
            if self._received or self._incoming_end is not None:
                await trio.lowlevel.checkpoint()
            while not self._received and self._incoming_end is None:
                data = await self.transport_stream.receive_some(RECEIVE_SIZE)
                if self._feed(data):
                    await self._answer()
            self._check_open()
            if self._received or not self._incoming_end:
                return self._take(max_bytes)
            raise trio.BrokenResourceError(self._incoming_end)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data`` as one binary message, or several above :data:`MAX_MESSAGE`.

        Cancelled half way, it leaves a stream that can only be received from and closed.
        """
        with self._sending:
            if self._handshake is not None:
                await self.do_handshake()
            self._check_sendable()
            async with self._frames:
                with memoryview(data) as view:
                    for start in range(0, len(view), MAX_MESSAGE):
                        self._check_sendable()
                        message = BytesMessage(data=bytes(view[start : start + MAX_MESSAGE]))
                        await self._write(self._protocol.send(message))
                await self._write_owed()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the stream below takes bytes."""
        with self._sending:
            if self._handshake is not None:
                await self.do_handshake()
            self._check_open()
            async with self._frames:
                await self.transport_stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Tell the peer, if there is room for it within :data:`PATIENCE`, and close the stream below.

        The peer's own close is not awaited: the peer may never read again. Only a peer whose handshake failed
        has :data:`PATIENCE` to take the answer.
        """
        if self._protocol.state in OPEN_STATES and not isinstance(self._owed, CloseConnection):
            self._owed = CloseConnection(code=CloseReason.NORMAL_CLOSURE)
        self._closed = True
        try:
            if self._owed is not None:
                await self._answer()
            if self._handshake is not None and self._outgoing_end is not None and not self._torn:
                await self._linger()
        finally:
            await self.transport_stream.aclose()  # Trio's rule: a stream closes even when cancelled

    async def _linger(self) -> None:
        """Let the peer read why it was turned down.

        To close with something unread, such as the body of its request, would reset the connection, and the
        answer could be lost.
        """
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(PATIENCE):
            if isinstance(self.transport_stream, trio.abc.HalfCloseableStream):
                await self.transport_stream.send_eof()
            while await self.transport_stream.receive_some(RECEIVE_SIZE):
                pass

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this WebSocketStream was closed")

    def _check_sendable(self) -> None:
        self._check_open()
        if self._outgoing_end is not None:
            raise trio.BrokenResourceError(self._outgoing_end)

    def _feed(self, data: bytes | bytearray) -> bool:
        """Process what was received; true if it needs an answer."""
        owed_before = self._owed
        if data:
            self._protocol.receive_data(bytes(data))
            self._digest()
        else:
            self._incoming_end = "the connection ended without a WebSocket close"
        return self._owed is not owed_before

    def _digest(self) -> None:
        for event in self._protocol.events():
            if isinstance(event, BytesMessage):
                self._received += event.data
            elif isinstance(event, Ping):
                self._owed = event.response()  # the latest ping's answer is enough
            elif isinstance(event, CloseConnection):
                self._on_close(event)
            elif isinstance(event, TextMessage):
                return self._refuse(CloseReason.UNSUPPORTED_DATA, "the peer sent a text message")
        return None

    def _on_close(self, event: CloseConnection) -> None:
        if self._protocol.state is ConnectionState.OPEN:
            # In this way wsproto also tells that it cannot read on.
            self._refuse(event.code, f"the peer broke the WebSocket protocol: {event.reason}")
            return
        self._owed = event.response()
        reason = repr(event.reason or "")[1:-1]  # one line, whatever the peer says
        self._outgoing_end = f"the peer closed the WebSocket with {event.code} {reason}".rstrip()
        self._incoming_end = "" if event.code in CLEAN_CLOSES else self._outgoing_end

    def _refuse(self, code: int, reason: str) -> None:
        self._owed = CloseConnection(code=code, reason=reason)
        self._incoming_end = self._outgoing_end = reason

    def _take(self, max_bytes: int | None) -> bytes | bytearray:
        if max_bytes is None or len(self._received) <= max_bytes:
            taken, self._received = self._received, bytearray()
        else:
            taken = self._received[:max_bytes]
            del self._received[:max_bytes]
        return taken

    async def _answer(self) -> None:
        """Send the pong or close that is owed, if nobody is sending; if not, the next ``send_all`` sends it.

        It waits neither for this side's own ``send_all`` nor long for the peer: two ends that stop reading
        until they have written can wait for each other forever.
        """
        if self._torn or self._handshake is not None or self._frames.locked():
            return
        try:
            async with self._frames:
                with trio.move_on_after(PATIENCE) as patience:
                    await self.transport_stream.wait_send_all_might_not_block()
                if not patience.cancelled_caught:
                    # Shielded: a cancelled receive_some must not tear a frame. There is room, so it is short.
                    with trio.move_on_after(PATIENCE, shield=True):
                        await self._write_owed()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the next use of the stream raises it; a peer that closed and left was owed nothing

    async def _write_owed(self) -> None:
        owed, self._owed = self._owed, None
        if owed is not None and self._protocol.state in OPEN_STATES:
            await self._write(self._protocol.send(owed))

    async def _write(self, data: bytes) -> None:
        try:
            await self.transport_stream.send_all(data)
        except BaseException:
            self._torn = True
            self._outgoing_end = self._outgoing_end or "an interrupted write left half a frame behind"
            raise
