"""How a session passes from one stream to the next, on a server.

Each stream has a task of its own. The task that *holds* the session serves it on its stream, and when that
is lost waits for another one. The task of a new stream requests the session. That ends the former stream, if
it has not ended yet, and its task hands the session over as soon as it has let go of the stream. There is one
request at a time: a newer request replaces an older one, and a task that gets a session which is requested
again passes it on at once. A request is withdrawn when its task ends. When the session ends, every request
fails.
"""

from __future__ import annotations

import enum

import trio

from heartline.errors import ConnectionLost
from heartline.link import Link

__all__ = ["TRANSITIONS", "Handover", "State", "Step"]


class State(enum.Enum):
    """Which tasks have or want the session of one link."""

    HELD = "held"
    """One task has it, and no other wants it."""
    WANTED = "wanted"
    """One task has it, and another waits for it."""
    OVER = "over"


class Step(enum.Enum):
    """What moves it."""

    REQUEST = "request"
    WITHDRAW = "withdraw"
    GRANT = "grant"
    END = "end"


TRANSITIONS: dict[tuple[State, Step], State] = {
    (State.HELD, Step.REQUEST): State.WANTED,
    (State.WANTED, Step.REQUEST): State.WANTED,
    (State.WANTED, Step.WITHDRAW): State.HELD,
    (State.WANTED, Step.GRANT): State.HELD,
    (State.HELD, Step.END): State.OVER,
    (State.WANTED, Step.END): State.OVER,
}


class _Request:
    """The wait of one task for the session."""

    __slots__ = ("granted", "task")

    def __init__(self) -> None:
        self.granted = False
        self.task = trio.lowlevel.current_task()

    def end(self, *, granted: bool) -> None:
        self.granted = granted
        trio.lowlevel.reschedule(self.task)


class Handover:
    """Hands the session of one link from task to task."""

    __slots__ = ("_link", "_request", "state")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._request: _Request | None = None
        self.state: State = State.HELD

    def _step(self, step: Step, *, granted: bool = False) -> None:
        """Take a step, which ends the present request, if there is one."""
        self.state = TRANSITIONS[self.state, step]
        request, self._request = self._request, None
        if request is not None:
            request.end(granted=granted)

    # Ctrl-C must not strike between asking and sleeping.
    @trio.lowlevel.enable_ki_protection
    async def request(self) -> bool:
        """Wait for the session, to go on with it on another stream; tells whether this task holds it now.

        Cancelling withdraws the request. A request that was granted can no longer be cancelled.
        """
        if self.state is State.OVER:
            return False
        self._step(Step.REQUEST)
        request = self._request = _Request()
        self._link.lose(ConnectionLost("another link took its place"))
        self._link.wake()

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            # Here, not after the wait: until this task runs again the session could be granted to it.
            self._request = None
            self._step(Step.WITHDRAW)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        return request.granted

    async def grant(self) -> bool:
        """Wait for a request, and grant it; ``False`` when the session cannot go on.

        Cancelling leaves the session with this task.
        """
        try:
            await self._link.wait(self, lambda: self.state is State.WANTED)
        except ConnectionLost:
            return False
        self._step(Step.GRANT, granted=True)
        return True

    def end(self) -> None:
        """End the session: a request for it fails."""
        self._step(Step.END)
