"""Every bound that a peer can run into, with its unit and the reason of its default."""

from __future__ import annotations

from dataclasses import dataclass, fields

from heartline.errors import ConfigurationError

__all__ = ["LEAST_ITEMS", "SHARES", "SMALL_CALL", "Limits"]

KIB = 1024
MIB = 1024 * KIB

SHARES = 5
"""Parts of ``Limits.memory``: what holds one must not have to wait for what holds another."""

SMALL_CALL = 4 * KIB
"""Bytes; the payload of a call up to this length is not counted, for ``Limits.calls`` bounds these."""

LEAST_ITEMS = 16 * KIB
"""Items of one value that every peer takes: no item is shorter than a byte, so nothing need be counted in the
small messages that make up nearly all traffic, nor in the updates whose bytes many peers share."""

_SECONDS = frozenset({"handshake_timeout", "resume_window"})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What this side accepts from a peer, and holds in memory for it.

    The limits that the peer must know to keep (frame, message, items, memory, window, calls, channels) travel
    in the handshake.
    Every value but ``resume_window`` is above 0; a bad one raises :class:`~heartline.ConfigurationError`.

    Of messages and values:

    - ``frame_size``: bytes of payload in one frame.
    - ``message_size``: bytes of one message, call or update.
    - ``items``: elements of lists and keys of maps in one value.
    - ``memory``: bytes that one connection can make this side hold.
    - ``window``: bytes that may wait on a channel for its reader.
    - ``write_buffer``: bytes that wait for a slow peer before senders wait.

    Of what peers do:

    - ``calls``: calls in progress that it may have here.
    - ``channels``: channels that it has open, beside the default one.
    - ``subscriptions``: subscriptions that it has to topics of this side.
    - ``topics``: topics of this side that were declared or published; one more is an error of its publisher.
    - ``events``: events kept for a reader that falls behind.

    Of sessions, and of a server:

    - ``resume_window``: seconds for which a session outlives its link.
    - ``replay_buffer``: bytes sent that the peer has not confirmed.
    - ``lost_buffer``: bytes that all lost sessions of a server hold together.
    - ``handshake_timeout``: seconds from the opening of a link to the end of its handshake.
    - ``handshakes``: streams of a server that are shaking hands.
    - ``handshakes_per_host``: of these, those from one IP address.
    - ``connections``: connections of a server.
    """

    frame_size: int = 256 * KIB
    """Bytes of payload in one frame. Messages take turns frame by frame, so a frame should take well under a
    millisecond over loopback. At most 16 MiB - 1: the first byte of a native stream is zero."""

    message_size: int = 64 * MIB
    """Bytes of one message put together from fragments: a model of 16 million float32 numbers."""

    items: int = 256 * KIB
    """Items of one value: what its lists and maps hold, and the keys of these; at least 16,384. They are
    counted before the value is built, for an empty list takes one byte of a message and 56 of memory. So many
    take up to 40 MiB and 0.3 s of processor time; an array is one item, however long. It is as many as
    ``frame_size`` has bytes."""

    memory: int = 384 * MIB
    """Bytes that one connection can make this side hold; see :ref:`budget`. A fifth each, and each enough for
    one message of ``message_size``, goes to the halves of messages, to the arguments of calls in progress, to
    unread messages that exceed their windows, and to answers and updates that the peer has not read. The last
    fifth holds what has a setting of its own."""

    window: int = 256 * KIB
    """Bytes that may wait on a channel for its reader: enough to keep a loopback connection busy."""

    handshake_timeout: float = 10.0
    """Seconds from the opening of the link to the end of the handshake; then a silent peer is dropped."""

    calls: int = 1024
    """Calls in progress that the peer may have here. One more waits at the peer; one that is made in a method
    for which these calls may wait fails there with ``Overloaded``, and so does here one that comes all the
    same."""

    channels: int = 256
    """Channels that the peer has open, beside the default one; each may hold a ``window``."""

    events: int = 256
    """Events kept for a reader of :meth:`events` that falls behind; the oldest beyond that are dropped and
    counted."""

    write_buffer: int = 1 * MIB
    """Bytes that wait for a slow peer before senders and publishers wait, and broadcasts skip the peer."""

    resume_window: float = 60.0
    """Seconds for which a session outlives its link, if the peer agrees to as many; 0: not at all. A minute
    outlasts a router's restart and a change of networks."""

    replay_buffer: int = 4 * MIB
    """Bytes sent that the peer has not confirmed, kept to be sent again; at the limit nothing new is
    sent. The write that reaches this limit may exceed it by its small frames and one fragment. Enough for
    300 Mbit/s over a round trip of 100 ms."""

    lost_buffer: int = 256 * MIB
    """Bytes that the lost sessions of a server hold together; beyond, those that were lost first end. A mass
    of clients that leave large transfers behind must not fill the memory for a window. As many again may be
    held in unread messages of connections that have ended."""

    handshakes: int = 256
    """Streams of one server that are shaking hands; for one more, the oldest whose greeting is not
    complete makes room. A handshake takes a round trip, so this many let in thousands of clients per second;
    silent peers take no more places than these, and hold nobody else up."""

    handshakes_per_host: int = 128
    """Streams that may shake hands at once from one IP address (for IPv6: from one /64). Half of
    ``handshakes``, so that no host alone can take all places, and one host that stands for many clients, such
    as a proxy, has enough. Streams without an IP address, such as Unix sockets, do not count."""

    connections: int = 10_000
    """Connections of one server: 100 MiB at 10 KiB for an idle one, and below the usual limit of descriptors.
    Lost connections whose sessions wait count too, but make room for new clients."""

    subscriptions: int = 1024
    """Subscriptions of one peer to topics of this side; one more is refused. Each may have a window of 256
    updates or 1 MiB under way, and one to a topic that was never published keeps that topic in memory."""

    topics: int = 8192
    """Topics of this side that were declared or published; one more is an error of its publisher. At 1 KiB
    each, while they are empty, it is 8 MiB."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds, number = ((int, float), "number") if field.name in _SECONDS else (int, "whole number")
            zero = field.name == "resume_window" and value == 0
            if not isinstance(value, kinds) or isinstance(value, bool) or not (value > 0 or zero):
                least = "of at least 0" if field.name == "resume_window" else "above 0"
                raise ConfigurationError(f"Limits.{field.name} must be a {number} {least}, not {value!r}")
        if self.frame_size >= 16 * MIB:
            raise ConfigurationError(f"Limits.frame_size must be below 16 MiB, not {self.frame_size!r}")
        if self.items < LEAST_ITEMS:
            raise ConfigurationError(f"Limits.items must be at least {LEAST_ITEMS}, not {self.items!r}")
        if self.message_size < self.frame_size:
            raise ConfigurationError(
                f"Limits.message_size ({self.message_size}) must be at least frame_size ({self.frame_size})"
            )
        self._check_memory()

    def _check_memory(self) -> None:
        if self.message_size > self.share:
            raise ConfigurationError(
                f"Limits.memory ({self.memory}) must be at least {SHARES} times message_size "
                f"({self.message_size})"
            )
        windows, calls = (self.channels + 1) * self.window, self.calls * SMALL_CALL
        settled = windows + calls + self.replay_buffer + self.write_buffer
        if settled > self.share:
            raise ConfigurationError(
                f"Limits.memory ({self.memory}) must be at least {SHARES} times the {settled} bytes of "
                f"(channels + 1) * window + calls * {SMALL_CALL} + replay_buffer + write_buffer"
            )

    @property
    def share(self) -> int:
        """Bytes of each part of ``memory``."""
        return self.memory // SHARES
