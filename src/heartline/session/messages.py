"""The payloads of the handshake and of the goodbye: CBOR maps, checked field by field.

Unknown fields are skipped, so that a later version may add some; every field but ``version`` has a default.
"""

from __future__ import annotations

import struct
from typing import Any, TypeVar

import msgspec

from heartline.errors import RemoteProtocolError, SerializationError
from heartline.wire import CborSerializer, Limits

__all__ = [
    "CONFIRMATION",
    "MARK",
    "VERSION",
    "GoAway",
    "Hello",
    "PeerLimits",
    "Refuse",
    "Welcome",
    "parse",
    "render",
]

VERSION = 1
"""The version of the session protocol."""

MARK = struct.Struct("!dQ")
"""PING and PONG: the sender's time (echoed as it is) and the count of sequenced frames received."""

CONFIRMATION = struct.Struct("!Q")
"""ACK: the count of sequenced frames received. CREDIT: bytes granted to the channel in the frame's id."""

_cbor = CborSerializer()
M = TypeVar("M", bound=msgspec.Struct)


class PeerLimits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The limits that a sender must know; see :class:`heartline.Limits` for their meaning."""

    frame_size: int
    message_size: int
    streams: int
    window: int
    calls: int
    channels: int

    @classmethod
    def of(cls, limits: Limits) -> PeerLimits:
        """The part of these limits that travels."""
        return cls(**{name: getattr(limits, name) for name in cls.__struct_fields__})

    def check(self) -> None:
        """Refuse limits under which nothing could be sent."""
        for name in self.__struct_fields__:
            if getattr(self, name) < 1:
                raise RemoteProtocolError(f"the peer announces {name} = {getattr(self, name)}")


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The client's first frame."""

    version: int
    limits: PeerLimits
    heartbeat_timeout: float
    features: list[str] = []
    identity: str | None = None
    credentials: Any = None
    resume: tuple[bytes, int] | None = None
    """The token of the session to resume, and the count of sequenced frames received in it."""


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """The server's consent."""

    version: int
    session: str
    """The id under which the server knows this connection."""
    limits: PeerLimits
    heartbeat_timeout: float
    features: list[str] = []
    token: bytes = b""
    resumed: bool = False
    received: int = 0
    """The server's count of sequenced frames received, when resumed."""


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """The server's refusal."""

    code: int
    reason: str = ""


class GoAway(msgspec.Struct, frozen=True, kw_only=True):
    """A goodbye: what is in progress may end within ``drain`` seconds."""

    code: int
    reason: str = ""
    drain: float = 0.0


def render(message: msgspec.Struct) -> bytes:
    """The payload of a message."""
    return _cbor.encode(message, [])


def parse(payload: bytes, kind: type[M]) -> M:
    """The message of this payload; raises :class:`RemoteProtocolError` that names the field."""
    try:
        message = msgspec.convert(_cbor.decode(payload), kind)
    except (SerializationError, msgspec.ValidationError) as error:
        raise RemoteProtocolError(f"malformed {kind.__name__.upper()}: {error}") from None
    if isinstance(message, (Hello, Welcome)):
        message.limits.check()
        if not 0 < message.heartbeat_timeout < float("inf"):
            raise RemoteProtocolError(
                f"the peer announces a heartbeat timeout of {message.heartbeat_timeout}"
            )
    return message
