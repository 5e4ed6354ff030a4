"""Who may resume a session: the client that names its token.

WELCOME brings the token, which nobody guesses, and resuming spends it: the WELCOME of the next link brings
another one. Until the client has shown that it has the new one, by whatever it sends on that link, the one
that it used last is good too: the WELCOME that brought the new one may have been lost, and the next one as
well.
"""

from __future__ import annotations

import hmac

__all__ = ["Tokens"]


class Tokens:
    """The token of one session, and the one before as long as it is good."""

    __slots__ = ("spent", "token")

    def __init__(self) -> None:
        self.token: bytes = b""
        """What resumes the session, once; empty for a session that cannot be resumed."""
        self.spent: bytes = b""
        """The one with which it was resumed last, until the client is known to have the new one; or empty."""

    def admit(self, token: bytes) -> bool:
        """Whether this token is good."""
        good = hmac.compare_digest(token, self.token)
        return good or self._is_spent(token)

    def _is_spent(self, token: bytes) -> bool:
        return bool(self.spent) and hmac.compare_digest(token, self.spent)

    def successor(self, used: bytes, fresh: bytes) -> bytes:
        """The token for who was admitted with the ``used`` one: a fresh one, or the last one once more.

        Whoever has the token before may be a try that was long under way, and the client may have the last
        one from a later try: so that one must stay good, and is given again.
        """
        return self.token if self._is_spent(used) else fresh
