"""Acknowledged push: topics with a bounded history, subscriptions that survive the link, receipts."""

from heartline.push._log import Entry, History, TopicLog
from heartline.push._part import PushLayer, make_push
from heartline.push._publisher import Publisher, TopicStatistics
from heartline.push._receipt import Receipt
from heartline.push._subscription import Subscription
from heartline.push._types import NEWEST, OLDEST, Position, Since, SlowPolicy, Update

__all__ = [
    "NEWEST",
    "OLDEST",
    "Entry",
    "History",
    "Position",
    "Publisher",
    "PushLayer",
    "Receipt",
    "Since",
    "SlowPolicy",
    "Subscription",
    "TopicLog",
    "TopicStatistics",
    "Update",
    "make_push",
]
