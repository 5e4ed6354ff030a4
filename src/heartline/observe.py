"""Hooks: what an endpoint tells observers, and what middleware stands around.

An :class:`Observer` is told what happens and changes nothing. *Middleware* stands around what a peer wants of this
endpoint, or its application publishes, and decides: it lets it go on, delays it, refuses it, or changes what comes of
it. Both are given to :func:`heartline.open_server` and :func:`heartline.open_connection`. What nobody asked for costs
nothing: of an observer only the methods that it overrides are called, and without middleware nothing is wrapped.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from heartline.errors import ConfigurationError

__all__ = ["Hooks", "Middleware", "Observer", "Operation", "Proceed", "Tell"]

logger = logging.getLogger("heartline.observe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What middleware stands around."""

    kind: Literal["admission", "call", "message", "subscribe", "publish"]
    """The admission of a peer in the handshake; a call of a method here; reading a message that has arrived;
    a subscription to a topic here; publishing an update by this endpoint's own application."""
    name: str
    """The method (``Service.method``), the channel of the message (``""`` for the default one), or the topic;
    of an admission the identity that the peer claims, or ``""``."""
    peer: str
    """The id of the peer's connection; ``""`` in an admission, which decides it, and of what is published.
    In calls and subscriptions :func:`heartline.current_connection` gives the connection."""
    subject: Any
    """Admission: the :class:`heartline.Peer`. Call: the arguments, as a tuple and a dictionary. Message and
    publish: the value. Subscribe: where it begins."""


Proceed: TypeAlias = Callable[[], Awaitable[Any]]
"""Goes on with the operation; gives what comes of it, or raises."""

Middleware: TypeAlias = Callable[[Operation, Proceed], Awaitable[Any]]
"""``async def middleware(operation, proceed)``: returns what ``await proceed()`` gave, or something in its place,
and awaits ``proceed`` at most once. To refuse it raises :class:`PermissionError` or
:class:`heartline.Overloaded`: a caller is told, a message is dropped. The first of several is the outermost."""


class Observer:
    """Is told what happens to an endpoint: subclass it and write the methods you want.

    They are called in the event loop and must be short; an error in one is logged and changes nothing.
    """

    def connection_opened(self, connection: Any) -> None:
        """A :class:`heartline.Connection` has its first link."""

    def connection_lost(self, connection: Any, reason: Exception) -> None:
        """The link is gone, and another one is waited for."""

    def connection_returned(self, connection: Any, *, resumed: bool) -> None:
        """There is another link; ``resumed``: with the same session."""

    def connection_closed(self, connection: Any, reason: Exception) -> None:
        """The end of a connection."""

    def peer_refused(self, address: str, code: int, reason: str) -> None:
        """A server turned a peer away in the handshake, with a :class:`heartline.CloseCode`."""

    def call_served(self, name: str, seconds: float, error: BaseException | None) -> None:
        """A method of this endpoint has run for a peer; ``error`` is what it raised, be it a cancellation."""

    def call_made(self, name: str, seconds: float, error: BaseException | None) -> None:
        """A call of this endpoint has ended."""

    def update_published(self, topic: str, offset: int, size: int) -> None:
        """An update of so many bytes got this offset."""


Tell: TypeAlias = Callable[..., None]
"""Calls one method of every observer that has it."""


class Hooks:
    """The observers and the middleware of one endpoint."""

    __slots__ = ("_observers", "middleware")

    def __init__(self, middleware: Iterable[Middleware] = (), observers: Iterable[Observer] = ()) -> None:
        self.middleware: tuple[Middleware, ...] = tuple(middleware)
        self._observers = tuple(observers)
        for one in self.middleware:
            if not callable(one):
                raise ConfigurationError(
                    f"middleware must be async functions of (operation, proceed), not {one!r:.80}"
                )
        for observer in self._observers:
            if not isinstance(observer, Observer):
                raise ConfigurationError(
                    f"observers must be heartline.Observer objects, not {observer!r:.80}"
                )

    def tell(self, event: str) -> Tell | None:
        """What tells the observers of such an event; ``None`` if no observer wants to know."""
        absent = getattr(Observer, event)
        methods = [getattr(one, event) for one in self._observers if getattr(type(one), event) is not absent]
        if not methods:
            return None

        def tell_all(*what: object, **more: object) -> None:
            for method in methods:
                try:
                    method(*what, **more)
                except Exception:
                    logger.exception("an observer raised in %s", event)

        return tell_all

    async def around(self, operation: Operation, proceed: Proceed) -> Any:
        """Go on with an operation through all middleware; raises what that, or the operation, raises."""
        for one in reversed(self.middleware):
            proceed = _inside(one, operation, proceed)
        return await proceed()


def _inside(one: Middleware, operation: Operation, proceed: Proceed) -> Proceed:
    return lambda: one(operation, proceed)
