"""Methods that are no plain functions: each works, or is refused when it is to be served."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trio

import heartline
from heartline import ConfigurationError, Observer, Operation, method, service
from heartline.observe import Proceed
from tests.rpc.helpers import open_pair


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A sync decorator, as most are."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def careless(function: Callable[..., Any]) -> Callable[..., Any]:
    """One that hides what it decorates."""

    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    return wrapper


def retried(function: Callable[..., Any]) -> Callable[..., Any]:
    """An async decorator around a method of either kind."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        result = function(*args, **kwargs)
        return await result if hasattr(result, "__await__") else result

    return wrapper


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """One that gives a coroutine only where it has to ask."""
    known: dict[int, int] = {}

    @functools.wraps(function)
    def wrapper(self: Any, x: int) -> Any:
        async def ask() -> int:
            known[x] = await function(self, x)
            return known[x]

        return known[x] if x in known else ask()

    return wrapper


class Described:
    """A decorator that is a class, such as those of libraries in C."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else functools.partial(self.function, instance)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


@service
class Decorated:
    factor = 2

    @logged
    async def double(self, x: int) -> int:
        await trio.lowlevel.checkpoint()
        return self.factor * x

    @careless
    async def hidden(self, x: int) -> int:
        await trio.lowlevel.checkpoint()
        return self.factor * x

    @logged
    @careless
    @logged
    async def deep(self, x: int) -> int:
        return self.factor * x

    @remembered
    async def known(self, x: int) -> int:
        return self.factor * x

    @logged
    def sync(self, x: int) -> int:
        return self.factor * x

    @logged
    @method(thread=True)
    def threaded(self, x: int) -> int:
        return self.factor * x

    @retried
    def made_async(self, x: int) -> int:
        return self.factor * x

    @retried
    @logged
    async def twice_async(self, x: int) -> int:
        return self.factor * x

    @functools.cache  # noqa: B019
    def cached(self, x: int) -> int:
        return self.factor * x

    @functools.lru_cache(maxsize=3)  # noqa: B019
    def bounded(self, x: int) -> int:
        return self.factor * x

    @staticmethod
    def static(x: int) -> int:
        return 2 * x

    @staticmethod
    @logged
    async def static_async(x: int) -> int:
        return 2 * x

    @classmethod
    def of_class(cls, x: int) -> int:
        return cls.factor * x

    @classmethod
    async def of_class_async(cls, x: int) -> int:
        return cls.factor * x

    def _times(self, factor: int, x: int) -> int:
        return factor * x

    partial = functools.partialmethod(_times, 2)

    @Described
    def described(self, x: int) -> int:
        return self.factor * x

    @Described
    async def described_async(self, x: int) -> int:
        return self.factor * x


NAMES = sorted(name for name in vars(Decorated) if not name.startswith("_") and name != "factor")


HIDDEN = {"hidden", "deep"}
"""Nothing is known of their arguments."""


async def through(_operation: Operation, proceed: Proceed) -> Any:
    return await proceed()


class Counting(Observer):
    def __init__(self) -> None:
        self.served: list[tuple[str, BaseException | None]] = []

    def call_served(self, name: str, seconds: float, error: BaseException | None) -> None:
        self.served.append((name, error))


@pytest.mark.parametrize("hooks", ["none", "middleware", "observer", "both"])
async def test_each_works(hooks: str) -> None:
    observer = Counting()
    settings: dict[str, Any] = {
        "middleware": [through] * (hooks in ("middleware", "both")),
        "observers": [observer] * (hooks in ("observer", "both")),
    }
    async with (
        heartline.open_server("memory://", services=[Decorated()], **settings) as server,
        heartline.open_connection(server.urls[0]) as client,
    ):
        for name in NAMES:
            for number in (4, 5, 4):  # a second time as well: what was awaited once cannot be again
                assert await getattr(client.service("Decorated"), name)(number) == 2 * number, name
                assert await getattr(client.service(Decorated), name)(number) == 2 * number, name
    if observer.served:
        assert observer.served == [(f"Decorated.{name}", None) for name in NAMES for _ in range(6)]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in HIDDEN])
async def test_arguments_are_checked_behind_the_decorator(name: str) -> None:
    async with open_pair(Decorated()) as (client, _):
        with pytest.raises(
            heartline.InvalidArguments, match=f"Decorated.{name}: argument 'x': Expected `int`"
        ):
            await getattr(client.service("Decorated"), name)("text")


@pytest.mark.parametrize("observed", [False, True])
async def test_a_hidden_async_method_has_its_deadline_and_its_errors(observed: bool) -> None:
    ended = trio.Event()

    @service
    class Hidden:
        @careless
        async def sleep(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.set()

        @careless
        async def fail(self) -> None:
            await trio.lowlevel.checkpoint()
            raise ValueError("no")

    observer = Counting()
    async with (
        heartline.open_server("memory://", services=[Hidden()], observers=[observer] * observed) as server,
        heartline.open_connection(server.urls[0]) as client,
    ):
        hidden: Any = client.service("Hidden")
        with pytest.raises(heartline.RemoteError, match=r"Hidden\.fail raised ValueError: no"):
            await hidden.fail()
        with trio.move_on_after(0.05):
            await hidden.sleep()
        with trio.fail_after(10):
            await ended.wait()
    if observed:
        assert [(name, type(error)) for name, error in observer.served] == [
            ("Hidden.fail", ValueError),
            ("Hidden.sleep", trio.Cancelled),
        ], "told at the end, once"


class Callable_:
    def __call__(self, x: int) -> int:
        return x


def generator(self: Any) -> Iterator[int]:
    yield 1


async def async_generator(self: Any) -> AsyncIterator[int]:
    yield 1


async def coroutine(self: Any) -> int:
    return 1


def dispatched(self: Any, x: Any) -> None: ...


def nameless(*args: Any, **kwargs: Any) -> None: ...


GENERATORS = "generators cannot be served; return a list, or publish to a topic"
NOT_CALLED = "cannot be called remotely; write a def that uses it, or begin its name with an underscore"
REFUSED: dict[str, tuple[Any, str]] = {
    "a partial": (functools.partial(print, 1), f"a partial {NOT_CALLED}"),
    "an object": (Callable_(), f"a Callable_ {NOT_CALLED}"),
    "a function in C": (len, f"a builtin_function_or_method {NOT_CALLED}"),
    "single dispatch": (functools.singledispatchmethod(dispatched), f"a singledispatchmethod {NOT_CALLED}"),
    "a generator": (generator, GENERATORS),
    "an async generator": (async_generator, GENERATORS),
    "a generator inside": (logged(generator), GENERATORS),
    "a context manager": (contextlib.contextmanager(generator), GENERATORS),
    "an async context manager": (contextlib.asynccontextmanager(async_generator), GENERATORS),
    "a static generator": (staticmethod(generator), GENERATORS),
    "a cached coroutine": (functools.cache(coroutine), "can be awaited only once; keep its results"),
    "one deeper": (logged(functools.cache(logged(coroutine))), "can be awaited only once; keep its results"),
    "a wrapper without a name": (nameless, "if a decorator hides it, let that use functools.wraps"),
    "async in a thread": (logged(method(thread=True)(logged(coroutine))), "thread=True is for sync methods"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("where", ["server", "client", "proxy"])
async def test_the_rest_is_refused_by_name(kind: str, where: str) -> None:
    thing, message = REFUSED[kind]
    cls = service(type("Odd", (), {"thing": thing}))
    with pytest.raises(ConfigurationError) as info:
        async with (
            heartline.open_server("memory://", services=[cls()] if where == "server" else []) as server,
            heartline.open_connection(
                server.urls[0], services=[cls()] if where == "client" else []
            ) as client,
        ):
            client.service(cls)
    assert str(info.value).startswith("Odd.thing")
    assert message in str(info.value)


def test_what_has_no_signature_is_refused() -> None:
    class Opaque(Described):
        __signature__ = "none"

    cls = service(type("Odd", (), {"thing": Opaque(lambda self: 1)}))
    with pytest.raises(
        ConfigurationError, match=r"^Odd\.thing: its parameters are not known .*write a def that"
    ):
        heartline.rpc.ServiceTable().add(cls())
