"""Acknowledged push: topics with a bounded history, subscriptions that outlive sessions, receipts."""

from heartline.push._log import Entry, History, TopicLog
from heartline.push._part import Push
from heartline.push._publisher import Publisher, TopicStatistics
from heartline.push._receipt import Level, Receipt
from heartline.push._settings import Fold, TopicSettings
from heartline.push._sqlite import SqliteStore
from heartline.push._store import SavedKey, SavedState, SavedTopic, SavedUpdate, Store, StoredUpdate
from heartline.push._subscription import Subscription, subscribe
from heartline.push._types import Gap, OnGap, Position, Since, SlowPolicy, Update, WaitFor

__all__ = [
    "Entry",
    "Fold",
    "Gap",
    "History",
    "Level",
    "OnGap",
    "Position",
    "Publisher",
    "Push",
    "Receipt",
    "SavedKey",
    "SavedState",
    "SavedTopic",
    "SavedUpdate",
    "Since",
    "SlowPolicy",
    "SqliteStore",
    "Store",
    "StoredUpdate",
    "Subscription",
    "TopicLog",
    "TopicSettings",
    "TopicStatistics",
    "Update",
    "WaitFor",
    "subscribe",
]
