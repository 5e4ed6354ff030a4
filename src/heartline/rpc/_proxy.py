"""Proxies: a remote service that looks like the object itself."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, final, overload

import trio

from heartline.errors import CallError, ConfigurationError, Outcome
from heartline.link import NoPublicConstructor
from heartline.observe import Tell, Watch
from heartline.rpc._methods import MethodSpec, describe
from heartline.rpc._retry import Retry
from heartline.rpc._service import check_name, check_service_name, service_name

__all__ = ["Proxy", "RemoteMethod", "make_proxy", "remote"]

P = ParamSpec("P")
R = TypeVar("R")


class Caller(Protocol):
    """What a proxy needs of a connection."""

    @property
    def rng(self) -> random.Random:
        """The source of jitter."""
        ...

    @property
    def closed(self) -> bool:
        """Whether no further call can succeed."""
        ...

    @property
    def call_made(self) -> Tell | None:
        """The function that tells observers of a call that has ended, if any observer asks for that."""
        ...

    async def wait_link(self) -> None:
        """Wait until there is a link, or never will be."""
        ...

    async def call(
        self, name: str, target: bytes, args: tuple[Any, ...], kwargs: dict[str, Any], returns: Any
    ) -> Any:
        """Make one call."""
        ...

    async def call_within(
        self,
        limit: float,
        name: str,
        target: bytes,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        returns: Any,
    ) -> Any:
        """Make one call with a timeout in seconds."""
        ...


class RemoteMethod(Generic[P, R], metaclass=NoPublicConstructor):
    """A method of a remote service, an attribute of a proxy; a call of it is awaited and returns the result.

    A typed proxy converts the result to the method's annotation, and raises :class:`InvalidArguments` if the
    result does not fit.
    """

    __slots__ = ("_caller", "_limit", "_name", "_retry", "_returns", "_spec", "_target")

    def __init__(self, caller: Caller, name: str, spec: MethodSpec | None, retry: Retry | None) -> None:
        self._caller = caller
        self._name = name
        self._target = name.encode()
        self._spec = spec
        self._returns = spec.returns if spec is not None else Any
        self._limit = spec.options.timeout if spec is not None else None
        self._retry = retry

    def __repr__(self) -> str:
        return f"<heartline.RemoteMethod {self._name}>"

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        """Call the method; to be awaited.

        Every failure raises a :class:`CallError`, whose ``outcome`` says whether the method may have run. A
        deadline of the scopes around travels with the call. Cancelling tells the peer, which cancels the
        method; how far the method came is not known.
        """
        # Not a coroutine of its own: one layer less to resume for each answer.
        if self._retry is None:
            return self._call_once(args, kwargs)
        return self._call_again(self._retry, args, kwargs)

    def _call_once(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        if self._limit is None:
            return self._caller.call(self._name, self._target, args, kwargs, self._returns)
        return self._caller.call_within(self._limit, self._name, self._target, args, kwargs, self._returns)

    async def _call_again(self, retry: Retry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        idempotent = self._spec is not None and self._spec.options.idempotent
        delays = retry.backoff.delays(self._caller.rng)
        attempts_left = retry.attempts
        maybe_executed = False
        while True:
            try:
                return await self._call_once(args, kwargs)
            except CallError as error:
                attempts_left -= 1
                maybe_executed = maybe_executed or error.outcome is Outcome.MAYBE_EXECUTED
                if not attempts_left or self._caller.closed or not retry.allows(error, idempotent=idempotent):
                    if maybe_executed and error.outcome is Outcome.NOT_SENT:
                        error.outcome = Outcome.MAYBE_EXECUTED  # by an earlier attempt
                    raise
            await trio.sleep(next(delays))
            await self._caller.wait_link()


class _ObservedMethod(RemoteMethod[P, R]):
    """A remote method that tells observers of its calls."""

    __slots__ = ()

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the method, and tell observers how the call ended."""
        tell = self._caller.call_made
        assert tell is not None, "without observers the proxy makes a RemoteMethod"
        with Watch(tell, self._name):
            return await super().__call__(*args, **kwargs)


@overload
def remote(method: Callable[P, Coroutine[Any, Any, R]], /) -> RemoteMethod[P, R]: ...
@overload
def remote(method: Callable[P, R], /) -> RemoteMethod[P, R]: ...
def remote(method: Any, /) -> RemoteMethod[..., Any]:
    """Tell type checkers that a method is remote, and awaited: ``await remote(calculator.add)(1, 2)``.

    A proxy made from a class has that class's type, so a sync method of it does not look awaitable, although
    every call through a proxy is awaited. Returns the method unchanged; raises :class:`ConfigurationError`
    for a method that is not a proxy's.
    """
    if not isinstance(method, RemoteMethod):
        raise ConfigurationError(
            f"remote is for methods of proxies, such as conn.service(...).add, not {method!r:.80}"
        )
    return method


@final
class Proxy(metaclass=NoPublicConstructor):
    """A remote service; its attributes are :class:`RemoteMethod` objects."""

    def __init__(
        self, caller: Caller, name: str, specs: dict[str, MethodSpec] | None, retry: Retry | None
    ) -> None:
        self._caller = caller
        self._name = name
        self._specs = specs
        self._retry = retry

    def __repr__(self) -> str:
        return f"<heartline.Proxy {self._name}>"

    def __getattr__(self, name: str) -> RemoteMethod[..., Any]:
        if name.startswith("_"):
            raise AttributeError(f"{name!r} cannot be called: names with an underscore are private")
        try:
            check_name("method name", name)
        except ConfigurationError as error:
            raise AttributeError(str(error)) from None
        spec = None
        if self._specs is not None:
            spec = self._specs.get(name)
            if spec is None:
                raise AttributeError(f"service {self._name!r} has no public method {name!r}")
        # Observers are not told of calls of built-in services, neither here nor where they are served.
        observed = self._caller.call_made is not None and not self._name.startswith("$")
        kind = _ObservedMethod if observed else RemoteMethod
        method: RemoteMethod[..., Any] = kind._create(self._caller, f"{self._name}.{name}", spec, self._retry)
        self.__dict__[name] = method  # found without __getattr__ from now on
        return method


def make_proxy(caller: Caller, service: Any, retry: Any) -> Proxy:
    """A proxy for a service class (typed) or name (dynamic)."""
    if retry is not None and not isinstance(retry, Retry):
        raise ConfigurationError(f"retry must be a heartline.Retry, not {retry!r:.80}")
    if isinstance(service, str):
        check_service_name(service)
        return Proxy._create(caller, service, None, retry)
    if isinstance(service, type):
        return Proxy._create(caller, service_name(service), describe(service), retry)
    raise ConfigurationError(f"service must be a service class or its name, not {service!r:.80}")
