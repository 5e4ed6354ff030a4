"""Channels: independent ordered streams of messages on one connection.

Channel 0 is always open. Another one is opened by an OPEN frame with its name; clients take odd numbers,
servers even ones. Either side ends a channel with CLOSE: what it sent before arrives, then the other side's
``receive`` ends; RESET ends it at once. The other side answers with a CLOSE of its own as soon as its
application has accepted the channel and read what came on it, and once both have been sent the number is free
again. So a peer that opens and closes channels keeps at most ``Limits.channels`` of them here, with their
messages, even if nobody accepts or reads them.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any, final

import trio

from heartline.connection._middleware import Dropped, let_in
from heartline.errors import (
    ConfigurationError,
    ConnectionLost,
    HeartlineError,
    LocalProtocolError,
    RemoteProtocolError,
)
from heartline.link import Core, NoPublicConstructor
from heartline.wire import Flag, Frame, FrameType, Serializer, decode_body, encode_body
from heartline.wire.payload import MessageLimits
from heartline.wire.text import printable

__all__ = ["Channel", "ChannelBroken", "Channels", "decode_message", "encode_message"]

RAW_BYTES = 0
"""The id of a DATA frame whose payload is the message itself; any other id is a serializer's content id."""

_RAW = int(Flag.RAW)

NAME_SIZE = 256
"""Bytes of a channel's name: any path or UUID."""

RESET_REASON_SIZE = 256
"""Bytes of the reason in a RESET that are kept: it is for people, not for programs."""


def encode_message(
    serializer: Serializer, message: Any, limits: MessageLimits | None
) -> tuple[int, bytes, int]:
    """The content id, payload and flags of a message: bytes as they are, anything else serialized.

    Raises :class:`SerializationError`, and :class:`LocalProtocolError` for what is longer than the limits
    allow, as early as that is known.
    """
    if isinstance(message, (bytes, bytearray)):
        if limits is not None and len(message) > limits.message_size:
            most = limits.message_size
            raise LocalProtocolError(
                f"a message of {len(message)} bytes, and it may have {most} (Limits.message_size)"
            )
        return RAW_BYTES, bytes(message), 0
    payload, flags = encode_body(serializer, message, b"", limits)
    return serializer.content_id, payload, flags


def decode_message(frame: Frame, most: int) -> Any:
    """The message of a DATA frame, of ``most`` items; raises :class:`SerializationError`."""
    if frame.id == RAW_BYTES and not frame.flags & _RAW:
        return bytes(frame.payload)
    return decode_body(frame.id, frame.payload, frame.flags, most=most)


class ChannelBroken(HeartlineError, trio.BrokenResourceError):
    """A channel ended before its user was done with it; the message and ``__cause__`` say why.

    Its session ended, the peer reset it, or the peer closed it and the user tried to send. Code that knows
    Trio's channels can catch it as :class:`trio.BrokenResourceError`.
    """


@final
class Channel(trio.abc.Channel[Any], metaclass=NoPublicConstructor):
    """A :class:`trio.abc.Channel` of messages: bytes, or any value that the serializer can carry.

    It raises what Trio's channels raise: :class:`trio.EndOfChannel` when the peer closed it,
    :class:`trio.ClosedResourceError` when you did, :class:`trio.BrokenResourceError`, which is also
    heartline's own :class:`ChannelBroken`, when the session ended or the peer reset it.
    """

    def __init__(self, channels: Channels, number: int, name: str) -> None:
        self.name = name
        self._channels = channels
        self._core = channels.core
        self._number = number
        self._inbox: deque[tuple[Frame, bool]] = deque()
        """Frames, each with whether its sender is still owed the credit for it."""
        self._lot = trio.lowlevel.ParkingLot()
        self._accepted = True
        self._closed = False
        self._ended = False
        self._broken: HeartlineError | None = None

    async def send(self, message: Any) -> None:
        """Send a message; waits while the peer has no room for it (``Limits.window``).

        Raises :class:`trio.ClosedResourceError` or :class:`ChannelBroken` when the channel has ended,
        :class:`SerializationError` for a value that cannot be sent, or has more items than the peer accepts,
        and :class:`LocalProtocolError` for one that is longer than it accepts. Cancelling sends nothing.
        """
        await trio.lowlevel.checkpoint()
        self._check_open()
        link = self._core.link
        limits = None if link is None else link.peer_limits
        number, payload, flags = encode_message(self._core.setup.serializer, message, limits)
        if link is not None:  # otherwise the channel went with its session, and says so
            try:
                await link.wait(self._number, lambda: link.has_room(self._number) or self._is_over())
            except ConnectionLost:
                pass
        self._check_open()
        self._core.require_link().put(FrameType.DATA, self._number, number, payload, flags)

    def _is_over(self) -> bool:
        return self._closed or self._ended

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this channel was closed here")
        if self._broken is not None or self._ended:
            raise self._broken_error() from self._broken

    def _broken_error(self) -> ChannelBroken:
        return ChannelBroken(f"channel {self.name!r} has ended: {self._broken or 'the peer closed it'}")

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> Any:
        """Wait for the next message.

        When the channel has ended and every message was read, raises :class:`trio.EndOfChannel`,
        :class:`trio.ClosedResourceError` or :class:`ChannelBroken`. Raises :class:`SerializationError` for a
        message that cannot be decoded. Cancelling loses no message.
        """
        await trio.lowlevel.checkpoint()
        while True:
            frame = await self._take()
            message = decode_message(frame, self._core.setup.limits.items)
            if not self._core.setup.hooks.middleware:
                return message
            try:
                return await let_in(self._core, self.name, message, partial(self._put_back, frame))
            except Dropped:
                continue

    async def _take(self) -> Frame:
        while not self._inbox:
            if self._closed:
                raise trio.ClosedResourceError("this channel was closed here")
            if self._broken is not None:
                raise self._broken_error() from self._broken
            if self._ended:
                raise trio.EndOfChannel
            await self._lot.park()
        frame, owed = self._inbox.popleft()
        if owed:
            self._give_credit(frame)
        if self._ended:
            self._channels._forget_if_over(self)
        return frame

    def _put_back(self, frame: Frame) -> None:
        """Return a message whose reader was cancelled: it is the next one again."""
        if not self._closed:
            self._inbox.appendleft((frame, False))
            self._lot.unpark()

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """Close the channel: what was sent before still arrives; what was not read is dropped.

        It waits for nothing, so a cancellation does not keep it from closing; closing twice is fine.
        """
        if not self._closed:
            self._closed = True
            while self._inbox:
                frame, owed = self._inbox.popleft()
                if owed:
                    self._give_credit(frame)
            if self._ended:
                self._channels._forget_if_over(self)
            else:
                self._channels._say_closed(self._number)
            self._lot.unpark_all()
        await trio.lowlevel.checkpoint()

    def _give_credit(self, frame: Frame) -> None:
        if self._channels.has(self):  # otherwise the number may be another channel's
            self._core.require_link().give_credit(self._number, len(frame.payload))

    # The session's side

    def _deliver(self, frame: Frame) -> None:
        """Take a message that arrived."""
        if self._closed:
            self._give_credit(frame)
        else:
            self._inbox.append((frame, True))
            self._lot.unpark()

    def _end(self, broken: HeartlineError | None) -> None:
        """Note that the peer, or the end of the session, has ended the channel."""
        self._ended = True
        self._broken = broken
        self._lot.unpark_all()


class Channels:
    """The channels of one session."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._open: dict[int, Channel] = {}
        self._said_closed: set[int] = set()
        self._incoming: deque[Channel] = deque()
        self._lot = trio.lowlevel.ParkingLot()
        self._gone: HeartlineError | None = None

    def __len__(self) -> int:
        return len(self._open)

    @trio.lowlevel.enable_ki_protection
    def open(self, name: str) -> Channel:
        """Open a channel; raises :class:`LocalProtocolError` at the peer's limit, or for a long name."""
        try:
            encoded = name.encode()
        except (AttributeError, UnicodeEncodeError):
            raise ConfigurationError(f"a channel's name must be Unicode text, not {name!r:.80}") from None
        if len(encoded) > NAME_SIZE:
            raise LocalProtocolError(f"a channel's name has at most {NAME_SIZE} bytes, not {len(encoded)}")
        link = self.core.require_link()
        channel = self._add(link.next_lane(), name)
        link.put(FrameType.OPEN, channel._number, 0, encoded)
        return channel

    def _add(self, number: int, name: str) -> Channel:
        channel = self._open[number] = Channel._create(self, number, name)
        return channel

    async def accept(self) -> Channel:
        """Wait for the next channel that the peer opens."""
        await trio.lowlevel.checkpoint()
        while not self._incoming:
            if self._gone is not None:
                raise self._gone
            await self._lot.park()
        channel = self._incoming.popleft()
        channel._accepted = True
        self._forget_if_over(channel)
        return channel

    def _say_closed(self, number: int) -> None:
        """Tell the peer that this side has closed the channel."""
        if number in self._open and number not in self._said_closed:
            self._said_closed.add(number)
            link = self.core.require_link()
            link.put(FrameType.CLOSE, number, 0, b"")
            link.wake()  # a task of ours that waits for room on this channel must see that it is closed

    def on_frame(self, frame: Frame) -> None:
        """Handle a lane frame of a channel other than 0; the session has checked that the lane is open."""
        if frame.type == FrameType.OPEN:
            self._on_open(frame)
            return
        channel = self._open.get(frame.channel)
        if channel is None:  # the lane of a call that was refused: nobody waits for its items
            if frame.type == FrameType.DATA:
                self.core.require_link().give_credit(frame.channel, len(frame.payload))
            return
        if frame.type == FrameType.DATA:
            channel._deliver(frame)
        else:
            self._on_end(frame, channel)

    def _on_open(self, frame: Frame) -> None:
        if len(frame.payload) > NAME_SIZE:
            raise RemoteProtocolError(f"a channel's name of {len(frame.payload)} bytes, of {NAME_SIZE}")
        try:
            name = frame.payload.decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("the name of a channel is not UTF-8") from None
        channel = self._add(frame.channel, name)
        channel._accepted = False
        self._incoming.append(channel)
        self._lot.unpark()

    def _on_end(self, frame: Frame, channel: Channel) -> None:
        broken = None
        if frame.type == FrameType.RESET:
            reason = printable(frame.payload[:RESET_REASON_SIZE].decode(errors="replace"))
            broken = ConnectionLost(f"the peer reset channel {channel.name!r}: {reason}")
        channel._end(broken)
        self._forget_if_over(channel)

    def has(self, channel: Channel) -> bool:
        """Whether the channel's number is its own."""
        return self._gone is None and self._open.get(channel._number) is channel

    def _forget_if_over(self, channel: Channel) -> None:
        """The peer has ended the channel; once it was accepted and read here too, its number is free."""
        if channel._inbox or not (channel._ended and channel._accepted and self.has(channel)):
            return
        # First forget what waits for credit that will not come, then say CLOSE behind the rest.
        self.core.require_link().abandon_lane(channel._number)
        self._say_closed(channel._number)
        self._said_closed.discard(channel._number)
        del self._open[channel._number]

    def on_session_end(self, reason: HeartlineError) -> None:
        """End every channel: the session is over."""
        self._gone = reason
        for channel in self._open.values():
            channel._end(reason)
        self._lot.unpark_all()
