"""A checker of calls: every call ends, and the caller is told the truth about what the callee did."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import final

from heartline.errors import CallError, Outcome, Overloaded, RemoteError
from heartline.testing._violation import Violation

__all__ = ["CallChecker"]


@dataclass
class _Call:
    idempotent: bool
    executed: int = 0
    ended: str | None = None
    refuted: bool = False
    """The caller was told that the call was not executed."""


@final
class CallChecker:
    """Every call ends, is executed at most once, and its outcome agrees with what the callee did.

    A result, and a :exc:`~heartline.RemoteError`, imply that the method ran.
    :attr:`~heartline.Outcome.NOT_SENT`, and :exc:`~heartline.Overloaded`, imply that it did not, and never
    will. :attr:`~heartline.Outcome.MAYBE_EXECUTED` implies nothing. A call is named by anything hashable that
    travels with it, such as an argument.
    """

    def __init__(self) -> None:
        self._calls: dict[Hashable, _Call] = {}

    def called(self, call: Hashable, *, idempotent: bool = False) -> None:
        """A caller begins; an ``idempotent`` call, which is retried, may be executed again and again."""
        if call in self._calls:
            raise Violation(f"call {call!r} was begun already: give each call a name of its own")
        self._calls[call] = _Call(idempotent)

    def executed(self, call: Hashable) -> None:
        """The callee runs the method; raises :exc:`Violation` if it must not."""
        known = self._known(call)
        known.executed += 1
        if known.refuted:
            raise Violation(f"call {call!r} was executed, although its caller was told: {known.ended}")
        if known.executed > 1 and not known.idempotent:
            raise Violation(f"call {call!r} was executed {known.executed} times")

    def returned(self, call: Hashable) -> None:
        """The caller has a result; raises :exc:`Violation` if it cannot have one."""
        self._end(call, "a result", must=True, must_not=False)

    def failed(self, call: Hashable, error: CallError) -> None:
        """The caller has an error; raises :exc:`Violation` if its outcome is wrong."""
        self._end(
            call,
            f"{type(error).__name__}, {error.outcome.value}",
            must=isinstance(error, RemoteError),
            must_not=error.outcome is Outcome.NOT_SENT or isinstance(error, Overloaded),
        )

    def abandoned(self, call: Hashable) -> None:
        """The caller has given up (it was cancelled, or crashed), and learns nothing."""
        self._end(call, "nothing", must=False, must_not=False)

    @property
    def pending(self) -> tuple[Hashable, ...]:
        """The calls that have not ended, in the order in which they began."""
        return tuple(name for name, call in self._calls.items() if call.ended is None)

    def finish(self) -> None:
        """Everything is over; raises :exc:`Violation` if a call is pending."""
        if self.pending:
            raise Violation(f"calls never ended: {', '.join(map(repr, self.pending))}")

    def _end(self, call: Hashable, how: str, *, must: bool, must_not: bool) -> None:
        known = self._known(call)
        if known.ended is not None:
            raise Violation(f"call {call!r} ended twice: with {known.ended}, then with {how}")
        known.ended, known.refuted = how, must_not
        if must and not known.executed:
            raise Violation(f"call {call!r} ended with {how}, but was never executed")
        if must_not and known.executed:
            raise Violation(f"call {call!r} ended with {how}, but was executed")

    def _known(self, call: Hashable) -> _Call:
        if call not in self._calls:
            raise Violation(f"call {call!r} came out of nowhere: nobody has begun it")
        return self._calls[call]
