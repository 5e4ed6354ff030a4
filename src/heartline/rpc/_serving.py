"""The calls that a peer makes here: each is checked, run and answered.

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
from dataclasses import replace
from types import CoroutineType
from typing import Any

import trio

from heartline.errors import (
    ConnectionLost,
    HeartlineError,
    LocalProtocolError,
    RemoteProtocolError,
    SerializationError,
)
from heartline.link import Core, Link
from heartline.observe import sort_out
from heartline.rpc._faults import Fault, encode_fault, fault_of, without_data
from heartline.rpc._methods import Mode
from heartline.rpc._running import run_async, run_inline
from heartline.rpc._table import Bound, ServiceTable
from heartline.rpc._wire import decode_call
from heartline.wire import Frame, FrameType, decode_body, encode_value
from heartline.wire.limits import SMALL_CALL

__all__ = ["Serving"]

_RESULT, _FAULT = FrameType.RESULT, FrameType.FAULT


class Serving:
    """The callee's side of the calls of one connection.

    A base class and not an object beside the caller's side: what runs for each call takes no step more.
    """

    __slots__ = ("_core", "_now", "_running", "_services", "_tasks", "held")

    def __init__(self, services: ServiceTable, core: Core) -> None:
        self._services = services
        self._core = core
        self._now = trio.lowlevel.current_clock().current_time
        self._running: dict[int, trio.CancelScope] = {}
        self._tasks = 0
        """Handlers that have not ended: those of ``_running``, and of calls that were cancelled."""
        self.held: int = 0
        """Bytes of their arguments, without those of small calls."""

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

    def _cancel_running(self) -> None:
        """Cancel every call: the session that would bring the answers has ended."""
        for scope in self._running.values():
            scope.cancel()
        self._running.clear()


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
