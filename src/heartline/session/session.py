"""The session: bytes and the time in, frames and bytes out.

It answers PINGs, counts sequenced frames, keeps credit and puts fragments together by itself; what is left
for the caller comes out of :meth:`Session.receive`: whole messages as frames, and the handshake's and the
goodbye's messages as objects. The caller writes what :meth:`Session.take` gives, and calls
:meth:`Session.check` when its time has come.

Counting. Every frame that is not control has a position: the first one sent on a session is 1. The receiver
counts them too and tells its count in every PING and PONG; an ACK tells it without a PING. Nothing is
replayed yet, so no ACK is sent, but whoever sends one is understood. The count never exceeds what was sent.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

from heartline.errors import LocalProtocolError, RemoteProtocolError
from heartline.session.assembly import Assembly
from heartline.session.heartbeat import Heartbeat, Pulse
from heartline.session.messages import (
    CONFIRMATION,
    MARK,
    VERSION,
    GoAway,
    Hello,
    PeerLimits,
    Refuse,
    Welcome,
    parse,
    render,
    shorten,
)
from heartline.session.outbox import MESSAGE_COST, Buffer, Outbox
from heartline.session.states import TRANSITIONS, Role, State, Step
from heartline.wire import Flag, Frame, FrameDecoder, FrameType, Limits

__all__ = ["Event", "Session"]

Event: TypeAlias = Frame | Hello | Welcome | Refuse | GoAway

_FIRST_SEQUENCED = FrameType.OPEN
_LAST_LANE = FrameType.RESET
_MORE = int(Flag.MORE)
_OPEN = State.OPEN
_LEAVING = State.LEAVING


class Session:
    """One session on one link, without I/O, clock or chance."""

    __slots__ = (
        "_assembly",
        "_decoder",
        "_error",
        "_granted",
        "_limits",
        "_ping",
        "_pong",
        "_windows",
        "confirmed",
        "outbox",
        "peer",
        "pulse",
        "received",
        "role",
        "sent",
        "state",
    )

    def __init__(self, role: Role, *, limits: Limits, heartbeat: Heartbeat, now: float) -> None:
        self.role: Role = role
        self.state: State = State.NEW
        self.pulse: Pulse = Pulse(heartbeat, now)
        self.outbox: Outbox = Outbox(limits.write_buffer)
        self.peer: Hello | Welcome | None = None
        self.sent: int = 0
        """Sequenced frames handed to the transport."""
        self.received: int = 0
        """Sequenced frames received."""
        self.confirmed: int = 0
        """Sequenced frames that the peer says it received."""
        self._limits = limits
        self._decoder = FrameDecoder(limits)
        self._assembly = Assembly(limits)
        self._windows: dict[int, int] = {0: limits.window}
        # Said once with the next take, however often it became due: a peer that never reads costs no more.
        self._ping = False
        self._pong: bytes | None = None
        self._granted: dict[int, int] = {}
        self._error: RemoteProtocolError | None = None

    # The handshake and the goodbye

    def hello(self, *, identity: str | None = None, credentials: object = None) -> None:
        """Client: open the session.

        Raises :class:`SerializationError` for credentials that cannot be sent, and
        :class:`LocalProtocolError` for ones too long.
        """
        hello = Hello(
            version=VERSION,
            limits=PeerLimits.of(self._limits),
            heartbeat_timeout=self.pulse.timeout,
            identity=identity,
            credentials=credentials,
        )
        payload = render(hello)
        if len(payload) > self._limits.frame_size:
            raise LocalProtocolError(
                f"the credentials make a HELLO of {len(payload)} bytes, more than a frame"
            )
        self._step(Step.SEND_HELLO)
        self.outbox.put_control(FrameType.HELLO, payload=payload)

    def welcome(self, session_id: str) -> None:
        """Server: let the client in, under this id."""
        self._step(Step.SEND_WELCOME)
        answer = Welcome(
            version=VERSION,
            session=session_id,
            limits=PeerLimits.of(self._limits),
            heartbeat_timeout=self.pulse.timeout,
        )
        self.outbox.put_control(FrameType.WELCOME, payload=render(answer))

    def refuse(self, code: int, reason: str) -> None:
        """Server: turn the client away."""
        self._step(Step.SEND_REFUSE)
        refusal = Refuse(code=code, reason=shorten(reason))
        self.outbox.put_control(FrameType.REFUSE, payload=render(refusal))

    def go_away(self, code: int, reason: str, *, drain: float = 0.0) -> None:
        """Begin nothing new; what is in progress may end within ``drain`` seconds."""
        if not drain >= 0:
            raise LocalProtocolError(f"a link cannot drain for {drain} s")
        self._step(Step.SEND_GOAWAY)
        goodbye = GoAway(code=code, reason=shorten(reason), drain=drain)
        self.outbox.put_control(FrameType.GOAWAY, payload=render(goodbye))

    def end(self) -> None:
        """The link has ended."""
        self._step(Step.END)

    def _step(self, step: Step) -> None:
        following = TRANSITIONS.get((self.role, self.state, step))
        if following is None:
            error = RemoteProtocolError if "RECEIVE" in step.name else LocalProtocolError
            raise error(f"cannot {step.value} while the {self.role.value} side is {self.state.value}")
        self.state = following

    # Receiving

    def receive(self, data: bytes, now: float) -> list[Event]:
        """What these bytes bring; raises :class:`RemoteProtocolError` behind the last good event.

        When good events precede the error in the same bytes they are returned first, and :attr:`failed` is
        set: the next call raises, even for no bytes. So the events never depend on how the bytes were cut.
        """
        self.pulse.heard = now
        events: list[Event] = []
        try:
            if self._error is not None:
                raise self._error
            for frame in self._decoder.feed(data):
                event = self._control(frame, now) if frame.type < _FIRST_SEQUENCED else self._sequenced(frame)
                if event is not None:
                    events.append(event)
        except RemoteProtocolError as error:
            self._error = error
            if not events:
                raise
        return events

    def _sequenced(self, frame: Frame) -> Frame | None:
        self.received += 1
        if self.state is not _OPEN and self.state is not _LEAVING:
            raise RemoteProtocolError(f"{FrameType(frame.type).name} while the session is {self.state.value}")
        if frame.flags & _MORE or self._assembly.parts:
            whole = self._assembly.add(frame)
            if whole is None:
                return None
            frame = whole
        if frame.type <= _LAST_LANE:
            self._on_lane(frame)
        return frame

    @property
    def failed(self) -> bool:
        """Whether the peer broke the protocol; :meth:`receive` raises the error, even for no bytes."""
        return self._error is not None or self._decoder.failed

    def receive_eof(self) -> None:
        """The stream has ended; raises :class:`RemoteProtocolError` if that was inside a frame."""
        self._decoder.close()

    def _control(self, frame: Frame, now: float) -> Event | None:
        if frame.channel:
            raise RemoteProtocolError(
                f"{FrameType(frame.type).name} on channel {frame.channel}: control is channel 0"
            )
        match frame.type:
            case FrameType.HELLO:
                return self._agree(Step.RECEIVE_HELLO, parse(frame.payload, Hello))
            case FrameType.WELCOME:
                return self._agree(Step.RECEIVE_WELCOME, parse(frame.payload, Welcome))
            case FrameType.REFUSE:
                return self._told(Step.RECEIVE_REFUSE, parse(frame.payload, Refuse))
            case FrameType.GOAWAY:
                return self._told(Step.RECEIVE_GOAWAY, parse(frame.payload, GoAway))
        if self.state is not State.OPEN and self.state is not State.LEAVING:
            raise RemoteProtocolError(f"{FrameType(frame.type).name} while the session is {self.state.value}")
        try:
            self._keep_going(frame, now)
        except struct.error:
            raise RemoteProtocolError(f"{FrameType(frame.type).name} of {len(frame.payload)} bytes") from None
        return None

    def _keep_going(self, frame: Frame, now: float) -> None:
        """PING, PONG, ACK and CREDIT."""
        if frame.type == FrameType.CREDIT:
            (credit,) = CONFIRMATION.unpack(frame.payload)
            self.outbox.grant(frame.id, credit)
        elif frame.type == FrameType.ACK:
            self._confirm(CONFIRMATION.unpack(frame.payload)[0])
        else:
            ping_time, count = MARK.unpack(frame.payload)
            self._confirm(count)
            if frame.type == FrameType.PONG:
                self.pulse.pong(ping_time, now)
            else:
                # Only the latest is answered: a peer that sends PINGs and never reads costs one PONG.
                self._pong = frame.payload[:8]

    def _confirm(self, count: int) -> None:
        if not self.confirmed <= count <= self.sent:
            raise RemoteProtocolError(
                f"{count} frames confirmed, after {self.confirmed} and of {self.sent} sent"
            )
        self.confirmed = count

    def _told(self, step: Step, message: Event) -> Event:
        self._step(step)
        return message

    def _agree(self, step: Step, greeting: Hello | Welcome) -> Hello | Welcome:
        self._step(step)
        self.peer = greeting
        self.pulse.agree(greeting.heartbeat_timeout)
        self.outbox.open(greeting.limits)
        return greeting

    # Channels

    def open_channel(self, channel: int) -> None:
        """Open a channel, or our direction of one that the peer opened."""
        if self._is_ours(channel):
            self._windows[channel] = self._limits.window
        self.outbox.open_channel(channel)

    def close_channel(self, channel: int) -> None:
        """Forget a channel that the peer ended: what was not begun on it is not sent any more."""
        self.outbox.close_channel(channel)

    def _is_ours(self, channel: int) -> bool:
        """Clients open channels with odd numbers, servers with even ones."""
        return channel % 2 == (self.role is Role.CLIENT)

    def consume(self, channel: int, length: int) -> None:
        """The reader took a message of this length: the sender gets its credit back."""
        if channel in self._windows:
            credit = length + MESSAGE_COST
            self._windows[channel] += credit
            self._granted[channel] = self._granted.get(channel, 0) + credit

    def _on_lane(self, frame: Frame) -> None:
        """The peer's direction of a channel lasts from its OPEN, or ours, to its CLOSE or RESET.

        That is seen to here, frame by frame: the events of a whole read come to the caller at once.
        """
        channel = frame.channel
        window = self._windows.get(channel)
        if frame.type == FrameType.OPEN:
            if window is not None or self._is_ours(channel):
                raise RemoteProtocolError(f"the peer cannot open channel {channel}")
            self._windows[channel] = self._limits.window
        elif window is None:
            raise RemoteProtocolError(f"{FrameType(frame.type).name} on channel {channel}, which is not open")
        elif frame.type == FrameType.DATA:
            if window <= 0:
                raise RemoteProtocolError(f"DATA on channel {channel} without credit (Limits.window)")
            self._windows[channel] = window - len(frame.payload) - MESSAGE_COST
        elif not channel:
            raise RemoteProtocolError(f"{FrameType(frame.type).name} on channel 0, which is always open")
        else:
            del self._windows[channel]
            self._granted.pop(channel, None)
            self._assembly.drop(channel)

    # Sending

    def send(self, frame_type: int, channel: int, number: int, payload: bytes, flags: int = 0) -> None:
        """Queue a message. Whether the state allows it is for the caller to have looked at."""
        self.outbox.put(frame_type, channel, number, payload, flags)

    def take(self, budget: int, now: float) -> list[Buffer]:
        """What to write now: at most about ``budget`` bytes of fragments behind all that is small."""
        if self._granted or self._pong is not None or self._ping:
            self._put_due(now)
        buffers, count = self.outbox.take(budget)
        self.sent += count
        if buffers:
            self.pulse.spoke = now
        return buffers

    def _put_due(self, now: float) -> None:
        put = self.outbox.put_control
        if self._pong is not None:
            put(FrameType.PONG, 0, self._pong + CONFIRMATION.pack(self.received))
            self._pong = None
        if self._ping:
            self.pulse.ping_sent = now
            put(FrameType.PING, 0, MARK.pack(now, self.received))
            self._ping = False
        for channel, credit in self._granted.items():
            put(FrameType.CREDIT, channel, CONFIRMATION.pack(credit))
        self._granted.clear()

    @property
    def has_output(self) -> bool:
        """Whether :meth:`take` would give anything (or messages wait for credit)."""
        return self.outbox.size > 0 or self._pong is not None or self._ping or bool(self._granted)

    def check(self, now: float) -> float:
        """Queue a PING if one is due, and say when to check next; raises :class:`ConnectionLost`."""
        if self.pulse.ping_due(now):
            self.pulse.spoke = now
            self._ping = self.state is _OPEN or self.state is _LEAVING
        return self.pulse.next_check
