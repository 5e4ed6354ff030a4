"""The session without I/O: handshake, heartbeat, turns between messages, counting, goodbye."""

from heartline.session.codes import CloseCode
from heartline.session.heartbeat import Heartbeat
from heartline.session.messages import GoAway, Hello, PeerLimits, Refuse, Welcome
from heartline.session.session import Session
from heartline.session.states import TRANSITIONS, Role, State, Step

__all__ = [
    "TRANSITIONS",
    "CloseCode",
    "GoAway",
    "Heartbeat",
    "Hello",
    "PeerLimits",
    "Refuse",
    "Role",
    "Session",
    "State",
    "Step",
    "Welcome",
]
