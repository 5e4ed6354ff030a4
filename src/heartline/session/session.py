"""The session: bytes and the time in, frames and bytes out.

It answers PINGs, counts sequenced frames, keeps credit and puts fragments together by itself; what is left
for the caller comes out of :meth:`Session.receive`: whole messages as frames, and the handshake's and the
goodbye's messages as objects. The caller writes what :meth:`Session.take` gives, and calls
:meth:`Session.check` when its time has come.

Counting. Every frame that is not control has a position: the first one sent on a session is 1. The receiver
counts them too and tells its count in every PING, PONG and ACK. The count never falls and never exceeds what
was sent.

Resuming. Frames are kept until they are confirmed. When the link is lost, the next one begins with a
handshake, on a session of its own; in it both sides tell their counts, and :meth:`Session.resume` goes on
with the link on which that was done: what the peer has not received is sent again, first and in order. The
rest of the state (half messages, windows, what waits) was never the link's, so it simply stays. Control
frames are not sent again: PINGs and ACKs are void with their link, and credit is told anew. After a goodbye
nothing is kept and nothing acknowledged: the session ends with its link, and an ACK that finds the peer's
socket closed would have the system throw away what that peer had sent.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence
from typing import TypeAlias

from heartline.errors import LocalProtocolError, RemoteProtocolError
from heartline.session.assembly import Assembly
from heartline.session.heartbeat import Heartbeat, Pulse
from heartline.session.lanes import Lanes
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
from heartline.session.outbox import Buffer, Outbox
from heartline.session.pace import Pace
from heartline.session.receipts import Receipts
from heartline.session.replay import Replay
from heartline.session.states import TRANSITIONS, Role, State, Step
from heartline.session.windows import Windows
from heartline.wire import Flag, Frame, FrameDecoder, FrameType, Limits

__all__ = ["Event", "Session"]

Event: TypeAlias = Frame | Hello | Welcome | Refuse | GoAway

_FIRST_SEQUENCED = FrameType.OPEN
_LAST_LANE = FrameType.RESET
_MORE = int(Flag.MORE)
_OPEN = State.OPEN
_LEAVING = State.LEAVING


class Session:
    """One session, on one link after the other, without I/O, clock or chance."""

    __slots__ = (
        "_asked",
        "_assembly",
        "_decoder",
        "_due",
        "_error",
        "_held",
        "_lanes",
        "_limits",
        "_pace",
        "_ping",
        "_pong",
        "_receipts",
        "_spent_token",
        "_windows",
        "confirmed",
        "outbox",
        "peer",
        "pulse",
        "received",
        "replay",
        "resume_window",
        "role",
        "sent",
        "state",
        "token",
    )

    def __init__(self, role: Role, *, limits: Limits, heartbeat: Heartbeat, now: float) -> None:
        self.role: Role = role
        self.state: State = State.NEW
        self.pulse: Pulse = Pulse(heartbeat, now)
        lanes = Lanes(role, limits)
        self.outbox: Outbox = Outbox(limits, lanes)
        self.peer: Hello | Welcome | None = None
        self.sent: int = 0
        """Sequenced frames handed to the transport."""
        self.received: int = 0
        """Sequenced frames received."""
        self.confirmed: int = 0
        """Sequenced frames that the peer says it received."""
        self.replay: Replay = Replay(limits.replay_buffer)
        self.resume_window: float = 0.0
        """Seconds for which the session outlives its link, as agreed in the handshake; 0: it does not."""
        self.token: bytes = b""
        """What resumes the session, once."""
        self._spent_token = b""
        self._asked = False
        self._limits = limits
        self._assembly = Assembly(limits)
        self._lanes = lanes
        self._windows = Windows(lanes)
        self._receipts = Receipts()
        # The link's own.
        self._decoder = FrameDecoder(limits)
        self._held: Sequence[Frame] = ()
        self._pace = Pace(limits.replay_buffer)
        self._error: RemoteProtocolError | None = None
        # Said once with the next take, however often it became due: a peer that never reads costs no more.
        self._due = False  # whether there is anything like that: a PING, a PONG, credit or an ACK
        self._ping = False
        self._pong: bytes | None = None

    # The handshake and the goodbye

    def hello(
        self,
        *,
        identity: str | None = None,
        credentials: object = None,
        resume: tuple[bytes, int] | None = None,
        attempt: tuple[bytes, int] | None = None,
    ) -> None:
        """Client: open the session; ``resume`` is the :attr:`ticket` of the one that shall go on here.

        ``attempt`` is a name that no other client has and a number that grows with each HELLO: a server does
        not let an older one take the place of a newer one.

        Raises :class:`SerializationError` for credentials that cannot be sent, and
        :class:`LocalProtocolError` for ones too long.
        """
        hello = Hello(
            version=VERSION,
            limits=PeerLimits.of(self._limits),
            heartbeat_timeout=self.pulse.timeout,
            identity=identity,
            credentials=credentials,
            resume=resume,
            attempt=attempt,
            resume_window=self._limits.resume_window,
            replay_buffer=self._limits.replay_buffer,
        )
        payload = render(hello)
        if len(payload) > self._limits.frame_size:
            raise LocalProtocolError(
                f"the credentials make a HELLO of {len(payload)} bytes, more than a frame"
            )
        self._step(Step.SEND_HELLO)
        self._asked = resume is not None
        self.outbox.put_control(FrameType.HELLO, payload=payload)

    def welcome(
        self, session_id: str, *, token: bytes = b"", resumed: bool = False, received: int = 0
    ) -> None:
        """Server: let the client in, under this id.

        With ``token`` the session can be resumed. ``resumed`` says that this link is for an older session,
        which has received so many frames, and will :meth:`resume` on it.
        """
        self._step(Step.SEND_WELCOME)
        self.token = token
        answer = Welcome(
            version=VERSION,
            session=session_id,
            limits=PeerLimits.of(self._limits),
            heartbeat_timeout=self.pulse.timeout,
            token=token,
            resumed=resumed,
            received=received,
            resume_window=self._limits.resume_window,
            replay_buffer=self._limits.replay_buffer,
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

    # Resuming

    @property
    def resumable(self) -> bool:
        """Whether the session would outlive its link now."""
        return self.resume_window > 0 and bool(self.token) and self.state in (_OPEN, State.LOST)

    @property
    def ticket(self) -> tuple[bytes, int]:
        """Client: what a HELLO has to say to resume this session."""
        return self.token, self.received

    def admits(self, ticket: tuple[bytes, int], limits: PeerLimits) -> bool:
        """Server: whether this ticket resumes this session.

        Not if the token is not its own, if the peer lacks frames that are not kept any more, or has other
        limits than it had. Until the client has shown that it has the new token the one that it used last is
        good too: the WELCOME that brought the new one may have been lost, and the next one as well.
        """
        token, received = ticket
        good = hmac.compare_digest(token, self.token)
        spent = bool(self._spent_token) and hmac.compare_digest(token, self._spent_token)
        return (
            self.resumable
            and (good or spent)
            and self.confirmed <= received <= self.sent
            and limits == self.outbox.limits
        )

    def lose(self) -> None:
        """The link is lost, and the session waits for another one."""
        self._step(Step.LOSE)

    def resume(self, other: Session, received: int) -> None:
        """Go on with the link on which ``other`` has shaken hands; the peer has received so many frames.

        Raises :class:`RemoteProtocolError` when the peer cannot have received so many, or has other limits
        than it had: what is half sent was cut by those.
        """
        following = self._behind(Step.RESUME)
        if other.outbox.limits != self.outbox.limits:
            raise RemoteProtocolError("the peer resumes the session with other limits than it had")
        self._confirm(received)
        self.state = following
        greeting = other.peer
        self._spent_token = greeting.resume[0] if isinstance(greeting, Hello) and greeting.resume else b""
        self.token = other.token
        self.peer = greeting
        self._pace = Pace(self._limits.replay_buffer)
        self.pulse = other.pulse
        self._decoder, self._held, self._error = other._decoder, other._held, other._error
        self._ping = False
        self._pong = None
        self._due = self._windows.tell_again()
        # The handshake told the count; what came behind the WELCOME is not in it.
        self._receipts.told(self.received, other._receipts.unacked, self.pulse.heard)
        self.replay.rewind()
        self.outbox.take_control()
        for frame in other.outbox.take_control():  # the WELCOME
            self.outbox.put_encoded_control(frame)

    def _step(self, step: Step) -> None:
        self.state = self._behind(step)

    def _behind(self, step: Step) -> State:
        """The state behind a step; raises :class:`ProtocolError` when the step cannot be taken now."""
        following = TRANSITIONS.get((self.role, self.state, step))
        if following is None:
            error = RemoteProtocolError if "RECEIVE" in step.name else LocalProtocolError
            raise error(f"cannot {step.value} while the {self.role.value} side is {self.state.value}")
        return following

    # Receiving

    def receive(self, data: bytes, now: float) -> list[Event]:
        """What these bytes bring; raises :class:`RemoteProtocolError` behind the last good event.

        When good events precede the error in the same bytes they are returned first, and :attr:`failed` is
        set: the next call raises, even for no bytes. So the events never depend on how the bytes were cut.
        """
        self.pulse.heard = now
        if data:
            self._spent_token = b""
        events: list[Event] = []
        try:
            if self._error is not None:
                raise self._error
            for frame in (
                self._decoder.feed(data) if self.state is _OPEN and not self._held else self._few(data)
            ):
                event = self._control(frame, now) if frame.type < _FIRST_SEQUENCED else self._sequenced(frame)
                if event is not None:
                    events.append(event)
        except RemoteProtocolError as error:
            self._error = error
            if not events:
                raise
        if self.state is _OPEN and self._receipts.arrived(len(data), self.received):
            self._due = True
        return events

    def _few(self, data: bytes) -> list[Frame]:
        """What may be looked at now: for a client in the handshake only the WELCOME.

        What follows may be for an older session, and is held back until it is clear for which.
        """
        frames, self._held = [*self._held], ()
        try:
            frames += self._decoder.feed(data)
        except RemoteProtocolError:
            if not frames:
                raise
        if self.state is State.GREETING and self.role is Role.CLIENT:
            frames, self._held = frames[:1], frames[1:]
        return frames

    def _sequenced(self, frame: Frame) -> Frame | None:
        if self.state is not _OPEN and self.state is not _LEAVING:
            raise RemoteProtocolError(f"{FrameType(frame.type).name} while the session is {self.state.value}")
        self.received += 1
        if frame.flags & _MORE or self._assembly.parts:
            whole = self._assembly.add(frame)
            if whole is None:
                return None
            frame = whole
        if (frame.channel or frame.type <= _LAST_LANE) and self._windows.receive(frame):
            self._assembly.drop(frame.channel)
        return frame

    @property
    def failed(self) -> bool:
        """Whether the peer broke the protocol; :meth:`receive` raises the error, even for no bytes."""
        return self._error is not None or (self._decoder.failed and not self._held)

    @property
    def holds_back(self) -> bool:
        """Whether :meth:`receive` may have something to give, even for no bytes.

        It came behind a handshake, or with more frames than are given at a time.
        """
        return self._decoder.more or bool(self._held)

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
            (returned,) = CONFIRMATION.unpack(frame.payload)
            self.outbox.grant(frame.id, returned)
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
                self._due = True

    def _confirm(self, count: int) -> None:
        if not self.confirmed <= count <= self.sent:
            raise RemoteProtocolError(
                f"{count} frames confirmed, after {self.confirmed} and of {self.sent} sent"
            )
        self.replay.drop(count - self.confirmed)
        self.confirmed = count
        self._pace.confirmed(count, self.pulse.heard)

    def _told(self, step: Step, message: Event) -> Event:
        self._step(step)
        return message

    def _agree(self, step: Step, greeting: Hello | Welcome) -> Hello | Welcome:
        following = self._behind(step)
        if isinstance(greeting, Welcome) and greeting.resumed and not self._asked:
            raise RemoteProtocolError("the peer resumes a session where none was named")
        self.state = following
        self.peer = greeting
        self.pulse.agree(greeting.heartbeat_timeout)
        self.outbox.open(greeting.limits)
        if isinstance(greeting, Welcome):
            self.token = greeting.token
        self.resume_window = min(self._limits.resume_window, greeting.resume_window)
        if self.resume_window:
            self._receipts.agree(greeting.replay_buffer, self.pulse.heard)
        return greeting

    # Lanes: channels, and the streams of calls

    def next_channel(self) -> int:
        """A free number for a lane that this side will open, with OPEN or with a CALL.

        Numbers go round, and none is used twice soon. Raises :class:`LocalProtocolError` when as many are
        open as the peer accepts.
        """
        return self._lanes.next_number()

    def abandon(self, channel: int) -> None:
        """The peer has ended a channel: what waits there is not sent any more. Our CLOSE must come next."""
        self.outbox.abandon(channel)

    def break_off(self, frame_type: int, channel: int, number: int = 0, payload: bytes = b"") -> None:
        """End our direction of a lane at once, by RESET or by the answer to its call.

        It goes in the place of all that waits on the lane: messages, also the rest of one that is under way,
        and an end that was put before. Where our end has left, or there is no lane, nothing happens.
        """
        self.outbox.break_off(frame_type, channel, number, payload)

    def consume(self, channel: int, length: int) -> None:
        """The reader took a message of this length: the sender gets its credit back."""
        self._windows.consume(channel, length)
        self._due = True

    # Sending

    def send(self, frame_type: int, channel: int, number: int, payload: bytes, flags: int = 0) -> None:
        """Queue a message. Whether the session's state allows it is for the caller to have looked at.

        OPEN, or a CALL that names a channel, opens a lane; CLOSE, RESET, and on the lane of a call RESULT and
        FAULT, end it. Raises :class:`LocalProtocolError` for what the peer would refuse: a message that is
        too long, a frame that the state of its lane does not allow, more lanes than it accepts.
        """
        self.outbox.put(frame_type, channel, number, payload, flags)

    def take(self, budget: int, now: float) -> list[Buffer]:
        """What to write now: control, what has to be sent again, and the next of what waits.

        At most about ``budget`` bytes of fragments behind all that is small, and none while enough of them is
        under way; nothing new while as much as may be is kept unconfirmed. Nothing at all without a link: it
        would be lost with the one before.
        """
        if self.state is State.LOST:
            return []
        receipts = self._receipts
        if now >= receipts.rides_at and self.received != receipts.count and self.outbox.size:
            receipts.due = self._due = True
        if self._due:
            self._put_due(now)
        replay = self.replay
        buffers = self.outbox.take_control()
        if replay.due:
            buffers += replay.take(budget)
        keeps = self.resume_window > 0 and self.state is _OPEN
        if keeps:
            budget = min(budget, int(self._pace.limit) - replay.size)
        if not replay.due and not (keeps and replay.full):
            new, count = self.outbox.take(budget, fragments=budget > 0 or not keeps)
            if count:
                self.sent += count
                if keeps:
                    if len(new) > 1:
                        # Not views of long messages: each would keep the whole of one.
                        new = [b"".join(new)]
                    replay.keep(new, count)
                    self._pace.sent(self.sent, replay.size, now)
                buffers = buffers + new if buffers else new
        if buffers:
            self.pulse.spoke = now
        return buffers

    def _put_due(self, now: float) -> None:
        put = self.outbox.put_control
        receipts = self._receipts
        ack = receipts.due and self.state is _OPEN  # not behind a goodbye
        for channel, returned in self._windows.take_due():
            put(FrameType.CREDIT, channel, CONFIRMATION.pack(returned))
        if self._pong is not None:
            put(FrameType.PONG, 0, self._pong + CONFIRMATION.pack(self.received))
        if self._ping:
            self.pulse.ping_sent = now
            put(FrameType.PING, 0, MARK.pack(now, self.received))
        if ack:
            put(FrameType.ACK, 0, CONFIRMATION.pack(self.received))
        if self._pong is not None or self._ping or ack:
            receipts.told(self.received, self._decoder.buffered, now)
        self._pong = None
        self._due = self._ping = receipts.due = False

    @property
    def has_output(self) -> bool:
        """Whether :meth:`take` would give anything (or messages wait for credit, or for confirmations)."""
        return self.outbox.size > 0 or self._due or self.replay.due

    @property
    def has_turns(self) -> bool:
        """Whether the next :meth:`take` would give more than what is small."""
        return self.replay.due or (self.outbox.has_turns and not (self._crowded and self.state is _OPEN))

    @property
    def _crowded(self) -> bool:
        """Whether as much is under way as the line carries, or as may be kept."""
        return self.replay.size >= self._pace.limit

    @property
    def held(self) -> int:
        """Bytes that this side holds: of what the peer sent and nobody took, and of what it has not confirmed
        or taken."""
        return (
            self._decoder.buffered
            + self._assembly.size
            + self._lanes.unread
            + self.outbox.held
            + self.replay.size
        )

    def check(self, now: float) -> float:
        """Queue a PING if one is due, and say when to check next; raises :class:`ConnectionLost`."""
        if self.pulse.ping_due(now):
            self.pulse.spoke = now
            self.ping()
        return self.pulse.next_check

    def ping(self) -> None:
        """Send a PING with the next :meth:`take`, where the state allows it."""
        if self.state is _OPEN or self.state is _LEAVING:
            self._due = self._ping = True
