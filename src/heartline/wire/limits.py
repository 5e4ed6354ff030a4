"""Every bound that a peer can run into, with its unit and the reason of its default."""

from __future__ import annotations

from dataclasses import dataclass, fields

from heartline.errors import ConfigurationError

__all__ = ["Limits"]

KIB = 1024
MIB = 1024 * KIB

_SECONDS = frozenset({"handshake_timeout", "resume_window"})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What this side accepts from a peer and holds for it.

    The limits that the peer must know to keep (frame, message, streams, window) travel in the handshake.
    Every value but ``resume_window`` is above 0; a bad one raises :class:`~heartline.ConfigurationError`.
    """

    frame_size: int = 256 * KIB
    """Bytes of payload in one frame. A frame is the unit of taking turns, so it stays well under a
    millisecond of loopback time. At most 16 MiB - 1: the first byte of a native stream is zero."""

    message_size: int = 64 * MIB
    """Bytes of one message put together from fragments: a model of 16 million float32 numbers."""

    streams: int = 8
    """Messages in fragments at the same time. With ``message_size`` it bounds the memory for halves."""

    window: int = 256 * KIB
    """Bytes a channel may hold that its reader has not taken: enough for a full loopback pipe."""

    handshake_timeout: float = 10.0
    """Seconds from the link's opening to the end of the handshake; a silent peer costs no longer."""

    calls: int = 1024
    """Calls in progress that the peer may have here; one more is answered with ``Overloaded``."""

    channels: int = 256
    """Open channels beside the default one."""

    events: int = 256
    """Events kept for an :meth:`events` reader that lags; beyond, the oldest are dropped and counted."""

    write_buffer: int = 1 * MIB
    """Bytes waiting for a slow peer before senders and publishers wait and broadcasts pass it by."""

    resume_window: float = 60.0
    """Seconds for which a session outlives its link, if the peer agrees to as many; 0: not at all. A minute
    outlasts a router's restart and a change of networks."""

    replay_buffer: int = 4 * MIB
    """Bytes sent that the peer has not confirmed, kept to be sent again; when they are reached nothing new is
    sent. The write that reaches them may go beyond by its small frames and one fragment. Enough for
    300 Mbit/s over a round trip of 100 ms."""

    lost_buffer: int = 256 * MIB
    """Bytes that the lost sessions of a server hold when their links are lost; beyond, those that were lost
    first end. A mass of clients that leave large transfers behind must not fill the memory for a window. As
    many again may be held in unread messages of connections that have ended."""

    handshakes: int = 256
    """Streams of one server that are shaking hands; for one more the oldest whose greeting is not complete
    makes room. A handshake takes a round trip, so this many let thousands in per second, and silent peers
    hold no more than these, and nobody else up."""

    handshakes_per_host: int = 128
    """Those of them that may come from one IP address (of IPv6: from one /64). Half, so that no host alone
    has them all, and one that stands for a whole fleet, such as a proxy, has enough. Streams that have no
    such address, as those of Unix sockets, do not count."""

    connections: int = 10_000
    """Connections of one server; at 10 KiB each, while they are idle, it is 100 MiB, and below the usual
    descriptor limit. Lost ones whose sessions wait count too, but make room for whoever comes."""

    subscriptions: int = 1024
    """Subscriptions of one peer to topics of this side; one more is refused. Each may have a window of 256
    updates or 1 MiB under way, and one to a topic that was never published keeps that topic in memory."""

    topics: int = 8192
    """Topics of this side that were declared or published; one more is an error of its publisher. At 1 KiB
    each, while they are empty, it is 8 MiB."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            number = (int, float) if field.name in _SECONDS else int
            zero = field.name == "resume_window" and value == 0
            if not isinstance(value, number) or isinstance(value, bool) or not (value > 0 or zero):
                least = "of at least 0" if field.name == "resume_window" else "above 0"
                raise ConfigurationError(f"Limits.{field.name} must be a number {least}, not {value!r}")
        if self.frame_size >= 16 * MIB:
            raise ConfigurationError(f"Limits.frame_size must be below 16 MiB, not {self.frame_size!r}")
        if self.message_size < self.frame_size:
            raise ConfigurationError(
                f"Limits.message_size ({self.message_size}) must be at least frame_size ({self.frame_size})"
            )
