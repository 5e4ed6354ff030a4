"""The session without I/O: handshake, heartbeat, turns between messages, counting, goodbye."""

from heartline.session.codes import CloseCode
from heartline.session.heartbeat import Heartbeat
from heartline.session.lanes import LANE_TRANSITIONS, LaneState, LaneStep
from heartline.session.messages import GoAway, Hello, PeerLimits, Refuse, Welcome
from heartline.session.session import Session
from heartline.session.states import TRANSITIONS, Role, State, Step

__all__ = [
    "LANE_TRANSITIONS",
    "TRANSITIONS",
    "CloseCode",
    "GoAway",
    "Heartbeat",
    "Hello",
    "LaneState",
    "LaneStep",
    "PeerLimits",
    "Refuse",
    "Role",
    "Session",
    "State",
    "Step",
    "Welcome",
]
