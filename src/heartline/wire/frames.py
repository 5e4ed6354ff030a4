"""Frames: the unit of the native wire.

A frame is a 12-byte header and a payload. The header, big endian: payload length u32, type u8, flags u8,
channel u16, id u32. Types come in four families:

- control (0x01 to 0x0F): the session's own; channel 0, never in fragments, never sequenced, always first;
- lane (0x10 to 0x1F): channels that carry messages;
- call (0x20 to 0x2F): RPC, matched by id;
- push (0x30 to 0x3F): updates of topics, the id names the subscription.

An unknown type is skipped when it carries ``Flag.IGNORABLE``; otherwise it is a protocol error. A message
longer than a frame travels as frames of the same type, channel and id, all but the last with ``Flag.MORE``.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable

import msgspec

from heartline.errors import LocalProtocolError, RemoteProtocolError
from heartline.wire.limits import Limits

__all__ = ["CONTROL_TYPES", "HEADER", "HEADER_SIZE", "Flag", "Frame", "FrameDecoder", "FrameType", "encode"]

HEADER = struct.Struct("!IBBHI")
HEADER_SIZE = HEADER.size


class FrameType(enum.IntEnum):
    """The types of frames; the family is in the upper four bits."""

    HELLO = 0x01
    WELCOME = 0x02
    REFUSE = 0x03
    PING = 0x04
    PONG = 0x05
    ACK = 0x06
    CREDIT = 0x07
    GOAWAY = 0x08

    OPEN = 0x10
    DATA = 0x11
    CLOSE = 0x12
    RESET = 0x13

    CALL = 0x20
    RESULT = 0x21
    FAULT = 0x22
    CANCEL = 0x25

    PUSH = 0x30
    CONFIRM = 0x31


class Flag(enum.IntFlag):
    """The flags of a frame."""

    MORE = 0x01
    """The message goes on in another frame of the same type, channel and id."""
    RAW = 0x02
    """The payload is an envelope with raw segments (see :mod:`heartline.wire.segments`)."""
    IGNORABLE = 0x80
    """A receiver that does not know the type skips the frame."""


CONTROL_TYPES = frozenset(t for t in FrameType if t < FrameType.OPEN)


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One complete frame; :class:`FrameDecoder` limits the length of its ``payload``, this class does not.

    A struct of msgspec because it is made once per frame: 0.05 µs, a fifth of a named tuple.
    """

    type: int
    flags: int = 0
    channel: int = 0
    id: int = 0
    payload: bytes = b""


def _mask(frame_type: int) -> int:
    """The flags that must not be set on this type; 0xFF stands for a type that is unknown."""
    if frame_type not in FrameType._value2member_map_:
        return 0xFF
    allowed = Flag.IGNORABLE if frame_type in CONTROL_TYPES else Flag.IGNORABLE | Flag.MORE | Flag.RAW
    return 0xFF & ~allowed


TURN = 1024
"""Frames that one :meth:`FrameDecoder.feed` returns: a millisecond or two of work. A read of empty
frames could bring twenty times as many."""

_MAX_CHUNKS = 1024
"""Pieces of an incomplete frame before they are joined: this bounds the memory for a peer that sends single
bytes, and joining so rarely takes hardly any time."""

# One look-up per frame on the hot path instead of several comparisons.
_FORBIDDEN_FLAGS = bytes(_mask(t) for t in range(256))


def encode(frames: Iterable[Frame]) -> bytes:
    """The bytes of these frames, one after the other.

    Raises :class:`LocalProtocolError` when a field does not fit its place in the header.
    """
    parts: list[bytes] = []
    for frame in frames:
        try:
            parts.append(HEADER.pack(len(frame.payload), frame.type, frame.flags, frame.channel, frame.id))
        except struct.error as error:
            raise LocalProtocolError(
                f"type {frame.type!r}, flags {frame.flags!r}, channel {frame.channel!r}, id {frame.id!r} "
                f"with {len(frame.payload)} bytes do not fit a frame's header: {error}"
            ) from None
        parts.append(frame.payload)
    return b"".join(parts)


class FrameDecoder:
    """Turns a byte stream, cut or coalesced anywhere, into frames.

    It holds at most one incomplete frame, whose length is checked as soon as its header is there, and does
    linear work however the stream is cut. The first error is final: the frames before it are returned, then
    every further :meth:`feed` raises it.

    At most ``TURN`` frames are returned at a time. When there may be :attr:`more`, feed ``b""`` to get them.
    """

    __slots__ = ("_buffered", "_chunks", "_error", "_max_payload", "_need", "_offset", "more")

    def __init__(self, limits: Limits | None = None) -> None:
        self._max_payload = (limits or Limits()).frame_size
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._need = HEADER_SIZE
        self._offset = 0
        self._error: RemoteProtocolError | None = None
        self.more: bool = False
        """Whether the next :meth:`feed`, of nothing, may give frames or has an error to raise."""

    @property
    def failed(self) -> bool:
        """Whether the stream broke the protocol; the next :meth:`feed` raises the error."""
        return self._error is not None

    @property
    def buffered(self) -> int:
        """Bytes held of a frame that is not complete."""
        return self._buffered

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that these bytes complete, in order; raises :class:`RemoteProtocolError`."""
        if self._error is not None:
            raise self._error
        if self._chunks:
            if data:
                self._chunks.append(bytes(data))
                self._buffered += len(data)
            if self._buffered < self._need:
                if len(self._chunks) == _MAX_CHUNKS:
                    self._chunks = [b"".join(self._chunks)]
                return []
            data = b"".join(self._chunks)
            self._chunks.clear()
        data = bytes(data)
        frames, position = self._decode(data)
        self._offset += position
        rest = data[position:] if self._error is None else b""
        self._buffered = len(rest)
        if rest:
            self._chunks.append(rest)
        if self._error is not None and not frames:
            raise self._error
        return frames

    def _decode(self, data: bytes) -> tuple[list[Frame], int]:
        frames: list[Frame] = []
        append, unpack, limit, forbidden = (
            frames.append,
            HEADER.unpack_from,
            self._max_payload,
            _FORBIDDEN_FLAGS,
        )
        position, end = 0, len(data)
        self.more = False
        for _ in range(TURN):
            if end - position < HEADER_SIZE:
                break
            length, frame_type, flags, channel, number = unpack(data, position)
            if length > limit or flags & forbidden[frame_type] or forbidden[frame_type] == 0xFF:
                reason = self._objection(length, frame_type, flags, self._offset + position)
                if reason is not None:
                    self._error = RemoteProtocolError(reason, offset=self._offset + position)
                    self.more = True
                    return frames, position
            stop = position + HEADER_SIZE + length
            if stop > end:
                self._need = stop - position
                return frames, position
            if forbidden[frame_type] != 0xFF:
                append(Frame(frame_type, flags, channel, number, data[position + HEADER_SIZE : stop]))
            position = stop
        else:
            self.more = end - position >= HEADER_SIZE
        self._need = HEADER_SIZE
        return frames, position

    def _objection(self, length: int, frame_type: int, flags: int, offset: int) -> str | None:
        """Why this header cannot be accepted; ``None`` for an unknown type that may be skipped."""
        if length > self._max_payload:
            if not offset and HEADER.pack(length, frame_type, flags, 0, 0).startswith(b"HTTP/1"):
                return "the peer answered in HTTP: the URL's scheme may have to be ws:// or wss://"
            hint = "" if offset else "; is the other end heartline, and the URL's scheme the right one?"
            return f"a frame claims {length} bytes of payload, the limit is {self._max_payload}{hint}"
        if _FORBIDDEN_FLAGS[frame_type] == 0xFF:
            return None if flags & Flag.IGNORABLE else f"unknown frame type 0x{frame_type:02x}"
        return f"{FrameType(frame_type).name} with flags 0x{flags:02x}, which it cannot carry"

    def close(self) -> None:
        """Say that the stream has ended; raises :class:`RemoteProtocolError` if it ended inside a frame."""
        if self._error is not None:
            raise self._error
        if self._buffered:
            raise RemoteProtocolError(
                f"the stream ended inside a frame, after {self._buffered} of {self._need} bytes or more",
                offset=self._offset,
            )
