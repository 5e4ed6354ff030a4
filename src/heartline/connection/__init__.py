"""The connection as users hold it: its messages, channels and events, and what uses it."""

from heartline.connection._channels import Channel, ChannelBroken, encode_message
from heartline.connection._connection import (
    Announcer,
    Connection,
    ReceivedMessages,
    current_connection,
    face_of,
)
from heartline.connection._events import Closed, ConnectionEvent, Events, Lost, Opened, Reconnected
from heartline.connection._inbox import SharedInbox
from heartline.connection._lanes import Lanes
from heartline.connection._messages import Message, Messages

__all__ = [
    "Announcer",
    "Channel",
    "ChannelBroken",
    "Closed",
    "Connection",
    "ConnectionEvent",
    "Events",
    "Lanes",
    "Lost",
    "Message",
    "Messages",
    "Opened",
    "ReceivedMessages",
    "Reconnected",
    "SharedInbox",
    "current_connection",
    "encode_message",
    "face_of",
]
