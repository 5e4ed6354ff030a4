"""Hooks: what an endpoint tells its observers, and the middleware around its operations.

An :class:`Observer` is told what happens and changes nothing. *Middleware* stands around what peers ask of
this endpoint, and around what its own application publishes: it lets an operation go on, delays it, or
refuses it. Both are given to :func:`heartline.open_server` and :func:`heartline.open_connection`. What is
not used costs nothing: of an observer only the methods that it overrides are called, and without middleware
nothing is wrapped.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeAlias

import trio

from heartline.errors import ConfigurationError

__all__ = [
    "PASSING",
    "Hooks",
    "Middleware",
    "Observer",
    "Operation",
    "Proceed",
    "Tell",
    "Watch",
    "check_function",
    "is_async",
    "own_error",
    "report",
    "sort_out",
    "use_observer",
]

logger: logging.Logger = logging.getLogger("heartline.observe")

PASSING = (KeyboardInterrupt, SystemExit, trio.Cancelled)
"""What goes on wherever it is met, for it is meant for the whole program, or for Trio. Anything else that a
user's function raises is that function's failure alone, be it an :class:`Exception` or not: extensions, and
other event loops, have errors that are none."""


def sort_out(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """The part of an error that somebody's function is to blame for, and the part that goes on."""
    if isinstance(error, BaseExceptionGroup):
        passing, own = error.split(PASSING)
        return own, passing
    return (None, error) if isinstance(error, PASSING) else (error, None)


def own_error(error: BaseException) -> BaseException:
    """The same error, for the function alone is to blame; otherwise it is raised, with whatever is in it."""
    if sort_out(error)[1] is not None:
        raise error
    return error


def report(
    log: logging.Logger,
    error: BaseException,
    message: str,
    *args: object,
    admit: Callable[[], bool] | None = None,
) -> None:
    """Log what somebody's function is to blame for, with its traceback; what goes on is raised.

    ``admit`` tells whether it may be a line of its own; otherwise it is one at level DEBUG.
    """
    own, passing = sort_out(error)
    if own is not None:
        level = logging.ERROR if admit is None or admit() else logging.DEBUG
        log.log(level, message, *args, exc_info=own)
    if passing is not None:
        raise passing


def check_function(name: str, function: object, *arguments: str, may_be_async: bool = False) -> None:
    """Raise :class:`ConfigurationError` unless this is a function that can be called with these arguments.

    Where its result is used at once it must not be async either: nobody would await it.
    """
    if not callable(function):
        raise ConfigurationError(f"{name} must be callable, not {function!r:.80}")
    if not may_be_async and is_async(function):
        raise ConfigurationError(f"{name} must be a sync function: nobody awaits {function!r:.80}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have none
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise ConfigurationError(
            f"{name} must be a function of ({', '.join(arguments)}), not {function!r:.80}"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What middleware stands around."""

    kind: Literal["admission", "call", "message", "subscribe", "publish"]
    """A handshake in which a peer asks to be let in; a call of a method of this endpoint; a message that is
    read here; a subscription to a topic of this endpoint; an update that its own application publishes."""
    name: str
    """The method (``Service.method``), the channel of the message (``""`` for the default one), or the
    topic. For an admission, the identity that the peer claims, or ``""``."""
    peer: str
    """The id of the peer's connection. ``""`` for an admission, which decides the id, and for what is
    published. In calls and subscriptions :func:`heartline.current_connection` gives the connection
    itself."""
    subject: Any
    """Admission: the :class:`heartline.Peer`, with its credentials. Call: the arguments, as a tuple and a
    dictionary. Message and publish: the value. Subscribe: where the subscription begins, as it came over the
    wire."""


Proceed: TypeAlias = Callable[[], Awaitable[Any]]
"""Goes on with the operation; gives its result, or raises its error."""

Middleware: TypeAlias = Callable[[Operation, Proceed], Awaitable[Any]]
"""``async def middleware(operation, proceed)``, or an object whose ``__call__`` is one: awaits
``proceed()`` once to let the operation go on, and returns what that gave. The first of several is the
outermost.

To refuse an operation, raise :class:`PermissionError`, or :class:`heartline.Overloaded` if it may be tried
again later. What middleware returns for a call or a message takes the place of the result or of the
message. For the other kinds the result stays what it is, and to return without going on refuses them.
"""


class Observer:
    """Is told what happens to an endpoint: subclass it, and write the methods you want.

    They are called in the event loop, at the moment it happens, so they must be short. An error in one of
    them is logged and changes nothing.
    """

    def connection_opened(self, connection: Any) -> None:
        """A new :class:`heartline.Connection` has its first link."""

    def connection_lost(self, connection: Any, reason: Exception) -> None:
        """A connection has lost its link; another one follows, or the end.

        On a client this comes before the end too, unless it is closed in a cancelled scope; on a server only
        where the session may still be resumed.
        """

    def connection_returned(self, connection: Any, *, resumed: bool) -> None:
        """A connection has another link; ``resumed`` tells whether its session goes on."""

    def connection_closed(self, connection: Any, reason: Exception) -> None:
        """A connection has ended for good."""

    def peer_refused(self, address: str, code: int | None, reason: str) -> None:
        """This server refused a handshake, with a :class:`heartline.CloseCode`.

        ``None``: the peer could not be told one, since it was gone or speaks another protocol.
        """

    def call_served(self, name: str, seconds: float, error: BaseException | None) -> None:
        """A call of a method here has ended, its middleware included; ``error`` is what it raised.

        That may be :class:`trio.Cancelled`, when the caller gave up or the deadline passed.
        """

    def call_made(self, name: str, seconds: float, error: BaseException | None) -> None:
        """A call that this endpoint made has ended, with all its retries; ``error`` is what it raised."""

    def update_published(self, topic: str, offset: int, size: int) -> None:
        """An update has been published; ``size`` is that of its payload in bytes."""


Tell: TypeAlias = Callable[..., None]
"""Calls one method of every observer that has it."""


_observers: ContextVar[tuple[Observer, ...]] = ContextVar("heartline.observe.observers", default=())


def use_observer(observer: Observer) -> None:
    """Let every endpoint tell ``observer`` too that this task, or a task it starts, opens from now on.

    This is for a test harness, whose programs need not know of it.
    """
    _observers.set((*_observers.get(), observer))


class Hooks:
    """The observers and the middleware of one endpoint."""

    __slots__ = ("_tells", "admit", "middleware")

    def __init__(self, middleware: Iterable[Middleware] = (), observers: Iterable[Observer] = ()) -> None:
        for name, given in (("middleware", middleware), ("observers", observers)):
            if not isinstance(given, Iterable):
                raise ConfigurationError(f"{name} must be a list: {name}=[...], not {given!r:.80}")
        self.middleware: tuple[Middleware, ...] = tuple(middleware)
        observers = (*observers, *_observers.get())
        for one in self.middleware:
            if not is_async(one):
                raise ConfigurationError(
                    "middleware must be async functions: async def middleware(operation, proceed), "
                    f"not {one!r:.80}"
                )
            check_function("middleware", one, "operation", "proceed", may_be_async=True)
        for observer in observers:
            if not isinstance(observer, Observer):
                raise ConfigurationError(
                    f"observers must be heartline.Observer objects, not {observer!r:.80}"
                )
        events = [name for name in vars(Observer) if not name.startswith("_")]
        self.admit: Callable[[str], bool] = _always
        """Whether a line of this kind is written to the log."""
        self._tells = {event: self._make_tell(event, observers) for event in events}

    def tell(self, event: str) -> Tell | None:
        """What tells the observers of this event; ``None`` if none of them wants to know."""
        return self._tells[event]

    def _make_tell(self, event: str, observers: Iterable[Observer]) -> Tell | None:
        absent = getattr(Observer, event)
        methods = [getattr(one, event) for one in observers if getattr(type(one), event) is not absent]
        for method in methods:
            if is_async(method):
                raise ConfigurationError(f"observers' methods must be sync: nobody awaits {method!r:.80}")
        if not methods:
            return None

        def tell(*what: object, **more: object) -> None:
            for method in methods:
                try:
                    method(*what, **more)
                except BaseException as error:
                    admit = partial(self.admit, "observers raised")
                    report(logger, error, "an observer raised in %s", event, admit=admit)

        return tell

    @trio.lowlevel.disable_ki_protection  # middleware is the user's own code
    async def around(self, operation: Operation, proceed: Proceed) -> Any:
        """Go on with an operation through all middleware; gives and raises what the outermost one does.

        The only error in a group, such as that of a nursery in middleware, comes out by itself.
        """
        inmost = _Once(operation, proceed)
        proceed = inmost
        for one in reversed(self.middleware):
            proceed = partial(one, operation, proceed)
        try:
            return await proceed()
        except ExceptionGroup as group:
            error: Exception = group
        finally:
            inmost.spent = True
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error

    async def guard(self, operation: Operation, proceed: Proceed) -> Any:
        """As :meth:`around`, but what comes of the operation is its own result, whatever middleware returns.

        Raises :class:`PermissionError` when the operation was not done and nothing says why.
        """
        results = []

        async def keep() -> Any:
            results.append(await proceed())
            return results[0]

        await self.around(operation, keep)
        if not results:
            raise PermissionError(f"middleware did not go on with {operation.kind} {operation.name!r}")
        return results[0]


def _always(_kind: str) -> bool:
    return True


def is_async(function: object) -> bool:
    """Whether calling this gives something to await."""
    while isinstance(function, partial):
        function = function.func
    call = type(function).__call__ if callable(function) else None
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


class _Once:
    """An operation that middleware may begin once, until the outermost middleware has ended."""

    __slots__ = ("operation", "proceed", "spent")

    def __init__(self, operation: Operation, proceed: Proceed) -> None:
        self.operation = operation
        self.proceed = proceed
        self.spent = False

    async def __call__(self) -> Any:
        if self.spent:
            raise RuntimeError(
                f"middleware went on with {self.operation.kind} {self.operation.name!r} twice, or too late"
            )
        self.spent = True
        return await self.proceed()


class Watch:
    """A block that is a call: observers are told how long it took, and what it raised."""

    __slots__ = ("_goes_on", "_name", "_started", "_tell")

    def __init__(self, tell: Tell, name: str) -> None:
        self._tell = tell
        self._name = name
        self._started = trio.current_time()
        self._goes_on = False

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if not self._goes_on:
            self._tell(self._name, trio.current_time() - self._started, error)

    def go_on(self, rest: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """Let the call end with this coroutine, not with the block; awaiting what this gives ends it."""
        self._goes_on = True
        return self._end_with(rest)

    async def _end_with(self, rest: Coroutine[Any, Any, Any]) -> Any:
        self._goes_on = False
        with self:
            return await rest
