"""Reads a link: takes what the stream has, and hands out the frames in turns with other tasks."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import Any

import trio

from heartline.errors import ConnectionLost, RemoteProtocolError
from heartline.link._link import SLICE, Handle, Link
from heartline.link._state import LinkState
from heartline.session.session import Event
from heartline.transports import reason_of

__all__ = ["READ_SIZE", "read"]

READ_SIZE = 124 * 1024
"""Bytes per read: a whole burst of small frames, or a large frame, in one system call.

For a buffer of 128 KiB or more the allocator goes to the kernel, and gives it back when the read brought
less: that costs a lone call a third more.
"""

TURN = 256
"""Frames that are handled before other tasks run: a few milliseconds, whatever a peer sends in one read."""

_UP = LinkState.UP


def read(link: Link, handle: Handle) -> Coroutine[Any, Any, None]:
    """Read and handle until the peer ends the stream; to be awaited.

    Raises :class:`RemoteProtocolError` and :class:`ConnectionLost`.
    """
    # Not a coroutine of its own: an idle link would keep half a KiB more for it.
    return _read_socket(link, handle) if link.descriptor >= 0 else _read_stream(link, handle)


async def _receive_first(link: Link, handle: Handle) -> None:
    """What came behind the handshake, in the same bytes."""
    if link.session.holds_back:
        rest = _receive(link, b"", handle)
        if rest is not None:
            await rest


def _receive_eof(link: Link) -> None:
    try:
        link.session.receive_eof()
    except RemoteProtocolError as error:
        # The end of a stream inside a frame is no mischief: the sender was cut off too.
        raise ConnectionLost(str(error)) from None


async def _read_socket(link: Link, handle: Handle) -> None:
    await _receive_first(link, handle)
    descriptor = link.descriptor
    while True:
        try:
            await trio.lowlevel.wait_readable(descriptor)
            if link.state is not _UP:
                return  # the descriptor may have been closed meanwhile, and be another file's
            data = os.read(descriptor, READ_SIZE)
        except BlockingIOError:
            continue
        except (OSError, trio.ClosedResourceError) as error:
            raise ConnectionLost(f"the link broke while reading: {error}") from error
        if not data:
            _receive_eof(link)
            return
        rest = _receive(link, data, handle)
        if rest is not None:
            await rest


async def _read_stream(link: Link, handle: Handle) -> None:
    await _receive_first(link, handle)
    while True:
        try:
            data = await link.stream.receive_some(READ_SIZE)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionLost(f"the link broke while reading: {reason_of(error)}") from error
        if link.state is not _UP:  # lost meanwhile: what came is sent again on the next one
            return
        if not data:
            _receive_eof(link)
            return
        rest = _receive(link, bytes(data), handle)
        if rest is not None:
            await rest


def _receive(link: Link, data: bytes, handle: Handle) -> Coroutine[Any, Any, None] | None:
    """Handle what these bytes bring; what would take long is left to the coroutine that is returned."""
    session = link.session
    events = session.receive(data, trio.current_time())
    if len(events) > SLICE or session.holds_back:
        return _receive_rest(link, events, handle)
    link.handle(events, handle)
    link.wake()
    return None


async def _receive_rest(link: Link, events: list[Event], handle: Handle) -> None:
    session = link.session
    while True:
        await _handle_many(link, events, handle)
        # What was not decoded was not counted either: a link that is lost leaves it to the next one.
        if not session.holds_back or link.state is not _UP:
            break
        await trio.lowlevel.cancel_shielded_checkpoint()
        events = session.receive(b"", trio.current_time())
    link.wake()


async def _handle_many(link: Link, events: list[Event], handle: Handle) -> None:
    for start in range(0, max(1, len(events)), SLICE):
        if start and start % TURN == 0:
            # Shielded: the session has counted these frames, so every one of them has to be handled.
            await trio.lowlevel.cancel_shielded_checkpoint()
        link.handle(events[start : start + SLICE], handle)
