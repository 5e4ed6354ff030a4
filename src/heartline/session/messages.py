"""The payloads of the handshake and of the goodbye: CBOR maps, checked field by field.

Unknown fields are skipped, so that a later version may add some; those that it adds have defaults.
"""

from __future__ import annotations

import math
import struct
from typing import Any, TypeVar

import msgspec

from heartline.errors import RemoteProtocolError, SerializationError
from heartline.session.heartbeat import SHORTEST_TIMEOUT
from heartline.wire import CborSerializer, Limits, decode_body
from heartline.wire.limits import LEAST_ITEMS, SHARES

__all__ = [
    "CONFIRMATION",
    "HELLO_SIZE",
    "MARK",
    "UNKNOWN",
    "VERSION",
    "GoAway",
    "Hello",
    "PeerLimits",
    "Refuse",
    "Welcome",
    "parse",
    "render",
    "shorten",
    "terms_of",
]

VERSION = 1
"""The version of the session protocol."""

MARK = struct.Struct("!dQ")
"""PING and PONG: the sender's time (echoed as it is) and the count of sequenced frames received."""

CONFIRMATION = struct.Struct("!Q")
"""ACK: the count of sequenced frames received. CREDIT: bytes returned so far on the channel in its id."""

SMALLEST_FRAME = 2048
"""Bytes that every peer must accept in a frame: a WELCOME or a GOAWAY fits, and a message in fragments does
not cost many times its own bytes."""

HELLO_SIZE = 64 * 1024
"""Bytes of a HELLO: the largest tickets fit. A client that says it has proved nothing yet, and values made of
empty lists take a microsecond a byte to decode."""

CLIENT_SIZE = 64
"""Bytes of the name of a client in its attempts, which its server keeps: any UUID or hash."""

REASON_SIZE = 1024
"""Bytes of a reason that travel: it is for a person, and fits in the smallest frame."""

_cbor = CborSerializer()
M = TypeVar("M", bound=msgspec.Struct)


# What a limit may be at least, where that is more than 1.
_LEAST = {"frame_size": SMALLEST_FRAME, "items": LEAST_ITEMS}


class PeerLimits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The limits that a sender must know; see :class:`heartline.Limits` for their meaning."""

    frame_size: int
    message_size: int
    items: int
    memory: int
    window: int
    calls: int
    channels: int

    @classmethod
    def of(cls, limits: Limits) -> PeerLimits:
        """The part of these limits that travels."""
        return cls(**{name: getattr(limits, name) for name in cls.__struct_fields__})

    @property
    def share(self) -> int:
        """Bytes of each part of ``memory``."""
        return self.memory // SHARES

    def check(self) -> None:
        """Refuse limits under which nothing could be sent, or only at an absurd cost."""
        for name in self.__struct_fields__:
            least = _LEAST.get(name, 1)
            if getattr(self, name) < least:
                raise RemoteProtocolError(
                    f"the peer announces {name} = {getattr(self, name)}, at least {least} is needed"
                )


UNKNOWN = PeerLimits(frame_size=0, message_size=0, items=0, memory=0, window=0, calls=0, channels=0)
"""The limits of a peer that has not said them: nothing can be sent to it."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The client's first frame."""

    version: int
    limits: PeerLimits
    heartbeat_timeout: float
    identity: str | None = None
    credentials: Any = None
    resume: tuple[bytes, int] | None = None
    """The token of the session to resume, and the count of sequenced frames received in it."""
    attempt: tuple[bytes, int] | None = None
    """Which client this is, in random bytes by which its server knows it again, and a number that grows with
    each of its HELLOs: it tells one that was long under way."""
    resume_window: float = 0.0
    """Seconds for which this side would wait for a lost session to be resumed; 0: not at all."""
    replay_buffer: int = 0
    """Bytes that this side keeps until they are confirmed; a quarter of it calls for an ACK."""


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """The server's consent."""

    version: int
    session: str
    """The id under which the server knows this connection."""
    limits: PeerLimits
    heartbeat_timeout: float
    token: bytes = b""
    """With it the session can be resumed, once; empty: it cannot."""
    resumed: bool = False
    received: int = 0
    """The server's count of sequenced frames received, when resumed."""
    resume_window: float = 0.0
    replay_buffer: int = 0
    """As in :class:`Hello`."""


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """The server's refusal."""

    code: int
    reason: str = ""


class GoAway(msgspec.Struct, frozen=True, kw_only=True):
    """A goodbye: what is in progress may end within ``drain`` seconds."""

    code: int
    reason: str = ""
    drain: float = 0.0


def terms_of(limits: Limits, heartbeat_timeout: float) -> dict[str, Any]:
    """What both sides say of themselves, as fields of :class:`Hello` and :class:`Welcome`."""
    return {
        "version": VERSION,
        "limits": PeerLimits.of(limits),
        "heartbeat_timeout": heartbeat_timeout,
        "resume_window": limits.resume_window,
        "replay_buffer": limits.replay_buffer,
    }


def render(message: msgspec.Struct) -> bytes:
    """The payload of a message; raises :class:`SerializationError`."""
    segments: list[Any] = []
    payload = _cbor.encode(message, segments)
    if segments:
        raise SerializationError("arrays cannot be sent in the handshake; make them lists or bytes first")
    return payload


def shorten(reason: str) -> str:
    """As much of a reason as travels, in proper Unicode."""
    return reason.encode(errors="replace")[:REASON_SIZE].decode(errors="ignore")


def parse(payload: bytes, kind: type[M]) -> M:
    """The message of this payload; raises :class:`RemoteProtocolError` that names the field."""
    try:
        fields = decode_body(_cbor.content_id, payload, 0, most=HELLO_SIZE)
        message = msgspec.convert(fields, kind, builtin_types=(bytes,))
    except (SerializationError, msgspec.ValidationError) as error:
        raise RemoteProtocolError(f"malformed {kind.__name__.upper()}: {error}") from None
    _check(message)
    return message


def _check(message: msgspec.Struct) -> None:
    """What the types do not say."""
    if isinstance(message, Welcome) and message.version != VERSION:
        raise RemoteProtocolError(f"the peer answers in version {message.version}, not in {VERSION}")
    if isinstance(message, (Hello, Welcome)):
        message.limits.check()
        if not SHORTEST_TIMEOUT <= message.heartbeat_timeout < math.inf:
            raise RemoteProtocolError(
                f"the peer announces a heartbeat timeout of {message.heartbeat_timeout} s"
            )
        if isinstance(message, Hello) and message.attempt is not None:
            size = len(message.attempt[0])
            if size > CLIENT_SIZE:
                raise RemoteProtocolError(
                    f"the client's name in its attempt has {size} bytes, of {CLIENT_SIZE}"
                )
        if not (message.resume_window >= 0 and message.replay_buffer >= 0):
            raise RemoteProtocolError(
                f"the peer would wait {message.resume_window} s for a lost session, "
                f"with {message.replay_buffer} bytes kept"
            )
    elif isinstance(message, GoAway) and not message.drain >= 0:
        raise RemoteProtocolError(f"the peer wants to drain for {message.drain} s")
