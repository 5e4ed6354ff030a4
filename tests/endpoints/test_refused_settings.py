"""A setting of a wrong kind is refused where it is given, by its name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from trio.testing import MockClock

import heartline
from heartline import (
    Backoff,
    ConfigurationError,
    ConnectionSettings,
    Fold,
    Heartbeat,
    History,
    Limits,
    Observer,
    Retry,
    ServerSettings,
    SqliteStore,
    TopicSettings,
    TransportOptions,
    method,
    service,
)


@service
class Calculator:
    def add(self, a: int, b: int) -> int:
        return a + b


class NoService:
    pass


async def coroutine(*args: Any) -> None:
    """For where nobody would await it."""


class AsyncObserver(Observer):
    async def update_published(self, topic: str, offset: int, size: int) -> None:  # type: ignore[override]
        """Would never run."""


async def lonely_middleware(operation: Any) -> None:
    """Has no ``proceed``."""


Wrong = dict[str, list[Any]]
OF_BOTH: Wrong = {
    "services": [
        *(Calculator, Calculator(), 3, None, "abc"),
        *([Calculator], [NoService()], [3], [Calculator(), Calculator()]),
    ],
    "tls": ["cert.pem", True],
    "transport": ["tcp", {}, None],
    "heartbeat": [5, None, Heartbeat],
    "limits": [{"calls": 3}, None, Limits],
    "history": [{}, 3, None],
    "topics": [
        *(["news"], "news", {"news": 3}, {"news": None}, {"news": TopicSettings}),
        *({"": TopicSettings()}, {3: TopicSettings()}),
    ],
    "serializer": [json, None, 1, ["cbor"], "morse"],
    "middleware": [3, [3], None, [print], [lonely_middleware]],
    "declared_only": [1, None, "yes"],
    "observers": [3, [3], None, [Observer], [AsyncObserver()]],
    "rng": [3, "seed"],
}
OF_CONNECTIONS: Wrong = {
    "identity": [3, "", b"me", "a\nb"],
    "patience": [-1, "5", None, True, float("nan")],
    "reconnect": [True, False, 5, {}, Backoff],
}
OF_SERVERS: Wrong = {
    "authenticate": ["token", 3, lambda: None, lambda credentials, identity: identity],
    "dialects": [3, [1], {"a": print}, {1: 3}, {0: print}, {256: print}],
}
NAMES = {"services": "service", "topics": "topic"}
"""What an error calls one of them."""


def each(settings: Wrong) -> list[tuple[str, Any]]:
    return [(name, wrong) for name, wrongs in settings.items() for wrong in wrongs]


@pytest.mark.parametrize(("name", "wrong"), each(OF_BOTH | OF_CONNECTIONS))
async def test_of_a_connection(name: str, wrong: Any, autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://") as server:
        with pytest.raises(ConfigurationError, match=NAMES.get(name, name)):
            async with heartline.open_connection(server.urls[0], **{name: wrong}):
                pass
        assert not server.statistics().accepted, "refused before anything was said to the server"


@pytest.mark.parametrize(("name", "wrong"), each(OF_BOTH | OF_SERVERS))
async def test_of_a_server(name: str, wrong: Any, autojump_clock: MockClock) -> None:
    with pytest.raises(ConfigurationError, match=NAMES.get(name, name)):
        async with heartline.open_server("memory://", **{name: wrong}):
            pass


def test_every_setting_is_looked_at() -> None:
    """A new one comes with its wrong values; of credentials any value is right."""
    assert (OF_BOTH | OF_CONNECTIONS).keys() == ConnectionSettings.__annotations__.keys() - {"credentials"}
    assert (OF_BOTH | OF_SERVERS).keys() == ServerSettings.__annotations__.keys()


@pytest.mark.parametrize("url", [3, None, b"tcp://x:1", "", "x", "x:1", "tcp://", ["memory://"]])
async def test_where_to_connect_and_listen(url: Any) -> None:
    for opener in (heartline.open_connection, heartline.open_server):
        with pytest.raises(ConfigurationError):
            async with opener(url):
                pass


MADE: list[tuple[Callable[..., Any], str, list[Any]]] = [
    *((Retry, name, ["3", True, 0, 1.5]) for name in ("attempts",)),
    (Retry, "backoff", [3, None, Backoff(attempts=3)]),
    (Retry, "idempotent", [3, "yes", None]),
    *(
        (Backoff, name, ["1", True, None, math.nan, math.inf, -1])
        for name in ("initial", "maximum", "factor")
    ),
    (Backoff, "attempts", ["1", True, 0, 1.5]),
    *((Heartbeat, name, ["1", True, None, math.nan, 0]) for name in ("interval", "timeout")),
    *((Limits, name, ["5", None, -1, True, []]) for name in Limits.__dataclass_fields__),
    *((History, name, ["5", None, -1, 0, True, [], math.nan]) for name in History.__dataclass_fields__),
    *((TopicSettings, name, ["x", 5, True, [], print]) for name in TopicSettings.__dataclass_fields__),
    *((Fold, name, ["x", 5, None, coroutine, lambda _: None]) for name in ("initial", "apply")),
    (TransportOptions, "backlog", ["x", True, -1, 1.5]),
    (TransportOptions, "reuse_port", ["x", 3, None]),
    (TransportOptions, "allowed_origins", [3, [3], "https://example.org", [""]]),
    (method, "timeout", ["5", 0, -1, True, math.nan]),
    (method, "idempotent", ["x", 1]),
    (method, "thread", ["x", 1]),
    (SqliteStore, "path", [3, None, b"file"]),
]


@pytest.mark.parametrize(
    ("make", "name", "wrong"), [(make, name, wrong) for make, name, all_ in MADE for wrong in all_]
)
def test_of_what_is_given_to_them(make: Any, name: str, wrong: Any) -> None:
    settings: dict[str, Any] = {"initial": dict, "apply": max} if make is Fold else {}
    with pytest.raises(ConfigurationError, match=name):
        make(**settings | {name: wrong})


WRONG_TOPICS: list[Any] = [3, None, "", b"news", [], "x" * 257]
NEWS = ("news",)
Called = tuple[str, tuple[Any, ...], str, str, list[Any]]
"""A method, what it is given before, the name of what is wrong ("": the next one by position), what the error
calls that, and wrong values."""
OF_CONNECTION_METHODS: list[Called] = [
    ("service", (), "", "service", [3, None, Calculator(), "", "a.b", NoService]),
    ("service", (Calculator,), "retry", "retry", [3, True, Retry, "3"]),
    ("subscribe", (), "", "topic's name", WRONG_TOPICS),
    ("subscribe", NEWS, "type", "type", [3, NoService, dict[int, str]]),
    ("subscribe", NEWS, "since", "since", [3, "x", [], 0.0]),
    ("subscribe", NEWS, "policy", "policy", [3, None, [], "x"]),
    ("subscribe", NEWS, "on_gap", "on_gap", [3, None, [], "x"]),
    ("open_channel", (), "", "channel's name must be Unicode text", [3, None, b"name", "\ud800"]),
]
OF_PUBLISHING: list[Called] = [
    *(("publish", (wrong, 1), "key", "topic's name", [None]) for wrong in WRONG_TOPICS),
    ("publish", (*NEWS, 1), "key", "key", [3, "", b"k", [], "x" * 257]),
    ("publish", (*NEWS, 1), "wait", "wait", [3, True, [], "x"]),
    ("publish", (*NEWS, 1), "timeout", "timeout", ["5", -1, True, [], math.nan]),
    ("declare_topic", (), "", "topic's name", WRONG_TOPICS),
    ("declare_topic", NEWS, "history", "history", [3, {}, []]),
    ("declare_topic", NEWS, "policies", "polic", [3, "block", [], [3], ["x"]]),
    ("delete_topic", (), "", "topic's name", WRONG_TOPICS),
    ("topic_state", (), "", "topic", [*WRONG_TOPICS, "news"]),
]
OF_SERVER_METHODS: list[Called] = [
    ("subscribers", (), "", "topic's name", WRONG_TOPICS),
    ("close_connection", ("x",), "code", "code", ["x", -1, True, 2**31, 1.5, None]),
    ("close_connection", ("x",), "reason", "reason", [3, None, b"x"]),
    ("drain", (), "", "timeout", ["5", None, -1, True, math.nan]),
]


async def check(owner: Any, called: list[Called]) -> None:
    for name, given, wrong_name, match, wrongs in called:
        for wrong in wrongs:
            with pytest.raises(ConfigurationError, match=match):
                answer = getattr(owner, name)(
                    *given, *([] if wrong_name else [wrong]), **({wrong_name: wrong} if wrong_name else {})
                )
                if hasattr(answer, "__await__"):
                    await answer


async def test_of_the_methods_of_connections_and_servers(autojump_clock: MockClock) -> None:
    async with (
        heartline.open_server("memory://") as server,
        heartline.open_connection(server.urls[0]) as client,
    ):
        await check(client, OF_CONNECTION_METHODS + OF_PUBLISHING)
        await check(server.connections[client.id], OF_CONNECTION_METHODS)
        await check(server, OF_PUBLISHING + OF_SERVER_METHODS)
        assert not server.statistics().topics, "nothing is left of them"


@pytest.mark.parametrize("connection_id", [3, None, [], "nobody"])
async def test_no_such_connection(connection_id: Any, autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://") as server:
        for call in (server.close_connection(connection_id), server.send_to(connection_id, 1)):
            with pytest.raises(heartline.LocalProtocolError, match=r"see Server\.connections"):
                await call
