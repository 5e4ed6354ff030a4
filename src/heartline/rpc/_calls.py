"""The calls of one connection, in both directions.

A waiting caller is a parked task, which the answer wakes directly, without an event or a channel. Every
pending call ends: with an answer, with its caller's cancellation (the peer is told), or with the session.

Nothing here grows because a peer misbehaves. It may have ``Limits.calls`` calls in progress, among them those
whose answers are under way in fragments; as many handlers again may be cleaning up after a cancellation.
The long arguments of all of them are within a share of ``Limits.memory``. A caller that knows the share keeps
to half of it, for the callee counts a call that was cancelled until its handler has ended.

Nothing is begun, and nothing answered, while the peer leaves answers unread: the link takes some small ones,
and a share of long ones. Meanwhile calls wait before they run, and those that have run wait with their
result.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from types import CoroutineType
from typing import Any, ClassVar

import outcome
import trio

from heartline.errors import (
    CallInterrupted,
    CallTimeout,
    ConnectionLost,
    HeartlineError,
    InvalidArguments,
    LocalProtocolError,
    Outcome,
    Overloaded,
    RemoteProtocolError,
    SerializationError,
)
from heartline.link import ConnectionState, Core, Link, LinkState, Unsent, current
from heartline.observe import Tell, sort_out
from heartline.rpc._faults import Fault, encode_fault, error_of, fault_of, named, without_data
from heartline.rpc._methods import Mode
from heartline.rpc._proxy import make_proxy
from heartline.rpc._running import run_async, run_inline
from heartline.rpc._table import Bound, ServiceTable
from heartline.rpc._wire import decode_call, encode_call
from heartline.wire import Frame, FrameType, convert, decode_body, decode_value, encode_value
from heartline.wire.limits import SMALL_CALL

__all__ = ["Calls", "waiting_for_this"]

_CALL, _RESULT, _FAULT, _CANCEL = FrameType.CALL, FrameType.RESULT, FrameType.FAULT, FrameType.CANCEL
_ANSWERS = (_RESULT, _FAULT)
_OPEN, _LOST = ConnectionState.OPEN, ConnectionState.LOST
_UP = LinkState.UP

Turn = tuple[Link, float, bytes, int]
"""The link on which a call can be sent now, the seconds left until the caller's deadline, its payload and
flags."""


class Calls:
    """The calls that one connection makes and serves."""

    __slots__ = ("_core", "_next", "_now", "_pending", "_running", "_sent", "_services", "_tasks", "held")

    family: ClassVar[int] = FrameType.CALL >> 4

    def __init__(self, services: ServiceTable, core: Core) -> None:
        self._services = services
        self._core = core
        self._now = trio.lowlevel.current_clock().current_time
        self._next = 0
        self._pending: dict[int, trio.lowlevel.Task] = {}
        self._running: dict[int, trio.CancelScope] = {}
        self._tasks = 0
        """Handlers that have not ended: those of ``_running``, and of calls that were cancelled."""
        self.held: int = 0
        """Bytes of their arguments, without those of small calls."""
        self._sent = 0
        """Bytes of the arguments of pending calls, without those of small ones."""

    def proxy(self, service: Any, retry: Any) -> Any:
        """A proxy for a service class or name."""
        return make_proxy(self, service, retry)

    @property
    def rng(self) -> random.Random:
        """The endpoint's source of jitter."""
        return self._core.setup.rng

    @property
    def closed(self) -> bool:
        """Whether no further call can succeed."""
        return self._core.state is ConnectionState.CLOSED

    @property
    def call_made(self) -> Tell | None:
        """The function that tells observers of a call that has ended, if any observer asks for that."""
        return self._core.setup.hooks.tell("call_made")

    async def wait_link(self) -> None:
        """Wait until there is a link, or never will be."""
        try:
            await self._core.wait_open()
        except HeartlineError:
            pass  # the next call says it better

    @property
    def idle(self) -> bool:
        """Whether no call is in progress, in either direction."""
        return not self._pending and not self._running

    # The caller's side

    # Ctrl-C is raised only where this waits: never between entering the call in _pending and waiting for its
    # answer, nor between taking bytes from the session and writing them.
    @trio.lowlevel.enable_ki_protection
    async def call(
        self,
        name: str,
        target: bytes,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        returns: Any,
        turn: Turn | None = None,
    ) -> Any:
        """Call a method of the peer and wait for its result, converted to the annotation ``returns``.

        The deadline of the scopes around the call travels with it. Every failure is a :class:`CallError`.
        Cancelling tells the peer, which cancels the method. ``turn`` is given by a caller that has just
        waited for it.
        """
        core, pending = self._core, self._pending
        link, timeout = core.link, trio.current_effective_deadline()
        if timeout != math.inf:
            timeout -= trio.current_time()
        if turn is None and (
            link is None
            or timeout <= 0
            or core.state is not _OPEN
            or not link.clear
            or len(pending) >= link.peer_limits.calls
        ):
            turn = await self._wait_turn(name, target, args, kwargs)
        if turn is not None:
            link, timeout, payload, flags = turn
        else:
            assert link is not None
            limits = link.peer_limits
            payload, flags = encode_call(core.setup.serializer, name, target, args, kwargs, timeout, limits)
            if len(payload) > SMALL_CALL:
                await self._wait_share(link, name, len(payload))
        size = len(payload)
        number = self._send(link, name, payload, flags)

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            del pending[number]
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            frame: Frame = await trio.lowlevel.wait_task_rescheduled(abort)
        except (trio.Cancelled, KeyboardInterrupt):
            # Not in ``abort``, which must not raise. Besides, Trio aborts the tasks of a scope in the order
            # of a set, which differs from run to run; the order of frames on the wire must not.
            if core.link is link:
                link.put(_CANCEL, 0, number, b"")
                core.leave_when_idle()
            raise
        except CallInterrupted as error:
            interrupted = CallInterrupted(f"{name}: {error}", outcome=error.outcome)
            raise named(interrupted, name) from error.__cause__
        finally:
            if size > SMALL_CALL:
                self._sent -= size
                link.wake()
        if frame.type != _RESULT:
            raise error_of(frame, name, timeout)
        try:
            value = decode_value(frame.payload, frame.flags, returns, most=core.setup.limits.items)
            return value if returns is Any or type(value) is returns else convert(value, returns)
        except SerializationError as error:
            why = f"{name} was executed, but its result cannot be used: {error}"
            raise named(InvalidArguments(why, outcome=Outcome.COMPLETED), name) from None

    @trio.lowlevel.enable_ki_protection
    async def call_within(
        self,
        limit: float,
        name: str,
        target: bytes,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        returns: Any,
    ) -> Any:
        """:meth:`call` with a timeout of its own, in seconds, beside the caller's deadline."""
        what = Outcome.NOT_SENT
        with trio.move_on_after(limit):
            turn = await self._wait_turn(name, target, args, kwargs)
            what = Outcome.MAYBE_EXECUTED
            return await self.call(name, target, args, kwargs, returns, turn)
        raise named(CallTimeout(f"{name} did not answer", timeout=limit, outcome=what), name)

    async def _wait_turn(
        self, name: str, target: bytes, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Turn:
        """Wait for room.

        Raises :class:`CallInterrupted` when there is no session, or none for new calls.
        """
        while True:
            link = await self._wait_room(name)
            timeout = _time_left()
            if timeout > 0:
                serializer, limits = self._core.setup.serializer, link.peer_limits
                payload, flags = encode_call(serializer, name, target, args, kwargs, timeout, limits)
                if len(payload) > SMALL_CALL:
                    await self._wait_share(link, name, len(payload))
                return link, timeout, payload, flags
            await trio.lowlevel.checkpoint()  # raises Cancelled, unless the deadline was moved just now

    async def _wait_room(self, name: str) -> Link:
        """Wait while the link is down or crowded, or the peer's limit of calls is reached."""
        core = self._core
        link = core.link
        if link is None or (core.state is not _OPEN and core.state is not _LOST):
            await trio.lowlevel.checkpoint()
            raise self._not_sent(name)
        pending, limit = self._pending, link.peer_limits.calls
        if core not in waiting_for_this():
            await self._wait(link, name, "calls", lambda: len(pending) < limit)
            return link
        # It must neither wait for these calls nor behind others that do: they may wait for it.
        await self._wait(link, name, "nested calls", lambda: True)
        if len(pending) >= limit:
            raise Overloaded(
                f"{name} was not called: {limit} calls are in progress at the peer (its Limits.calls), "
                "and may wait for the method that calls it",
                outcome=Outcome.NOT_SENT,
            )
        return link

    async def _wait_share(self, link: Link, name: str, size: int) -> None:
        """Wait, behind other long calls, until the peer has room for arguments of this size as well."""
        if self._core in waiting_for_this():
            return  # a handler must not wait for calls that wait for it: the peer refuses what is too much
        share, pending, limit = link.peer_limits.share // 2, self._pending, link.peer_limits.calls

        def fits() -> bool:
            return len(pending) < limit and (not self._sent or self._sent + size <= share)

        await self._wait(link, name, "long calls", fits)

    async def _wait(self, link: Link, name: str, what: str, fits: Callable[[], bool]) -> None:
        try:
            await link.wait(what, lambda: link.up and not link.crowded and fits())
        except ConnectionLost:
            raise self._not_sent(name) from None
        if self._core.link is not link or self._core.state is not _OPEN:
            raise self._not_sent(name)

    def _not_sent(self, name: str) -> CallInterrupted:
        reason = self._core.closed_error()
        error = CallInterrupted(f"{name} was not called: {reason}", outcome=Outcome.NOT_SENT)
        error.__cause__ = reason
        return named(error, name)

    def _send(self, link: Link, name: str, payload: bytes, flags: int) -> int:
        """Queue the CALL and note that this task waits for its answer; the call's id."""
        pending = self._pending
        number = self._next
        while number in pending:  # after four billion calls the ids begin again
            number = (number + 1) & 0xFFFFFFFF
        self._next = (number + 1) & 0xFFFFFFFF
        try:
            # A lone call leaves now; with others in flight it is joined with what this tick brings.
            link.put(_CALL, 0, number, payload, flags, at_once=not pending)
        except LocalProtocolError as error:
            why = f"{name} was not called: {error}"
            raise named(InvalidArguments(why, outcome=Outcome.NOT_SENT), name) from error
        pending[number] = trio.lowlevel.current_task()
        if len(payload) > SMALL_CALL:
            self._sent += len(payload)
        return number

    # Frames

    def on_frame(self, frame: Frame) -> None:
        """Handle a frame of the call family."""
        kind = frame.type
        if kind in _ANSWERS:
            task = self._pending.pop(frame.id, None)
            if task is not None:  # otherwise the caller was cancelled, and the answer crossed the CANCEL
                trio.lowlevel.reschedule(task, outcome.Value(frame))
                if self._core.state is ConnectionState.LEAVING:
                    self._core.leave_when_idle()
        elif kind == _CALL:
            self._on_call(frame)
        elif kind == _CANCEL:
            scope = self._running.pop(frame.id, None)
            if scope is not None:
                scope.cancel()
        else:
            raise RemoteProtocolError(f"{FrameType(kind).name} without a call that streams")

    def on_session_end(self, reason: HeartlineError, unsent: Unsent) -> None:
        """End every call: callers get an error that says what is known, handlers are cancelled."""
        not_sent = unsent(_CALL)
        for number, task in self._pending.items():
            what = Outcome.NOT_SENT if number in not_sent else Outcome.MAYBE_EXECUTED
            error = CallInterrupted(f"the connection was lost during the call: {reason}", outcome=what)
            error.__cause__ = reason
            trio.lowlevel.reschedule(task, outcome.Error(error))
        self._pending.clear()
        for scope in self._running.values():
            scope.cancel()
        self._running.clear()

    # The callee's side

    def _on_call(self, frame: Frame) -> None:
        core = self._core
        target, timeout, named, content_id, start = decode_call(frame.payload)
        number, lane = frame.id, frame.channel
        if number in self._running:
            raise RemoteProtocolError(f"CALL with id {number}, which is in progress")
        limits, link = core.setup.limits, core.link
        if link is None:  # the method before it, in the same read, has ended the session
            return
        limit = limits.calls
        if len(self._running) + link.answering >= limit or self._tasks >= 2 * limit:
            self._fault(number, Fault("overloaded", f"{limit} calls are in progress (Limits.calls)"), lane)
            return
        bound = self._services.methods.get(target)
        if bound is None:
            served = target.rpartition(b".")[0].decode(errors="replace") in self._services.names
            what = "public method" if served else "service"
            self._fault(number, Fault("unknown", f"the peer has no such {what}"), lane)
            return
        if lane:  # of its items; the answer ends it, and what comes there meanwhile is dropped
            self._fault(number, Fault("arguments", "the method takes and gives no stream of items"), lane)
            return
        size = len(frame.payload)
        if size <= SMALL_CALL:
            size = 0
        else:
            refusal = self._refuse_long(bound, size)
            if refusal is not None:
                self._fault(number, refusal)
                return
        try:
            annotation = Any if named else bound.spec.positional
            value = decode_body(content_id, frame.payload, frame.flags, annotation, start, limits.items)
            args, kwargs = _arguments(bound, value, named)
        except (HeartlineError, TypeError) as error:
            self._fault(number, Fault("arguments", str(error)))
            return
        if bound.mode is Mode.INLINE and link.clear:
            try:
                result = run_inline(bound, args, kwargs, self._now)
            except BaseException as error:
                self._fault(number, self._fault_of(bound, error))
                return
            if type(result) is not CoroutineType:
                self._result(link, number, bound, result)
                return
            # A decorator hides that the method is async.
            bound, args, kwargs = replace(bound, function=lambda: result, mode=Mode.TASK), (), {}
        timeout = min(timeout, bound.spec.options.timeout or math.inf)
        scope = trio.CancelScope(deadline=trio.current_time() + timeout)
        self._running[number] = scope
        self._tasks += 1
        self.held += size
        core.spawn(self._run, link, number, scope, timeout, bound, args, kwargs, size)

    def _refuse_long(self, bound: Bound, size: int) -> Fault | None:
        """Why a call that is not small cannot have so many bytes of arguments, if it cannot."""
        if bound.small:
            return Fault("arguments", f"a built-in method takes {SMALL_CALL} bytes, not {size}")
        if self.held + size > self._core.setup.limits.share:
            held = f"the arguments of the calls in progress hold {self.held} bytes (Limits.memory)"
            return Fault("overloaded", held)
        return None

    @trio.lowlevel.enable_ki_protection
    async def _run(
        self,
        link: Link,
        number: int,
        scope: trio.CancelScope,
        timeout: float,
        bound: Bound,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        size: int,
    ) -> None:
        """Run one call as a task; no answer is sent when the call was cancelled or the session has ended."""
        fault: Fault | None = None
        result = None
        try:
            with scope:
                if not link.clear:
                    await _wait_writable(link, "calls to begin")
                result = await run_async(bound, args, kwargs)
                if not link.clear:
                    await _wait_writable(link, "answers")
        except BaseException as errors:
            # Errors of cleaning up may stand in a group beside Cancelled: the scope takes out its own,
            # and one from around it goes on.
            fault = self._fault_of(bound, errors)
            if fault is None:
                return
        finally:
            self._tasks -= 1
            self.held -= size
        if self._running.get(number) is not scope:
            return
        del self._running[number]
        if fault is None and scope.cancelled_caught:
            fault = Fault("timeout", "its deadline passed at the peer", timeout=timeout)
        if fault is None:
            self._result(link, number, bound, result)
        else:
            self._fault(number, fault)
        self._core.leave_when_idle()

    def _fault_of(self, bound: Bound, error: BaseException) -> Fault | None:
        """What the caller is told: nothing if it was Ctrl-C, which ends the block. A cancellation goes on."""
        own, passing = sort_out(error)
        fault = None if own is None else fault_of(bound.log, own, self._core.setup.serializer)
        if passing is not None:
            self._core.setup.let_pass(passing)
        return fault

    def _result(self, link: Link, number: int, bound: Bound, result: Any) -> None:
        try:
            payload, flags = encode_value(self._core.setup.serializer, result, link.peer_limits)
            link.put(_RESULT, 0, number, payload, flags)
        except (SerializationError, LocalProtocolError) as error:
            wrong = type(error)(f"its result: {error}")
            self._fault(number, fault_of(bound.log, wrong, self._core.setup.serializer))

    def _fault(self, number: int, fault: Fault | None, lane: int = 0) -> None:
        if fault is None:
            return
        try:
            self._core.require_link().put(_FAULT, lane, number, encode_fault(fault))
        except LocalProtocolError as error:
            if fault.data:
                self._fault(number, without_data(fault, error))
            else:  # the peer's limits are too small even for a FAULT
                self._core.require_link().fail(ConnectionLost(f"the peer cannot be answered: {error}"))


def waiting_for_this() -> set[Core]:
    """The connections whose calls may wait for the code that runs now.

    They are the connection whose method is running here; those whose methods, running here, have called that
    peer, for the call that is running may come of theirs; and so on.
    """
    found: set[Core] = set()
    more = [_served_by(trio.lowlevel.current_task())]
    while more:
        core = more.pop()
        if core is not None and core not in found:
            found.add(core)
            calls = core.find_part(Calls)
            if calls is not None:
                more.extend(map(_served_by, calls._pending.values()))
    return found


def _served_by(task: trio.lowlevel.Task) -> Core | None:
    """The connection for whose call a task runs; ``None`` for one that a method only has left behind."""
    core = task.context.get(current)
    if core is not None:
        above: trio.lowlevel.Task | None = task
        while above is not None and (nursery := above.parent_nursery) is not None:
            if nursery is core.setup.nursery:
                return core
            above = nursery.parent_task
    return None


def _time_left() -> float:
    """Seconds until the deadline of the scopes around; minus infinity in a cancelled scope."""
    deadline = trio.current_effective_deadline()
    return deadline if deadline == math.inf else deadline - trio.current_time()


async def _wait_writable(link: Link, what: str) -> None:
    """Wait until answers have room on the link."""
    try:
        await link.wait(what, lambda: not link.laden)
    except ConnectionLost:
        await trio.sleep_forever()  # the call is cancelled with the session


def _arguments(bound: Bound, value: Any, named: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args, kwargs = value, {}
    if named and type(value) is list and len(value) == 2:
        args, kwargs = value
    if type(args) is not list or type(kwargs) is not dict:
        raise SerializationError("the arguments of a call are a list, or a list and a map")
    return bound.spec.arguments(args, kwargs)
