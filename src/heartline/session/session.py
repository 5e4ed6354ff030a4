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
frames are not sent again: PINGs and ACKs are void with their link, and credit is told again. After a goodbye
nothing is kept and nothing acknowledged: the session ends with its link, and an ACK that finds the peer's
socket closed would have the system throw away what that peer had sent.
"""

from __future__ import annotations

import hmac
import struct
from typing import TypeAlias

import msgspec

from heartline.errors import LocalProtocolError, RemoteProtocolError
from heartline.session.assembly import Assembly
from heartline.session.heartbeat import Heartbeat, Pulse
from heartline.session.inbound import Inbound
from heartline.session.lanes import Lanes
from heartline.session.messages import (
    CONFIRMATION,
    HELLO_SIZE,
    MARK,
    GoAway,
    Hello,
    PeerLimits,
    Refuse,
    Welcome,
    parse,
    render,
    shorten,
    terms_of,
)
from heartline.session.outbox import Buffer, Outbox
from heartline.session.pace import Pace
from heartline.session.replay import Replay
from heartline.session.reports import Reports
from heartline.session.states import TRANSITIONS, Role, State, Step
from heartline.session.windows import Windows
from heartline.wire import Flag, Frame, FrameType, Limits
from heartline.wire.limits import LEAST_ITEMS

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
        "_inbound",
        "_lanes",
        "_limits",
        "_pace",
        "_reports",
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
        self._reports = Reports()
        # The link's own.
        self._inbound = Inbound(limits)
        self._pace = Pace(limits.replay_buffer)

    # The handshake and the goodbye

    def hello(
        self,
        *,
        identity: str | None = None,
        credentials: object = None,
        resume: tuple[bytes, int] | None = None,
        attempt: tuple[bytes, int] | None = None,
    ) -> None:
        """Client: open the session; ``resume`` is the :attr:`ticket` of the one that should go on here.

        ``attempt`` is a name that nobody else knows and a number that grows with each HELLO: at a server a
        newer one replaces an older one, and never the other way round.

        Raises :class:`SerializationError` for credentials that cannot be sent, and
        :class:`LocalProtocolError` for ones too long.
        """
        hello = Hello(
            **terms_of(self._limits, self.pulse.timeout),
            identity=identity,
            credentials=credentials,
            resume=resume,
            attempt=attempt,
        )
        payload = render(hello)
        most = min(HELLO_SIZE, self._limits.frame_size)
        if len(payload) > most:
            raise LocalProtocolError(
                f"the credentials make a HELLO of {len(payload)} bytes, it may have {most}"
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
        assert isinstance(self.peer, Hello)
        # They have been checked. A session that kept them would let every client fill memory with them.
        self.peer = msgspec.structs.replace(self.peer, credentials=None)
        self.token = token
        answer = Welcome(
            **terms_of(self._limits, self.pulse.timeout),
            session=session_id,
            token=token,
            resumed=resumed,
            received=received,
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
        following = self._state_after(Step.RESUME)
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
        self._inbound = other._inbound
        # PINGs, PONGs and ACKs are void with their link. The handshake told the count; what came behind the
        # WELCOME is not in it.
        self._reports.void()
        self._reports.any_due = self._windows.tell_again()
        self._reports.peer_knows(self.received, other._reports.unacked, self.pulse.heard)
        self.replay.rewind()
        self.outbox.take_control()
        for frame in other.outbox.take_control():  # the WELCOME
            self.outbox.put_encoded_control(frame)

    def let_go(self) -> None:
        """The session is over: forget what it holds, for whatever refers to it may live on."""
        self._assembly = Assembly(self._limits)
        self.replay = Replay(self._limits.replay_buffer)
        self.outbox.clear()

    def _step(self, step: Step) -> None:
        self.state = self._state_after(step)

    def _state_after(self, step: Step) -> State:
        """The state that a step leads to; raises :class:`ProtocolError` when the step cannot be taken now."""
        following = TRANSITIONS.get((self.role, self.state, step))
        if following is None:
            error = RemoteProtocolError if "RECEIVE" in step.name else LocalProtocolError
            raise error(f"cannot {step.value} while the {self.role.value} side is {self.state.value}")
        return following

    # Receiving

    def receive(self, data: bytes, now: float) -> list[Event]:
        """What these bytes bring; raises :class:`RemoteProtocolError` after the last good event.

        When good events precede the error in the same bytes they are returned first, and :attr:`failed` is
        set: the next call raises, even for no bytes. So the events never depend on how the bytes were cut.
        """
        self.pulse.heard = now
        if data:
            self._spent_token = b""
        events: list[Event] = []
        inbound = self._inbound
        try:
            if inbound.offence is not None:
                raise inbound.offence
            if self.state is _OPEN and not inbound.held_back:
                frames = inbound.feed(data)
            else:
                # A client in the handshake looks at the WELCOME alone: what follows may be for the session
                # that is resumed, which is another one, and goes on with this decoder then.
                shakes_hands = self.state is State.GREETING and self.role is Role.CLIENT
                frames = inbound.feed_held_back(data, one=shakes_hands)
            rest = iter(frames)
            for frame in rest:
                if frame.type < _FIRST_SEQUENCED:
                    event = self._on_control(frame, now)
                    if event is not None:
                        events.append(event)
                    continue
                message = self._on_sequenced(frame)
                if message is not None:
                    events.append(message)
                    if message is not frame and len(message.payload) > LEAST_ITEMS:
                        # The last bytes of many long messages fit in one read, and each takes its time.
                        inbound.held_back = [*rest]
        except RemoteProtocolError as error:
            inbound.offence = error
            if not events:
                raise
        if self.state is _OPEN:
            self._reports.add_received(len(data), self.received)
        return events

    def _on_sequenced(self, frame: Frame) -> Frame | None:
        """Count a frame, and take it for its lane; gives the message that it completes."""
        if self.state is not _OPEN and self.state is not _LEAVING:
            raise RemoteProtocolError(f"{FrameType(frame.type).name} while the session is {self.state.value}")
        self.received += 1
        if frame.flags & _MORE or self._assembly.halves:
            whole = self._assembly.add(frame)
            if whole is None:
                return None
            frame = whole
        # Lanes know whole messages only: a long CALL opens its lane with its last fragment.
        if (frame.channel or frame.type <= _LAST_LANE) and self._windows.receive(frame):
            self._assembly.drop(frame.channel)
        return frame

    @property
    def failed(self) -> bool:
        """Whether the peer broke the protocol; :meth:`receive` raises the error, even for no bytes."""
        return self._inbound.has_offence

    @property
    def holds_back(self) -> bool:
        """Whether :meth:`receive` may have something to give, or an error to raise, even for no bytes.

        It came after a handshake, after as many frames as are given at a time, or after a long message, or
        the peer broke the protocol after them.
        """
        inbound = self._inbound
        return inbound.more or inbound.offence is not None or bool(inbound.held_back)

    def receive_eof(self) -> None:
        """The stream has ended; raises :class:`RemoteProtocolError` if that was inside a frame."""
        self._inbound.close()

    def _on_control(self, frame: Frame, now: float) -> Event | None:
        if frame.channel:
            raise RemoteProtocolError(
                f"{FrameType(frame.type).name} on channel {frame.channel}: control is channel 0"
            )
        match frame.type:
            case FrameType.HELLO:
                if len(frame.payload) > HELLO_SIZE:
                    raise RemoteProtocolError(f"a HELLO of {len(frame.payload)} bytes, of {HELLO_SIZE}")
                return self._on_greeting(Step.RECEIVE_HELLO, parse(frame.payload, Hello))
            case FrameType.WELCOME:
                return self._on_greeting(Step.RECEIVE_WELCOME, parse(frame.payload, Welcome))
            case FrameType.REFUSE:
                return self._on_goodbye(Step.RECEIVE_REFUSE, parse(frame.payload, Refuse))
            case FrameType.GOAWAY:
                return self._on_goodbye(Step.RECEIVE_GOAWAY, parse(frame.payload, GoAway))
        if self.state is not State.OPEN and self.state is not State.LEAVING:
            raise RemoteProtocolError(f"{FrameType(frame.type).name} while the session is {self.state.value}")
        try:
            self._on_report(frame, now)
        except struct.error:
            raise RemoteProtocolError(f"{FrameType(frame.type).name} of {len(frame.payload)} bytes") from None
        return None

    def _on_report(self, frame: Frame, now: float) -> None:
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
                self._reports.pong_due = frame.payload[:8]
                self._reports.any_due = True

    def _confirm(self, count: int) -> None:
        if not self.confirmed <= count <= self.sent:
            raise RemoteProtocolError(
                f"{count} frames confirmed, after {self.confirmed} and of {self.sent} sent"
            )
        self.replay.drop(count - self.confirmed)
        self.confirmed = count
        self._pace.confirmed(count, self.pulse.heard)

    def _on_goodbye(self, step: Step, message: Event) -> Event:
        self._step(step)
        return message

    def _on_greeting(self, step: Step, greeting: Hello | Welcome) -> Hello | Welcome:
        following = self._state_after(step)
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
            self._reports.agree(greeting.replay_buffer, self.pulse.heard)
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

        It replaces all that waits on the lane: messages, also the rest of one that is under way, and an end
        that was put before. If our end has left, or there is no lane, nothing happens.
        """
        self.outbox.break_off(frame_type, channel, number, payload)

    def consume(self, channel: int, length: int) -> None:
        """The reader took a message of this length: the sender gets its credit back."""
        self._windows.consume(channel, length)
        self._reports.any_due = True

    # Sending

    def send(self, frame_type: int, channel: int, number: int, payload: bytes, flags: int = 0) -> None:
        """Queue a message. The caller has checked that the session's state allows it.

        OPEN, or a CALL that names a channel, opens a lane; CLOSE, RESET, and on the lane of a call RESULT and
        FAULT, end it. Raises :class:`LocalProtocolError` for what the peer would refuse: a message that is
        too long, a frame that the state of its lane does not allow, more lanes than it accepts.
        """
        self.outbox.put(frame_type, channel, number, payload, flags)

    def take(self, budget: int, now: float) -> list[Buffer]:
        """What to write now: control, what has to be sent again, and the next of what waits.

        At most about ``budget`` bytes of fragments after all that is small, and none while enough of them are
        under way; nothing new while the replay buffer is full. Nothing at all without a link: it would be
        lost with the last one.
        """
        if self.state is State.LOST:
            return []
        reports = self._reports
        if now >= reports.rides_at and self.received != reports.told_count and self.outbox.size:
            reports.ack_due = reports.any_due = True  # something is written anyway, so an ACK rides along
        if reports.any_due:
            self._put_reports(now)
        replay = self.replay
        buffers = self.outbox.take_control()
        if replay.due:
            buffers += replay.take(budget)
        # After a goodbye nothing is kept: the session ends with its link, so nothing holds it back either.
        keeps = self.resume_window > 0 and self.state is _OPEN
        if keeps:
            # What was sent again counts as under way, for it is kept: the budget may be below 0 from here on.
            budget = min(budget, int(self._pace.limit) - replay.size)
        # The peer counts frames, so nothing new goes before all of the old.
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

    def _put_reports(self, now: float) -> None:
        reports = self._reports
        for channel, returned in self._windows.take_due():
            self.outbox.put_control(FrameType.CREDIT, channel, CONFIRMATION.pack(returned))
        if reports.ping_due:
            self.pulse.ping_sent = now
        if reports.put(self.outbox, self.received, now, acknowledges=self.state is _OPEN):
            reports.peer_knows(self.received, self._inbound.buffered, now)

    @property
    def has_output(self) -> bool:
        """Whether :meth:`take` would give anything (or messages wait for credit, or for confirmations)."""
        return self.outbox.size > 0 or self._reports.any_due or self.replay.due

    @property
    def has_turns(self) -> bool:
        """Whether the next :meth:`take` would give more than what is small."""
        full = self.replay.size >= self._pace.limit and self.state is _OPEN
        return self.replay.due or (self.outbox.has_turns and not full)

    @property
    def held(self) -> int:
        """Bytes that this side holds: of what the peer sent and nobody took, and of what it has not confirmed
        or taken."""
        return (
            self._inbound.buffered
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
            self._reports.any_due = self._reports.ping_due = True
