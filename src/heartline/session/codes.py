"""Why a connection is refused or closed, and whether trying again makes sense."""

from __future__ import annotations

import enum

__all__ = ["CloseCode"]


class CloseCode(enum.IntEnum):
    """The code of a REFUSE or GOAWAY.

    From 100 on a code is terminal: with the same settings the answer stays the same, so do not reconnect.
    A code that this version does not know is judged by the same rule.
    """

    NORMAL = 0
    """The peer has finished; a later connection is welcome."""
    GOING_AWAY = 1
    """The server restarts or drains."""
    OVERLOADED = 2
    """A limit of connections or of memory is reached."""
    HANDSHAKE_TIMEOUT = 3
    """The handshake did not end in time."""
    SLOW_CONSUMER = 4
    """The peer did not read the answers that it asked for."""
    INTERNAL_ERROR = 5
    """A bug on the closing side; its log has the traceback."""
    NO_SESSION = 6
    """The session to be resumed is not known, or the token is not its own: begin a new one."""
    IDENTITY_IN_USE = 7
    """Another client has this identity at the moment, and this one has not proved that it may have it."""

    PROTOCOL_ERROR = 100
    """The peer broke the protocol."""
    UNSUPPORTED_VERSION = 101
    """No protocol version in common."""
    UNAUTHENTICATED = 102
    """The credentials were not accepted."""
    REPLACED = 103
    """A newer connection with the same identity took over."""
    KICKED = 104
    """The application closed this connection and does not want it back."""

    @staticmethod
    def known(code: int) -> int:
        """The member with this value; a code of a later version as it is."""
        try:
            return CloseCode(code)
        except ValueError:
            return code

    @staticmethod
    def is_terminal(code: int) -> bool:
        """Whether reconnecting after this code is pointless."""
        return code >= CloseCode.PROTOCOL_ERROR
