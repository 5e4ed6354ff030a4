"""Every error heartline raises: one tree, one meaning each.

::

    HeartlineError
    ├── ConfigurationError (ValueError)      a setting or URL is wrong; raised when it is made
    ├── ConnectionFailed                     the connection could not be opened
    │   └── ConnectionRefusedByPeer          the peer answered, and said no
    ├── ConnectionLost                       the link broke: nobody said goodbye
    ├── ConnectionClosed                     closed on purpose, by you or by the peer
    ├── ProtocolError
    │   ├── LocalProtocolError               you did what the protocol does not allow
    │   └── RemoteProtocolError              the peer did
    ├── SerializationError                   a value cannot be encoded or decoded
    ├── CallError                            a call did not return a result
    │   ├── CallTimeout                      its deadline passed
    │   ├── CallInterrupted                  the session ended while it was pending
    │   ├── UnknownMethod                    no such public method at the peer
    │   ├── InvalidArguments                 the arguments or the result do not fit, or cannot be sent or read
    │   ├── RemoteError                      the method raised
    │   │   └── ApplicationError             the method raised an error that its callers expect
    │   ├── Overloaded                       the peer has no room; nothing was executed
    │   └── Forbidden                        the peer does not allow it
    └── PushError
        ├── HistoryGap                       updates that were missed are lost for good
        ├── SlowConsumer                     the subscription was ended: it lagged too far behind
        ├── StoreError                       a store cannot be opened, read or written
        └── KeyReused                        a key was published with another value before

Two more are defined beside what raises them: :class:`heartline.ChannelBroken`, because it is Trio's error too
and this module is below layers that know nothing of Trio; and :class:`heartline.federated.FederationFailed`,
which has a report of the last round.
"""

from __future__ import annotations

import enum
from typing import Any

__all__ = [
    "ApplicationError",
    "CallError",
    "CallInterrupted",
    "CallTimeout",
    "ConfigurationError",
    "ConnectionClosed",
    "ConnectionFailed",
    "ConnectionLost",
    "ConnectionRefusedByPeer",
    "Forbidden",
    "HeartlineError",
    "HistoryGap",
    "InvalidArguments",
    "KeyReused",
    "LocalProtocolError",
    "Outcome",
    "Overloaded",
    "ProtocolError",
    "PushError",
    "RemoteError",
    "RemoteProtocolError",
    "SerializationError",
    "SlowConsumer",
    "StoreError",
    "UnknownMethod",
]


class HeartlineError(Exception):
    """The root of every error of heartline's own."""


class ConfigurationError(HeartlineError, ValueError):
    """A setting or URL is wrong; the message names the field, the value and what would be right."""


class ConnectionFailed(HeartlineError):
    """The connection could not be opened; ``__cause__`` holds the system's error, if there is one."""


def name_of_code(code: int) -> str:
    """A :class:`heartline.CloseCode`, or a number that is none, as text for a person."""
    return code.name if isinstance(code, enum.IntEnum) else f"code {code}"


class ConnectionRefusedByPeer(ConnectionFailed):
    """The peer answered the handshake with REFUSE.

    ``code`` is a :class:`heartline.CloseCode`, ``reason`` is for a person, and ``terminal`` says that
    trying again with the same settings cannot succeed.
    """

    def __init__(self, code: int, reason: str, *, terminal: bool) -> None:
        super().__init__(f"the peer refused the connection: {reason} ({name_of_code(code)})")
        self.code = code
        self.reason = reason
        self.terminal = terminal


class ConnectionLost(HeartlineError):
    """The link broke without a goodbye: reset, end of stream, or silence beyond the heartbeat's timeout.

    It is raised when the session is over as well. While the session may be resumed, whatever can wait waits.
    """


class ConnectionClosed(HeartlineError):
    """The connection was closed on purpose.

    ``code`` is a :class:`heartline.CloseCode`; ``by_peer`` says which end did it.
    """

    def __init__(self, message: str, *, code: int, by_peer: bool) -> None:
        super().__init__(message)
        self.code = code
        self.by_peer = by_peer


class ProtocolError(HeartlineError):
    """The rules of the wire or of the session were broken."""


class LocalProtocolError(ProtocolError):
    """This side asked for something that the protocol does not allow in the present state."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol.

    ``offset`` is the position in the received byte stream at which the offending frame starts, or ``None``
    where no single position is at fault.
    """

    def __init__(self, message: str, *, offset: int | None = None) -> None:
        super().__init__(message if offset is None else f"{message} (at byte {offset} of the stream)")
        self.offset = offset


class SerializationError(HeartlineError):
    """A value cannot be encoded, or bytes cannot be decoded to a value."""


class Outcome(enum.Enum):
    """What is known about the execution of a call that failed.

    - ``NOT_SENT``: the peer cannot have seen the call, so repeating it is safe.
    - ``MAYBE_EXECUTED``: the call left this side and no answer came; repeat it only if it is idempotent.
    - ``COMPLETED``: the peer answered. It executed the call, or decided not to; the class of the error says
      which.
    """

    NOT_SENT = "not sent"
    MAYBE_EXECUTED = "maybe executed"
    COMPLETED = "completed"


class CallError(HeartlineError):
    """A call did not return a result; ``outcome`` says whether it may have been executed.

    Whatever makes a call fail, its caller gets one of these, whose message begins with the method's name.
    Only cancellation is not one of them: it stays Trio's.
    """

    method: str = ""
    """The method that was called, ``Service.method``; empty in an error that a method has made itself."""

    def __init__(self, message: str, *, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


class CallTimeout(CallError):
    """The call's deadline passed; ``timeout`` is what it was given, in seconds."""

    def __init__(self, message: str, *, timeout: float, outcome: Outcome) -> None:
        super().__init__(f"{message} (timeout: {timeout * 1000:.0f} ms)", outcome=outcome)
        self.timeout = timeout


class CallInterrupted(CallError):
    """The session ended while the call was pending, or there was none to begin with; ``__cause__`` says how.

    A lost link alone does not do that: the call goes on when the session is resumed.
    """


class UnknownMethod(CallError):
    """The peer has no such service, or the service no such public method."""


class InvalidArguments(CallError):
    """The arguments, or the result, do not fit the method's annotations, or cannot be sent or read.

    Arguments that cannot be sent, or are longer than the peer accepts, are :attr:`~Outcome.NOT_SENT`;
    ``__cause__`` says what is wrong with them. Any other case is :attr:`~Outcome.COMPLETED`: the callee did
    not accept the arguments, or the method ran and its result is no use here. A result that the callee cannot
    send is a :class:`RemoteError`.
    """


class RemoteError(CallError):
    """The method raised at the peer.

    ``type_name`` is the name of the exception's class there. Tracebacks stay where they were raised, in the
    peer's log.
    """

    def __init__(self, message: str, *, type_name: str) -> None:
        super().__init__(message, outcome=Outcome.COMPLETED)
        self.type_name = type_name


CODE_SIZE = 64
"""Characters of the code of an :class:`ApplicationError`: a word or two for programs."""


class ApplicationError(RemoteError):
    """An error that is part of what a method does: callers expect it, and it is not logged.

    A method raises it with a ``code`` for programs (1 to 64 printable characters), a ``message`` for people,
    and ``data``, any value that can be sent except arrays, at most 4,096 bytes when it is encoded. The caller
    gets an ``ApplicationError`` with all three. Subclasses are raised like it, and arrive as an
    ``ApplicationError`` whose ``type_name`` is that of the subclass. Raises :class:`ConfigurationError` for
    what cannot be a code.

    It is for the method's own caller. If a method gets one from a call of its own and does not handle it, the
    error is logged and goes on as a plain :class:`RemoteError`: its code belongs to another method.
    """

    def __init__(self, message: str, *, code: str, data: Any = None) -> None:
        if not (isinstance(code, str) and 0 < len(code) <= CODE_SIZE and code.isprintable()):
            raise ConfigurationError(
                f"the code of an ApplicationError must be 1 to {CODE_SIZE} printable characters, "
                f"not {code!r:.80}"
            )
        super().__init__(message, type_name=type(self).__name__)
        self.message = message
        self.code = code
        self.data = data

    def __str__(self) -> str:
        return f"{self.method} raised {self.code}: {self.message}" if self.method else str(self.message)


class Overloaded(CallError):
    """The peer has no room for the call at the moment; nothing was executed, so repeating is safe.

    Its limit of calls in progress is reached, or its middleware raised this.
    """

    def __init__(self, message: str, *, outcome: Outcome = Outcome.COMPLETED) -> None:
        super().__init__(message, outcome=outcome)


class Forbidden(CallError):
    """The peer does not allow this caller to make this call."""


class PushError(HeartlineError):
    """Something about a topic or a subscription."""


class HistoryGap(PushError):
    """Updates that a subscription missed are lost for good; raised instead of a :class:`heartline.Gap`.

    ``first``, ``last`` and ``anew`` are those of the gap. The subscription goes on with the newest update, if
    one is retained: keep iterating.
    """

    def __init__(self, topic: str, *, first: int, last: int, anew: bool = False) -> None:
        if anew:
            lost = f" began again: what followed update {first - 1} of its life before is lost"
        elif last == first:
            lost = f": update {first} is lost"
        else:
            lost = f": updates {first} to {last} are lost"
        super().__init__(f"topic {topic!r}{lost}")
        self.topic = topic
        self.first = first
        self.last = last
        self.anew = anew


class SlowConsumer(PushError):
    """The subscriber lagged beyond what its policy allows, and the publisher ended the subscription."""


class StoreError(PushError):
    """A store cannot be opened, read or written; when ``publish`` raises it, the update was not published.

    If the server or the machine ends meanwhile, an update that was being written may be stored all the same,
    and is published when the topic is back: with a key it can safely be published again. ``__cause__`` holds
    the system's error, if there is one.
    """


class KeyReused(PushError):
    """A publish has the key of an earlier one and another value; nothing was published.

    ``offset`` is that of the earlier update. Give each update a key of its own.
    """

    def __init__(self, topic: str, *, key: str, offset: int) -> None:
        super().__init__(
            f"topic {topic!r}: the key {key!r:.80} is that of update {offset}, which has another value"
        )
        self.topic = topic
        self.key = key
        self.offset = offset
