"""The two ends of a connection between nodes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import final

import trio

from heartline.testing._flow import CAPACITY, Flow
from heartline.transports import StreamInfo
from heartline.transports.conflict import ConflictDetector

__all__ = ["WorldStream"]


@final
class WorldStream(trio.abc.HalfCloseableStream):
    """One end: a half-closeable stream with the errors of a socket."""

    def __init__(self, incoming: Flow, outgoing: Flow, peer: str, on_close: Callable[[], None]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._peer = peer
        self._on_close = on_close
        self.closed = False
        self.broken = False
        self._receiving = ConflictDetector("another task is receiving on this stream")
        self._sending = ConflictDetector("another task is sending on this stream")

    def describe_peer(self) -> StreamInfo:
        """The address is the name of the node at the other end."""
        return StreamInfo(address=self._peer)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for at most ``max_bytes`` bytes, none after the peer's end; cancelled, it takes nothing."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        with self._receiving:
            await self._incoming.wait_readable(self._is_over)
            self._check_open()
            data = self._incoming.take(max_bytes) if self._incoming.readable else None
            if data is None:
                raise trio.BrokenResourceError("the connection was reset")
            return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over all of ``data``, waiting for room; cancelled, a part may have gone."""
        with self._sending, memoryview(data) as view:
            sent = 0
            while True:
                await self._outgoing.wait_room(1, self._is_over)
                self._check_sendable()
                size = min(self._outgoing.room, len(view) - sent)
                self._outgoing.put(bytes(view[sent : sent + size]))
                sent += size
                if sent == len(view):
                    return

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until half of the room is free: like a socket, not for every single byte."""
        with self._sending:
            await self._outgoing.wait_room(CAPACITY // 2, self._is_over)
            self._check_open()

    async def send_eof(self) -> None:
        """Say that no more bytes will come; receiving goes on."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_open()
            self._outgoing.end()

    async def aclose(self) -> None:
        """Close both directions: the peer still gets what was sent, then the end."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """What ``aclose`` does, where nothing can be awaited."""
        if not self.closed:
            self.closed = True
            if not self.broken:
                self._outgoing.end()
                self._incoming.refuse()
            self._outgoing.changed.unpark_all()
            self._on_close()

    def break_off(self) -> None:
        """Tell this end that the connection is gone; it may still read what had come."""
        if not self.broken:
            self.broken = True
            self._incoming.lose(now=True)
            self._outgoing.changed.unpark_all()

    def vanish(self) -> None:
        """End this end without telling the other, which may still get what was under way."""
        self.break_off()
        self._outgoing.lose()

    def abort(self) -> None:
        """Tell the other end that this one has vanished."""
        self._outgoing.abort()
        self._incoming.refuse()

    def _is_over(self) -> bool:
        return self.closed or self.broken

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this stream was closed")

    def _check_sendable(self) -> None:
        self._check_open()
        if self._outgoing.ended:
            raise trio.ClosedResourceError("the sending half of this stream was closed")
        if self.broken:
            raise trio.BrokenResourceError("the connection was reset")
        if self._outgoing.refused:
            raise trio.BrokenResourceError("the peer closed its end of this stream")
