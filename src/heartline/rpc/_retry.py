"""When a failed call may be repeated."""

from __future__ import annotations

from dataclasses import dataclass

from heartline.errors import CallError, ConfigurationError, InvalidArguments, Outcome, Overloaded
from heartline.link import Backoff

__all__ = ["Retry"]


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Says which failed calls are repeated: those that can be repeated without harm.

    A call that was not sent, or that an overloaded peer did not begin, is safe to repeat, and is. One that
    may have been executed is repeated only when its method is declared ``@method(idempotent=True)`` (or the
    proxy is dynamic and ``idempotent`` is set here). Errors of the method itself are never retried, since it
    ran; nor are calls whose arguments cannot be sent.

    Every attempt but the first waits for a link, as long as the connection takes to come back: put the call
    under a deadline if somebody waits for the result. Cancelling ends the attempts.

    - ``attempts``: attempts in all, with the first.
    - ``backoff``: the delays between them.
    - ``idempotent``: for proxies made by name, that every method may be repeated.
    """

    attempts: int = 3
    """Attempts in all. Three outlast the end of a session and one bad moment of the peer."""
    backoff: Backoff = Backoff(initial=0.1, maximum=5.0)  # noqa: RUF009 - frozen
    """The delays between attempts: shorter than those between connections, since a caller waits."""
    idempotent: bool = False
    """For proxies made by name, which know no declarations: every method may be repeated."""

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or self.attempts < 1:
            raise ConfigurationError(f"Retry.attempts must be at least 1, not {self.attempts!r}")
        if not isinstance(self.backoff, Backoff) or self.backoff.attempts is not None:
            raise ConfigurationError(
                f"Retry.backoff must be a Backoff without attempts, which Retry counts, not {self.backoff!r}"
            )
        if not isinstance(self.idempotent, bool):
            raise ConfigurationError(f"Retry.idempotent must be True or False, not {self.idempotent!r:.80}")

    def allows(self, error: CallError, *, idempotent: bool) -> bool:
        """Whether a call that failed with this error may be made again."""
        if isinstance(error, InvalidArguments):  # the same arguments would fail again
            return False
        if error.outcome is Outcome.NOT_SENT or isinstance(error, Overloaded):
            return True
        return error.outcome is Outcome.MAYBE_EXECUTED and (idempotent or self.idempotent)
