"""Each checker, at work in the whole federation, finds a component that is broken on purpose."""

from __future__ import annotations

from typing import Any

import pytest

from fuzz.world.federation import simulate
from heartline import Outcome
from heartline.connection._inbox import Inbox
from heartline.federated._stub import LearnerStub
from heartline.push._following import Following
from heartline.rpc import Calls
from heartline.server import Table
from heartline.session import Session
from heartline.session.windows import Windows
from heartline.testing import NotConverged, Violation
from heartline.wire import FrameType

pytestmark = pytest.mark.slow

SEEDS = 100


def found(match: str, *, first: int = 0) -> None:
    """One of some seeds finds it; whatever else is broken by it does not count.

    ``first`` saves time: no seed before it finds it at present.
    """
    for seed in range(first, first + SEEDS):
        try:
            simulate(seed)
        except Exception as error:
            if any(match in text for text in _violations(error)):
                return
    pytest.fail(f"none of {SEEDS} seeds found it")


def _violations(error: Exception) -> list[str]:
    """What the checkers have said, be it in a group: several nodes may fail at once."""
    if isinstance(error, ExceptionGroup):
        return [text for inner in error.exceptions for text in _violations(inner)]
    return [str(error)] if isinstance(error, (Violation, NotConverged)) else []


def test_what_is_not_sent_again_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Completeness: nothing is replayed, and the counts do not tell."""
    resume = Session.resume

    def forget(self: Session, other: Session, received: int) -> None:
        resume(self, other, received)
        self.replay.drop(self.sent - self.confirmed)
        self.confirmed = self.sent

    monkeypatch.setattr(Session, "resume", forget)
    monkeypatch.setattr(Session, "_confirm", lambda self, count: None)
    found("nobody was told of the gap", first=12)


def test_what_is_delivered_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No duplicates: the first message after each loss comes once more."""
    put = Inbox.put
    resumed: dict[Inbox, int] = {}

    def twice(self: Inbox, frame: Any) -> None:
        put(self, frame)
        count = self.core.statistics().resumed
        if resumed.get(self, 0) < count:
            resumed[self] = count
            put(self, frame)

    monkeypatch.setattr(Inbox, "put", twice)
    found(" came twice")


def test_a_gap_that_is_not_told_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gap = Following._on_gap

    def hush(self: Following, *gap: Any, **more: Any) -> None:
        on_gap(self, *gap, **more)
        self._waiting.pop()

    monkeypatch.setattr(Following, "_on_gap", hush)
    found("nobody was told of the gap")


def test_a_receipt_that_comes_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Confirmed implies delivered: a subscriber that confirms what has only arrived."""
    deliver = Following.deliver

    def hasty(self: Following, frame: Any) -> None:
        deliver(self, frame)
        if self.number is not None and self._received > self._confirmed:
            self._confirmed = self.handled = self._received
            self._push.confirm(self.number, self._received)

    monkeypatch.setattr(Following, "deliver", hasty)
    found("which has not handled it")


def test_an_outcome_that_is_not_true_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call whose session ended is said not to have been sent."""
    end = Calls.on_session_end

    def pretend(self: Calls, reason: Any, unsent: Any) -> None:
        end(self, reason, lambda kind: set(self._pending) if kind == FrameType.CALL else unsent(kind))

    monkeypatch.setattr(Calls, "on_session_end", pretend)
    found(Outcome.NOT_SENT.value)


def test_a_call_that_never_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then an answer is dropped."""
    on_frame = Calls.on_frame

    def forgetful(self: Calls, frame: Any) -> None:
        if frame.type != FrameType.RESULT or frame.id % 20 != 7:
            on_frame(self, frame)

    monkeypatch.setattr(Calls, "on_frame", forgetful)
    found("pending calls", first=3)


def test_credit_that_nobody_gave_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credit comes back when a message arrives, not when it is read."""
    receive = Windows.receive

    def generous(self: Windows, frame: Any) -> bool:
        ends = receive(self, frame)
        if frame.type == FrameType.DATA:
            self.consume(frame.channel, len(frame.payload))
        return ends

    monkeypatch.setattr(Windows, "receive", generous)
    monkeypatch.setattr(Inbox, "take", lambda self: self.frames.popleft()[0])
    found("more than the window and one message")


def test_what_is_left_behind_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations return to zero: a server that forgets to strike out who has gone."""
    monkeypatch.setattr(Table, "unregister", lambda self, core: None)
    found("something was left behind: registrations")


def test_a_model_that_goes_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions never go backwards: a learner's end that shows the model before once more."""
    receive = LearnerStub.receive

    def show_again(self: LearnerStub, push: Any) -> bool:
        before = self._current
        last = receive(self, push)
        if before is not None and self._on_push is not None:
            self._on_push(before.model, before.version)
        return last

    monkeypatch.setattr(LearnerStub, "receive", show_again)
    found("went back from version")
