"""No secret in the log, in an error or in what an object prints: passwords, tokens, keys and what is sent."""

from __future__ import annotations

import logging
import ssl
import traceback
from typing import Any

import pytest
import trio
import trustme

import heartline
from heartline import Backoff, ConnectionFailed, HeartlineError, Peer
from heartline.transports import StreamInfo
from tests.engine import link_of
from tests.patience import PATIENCE

from ..connection.helpers import QUIET

PASSWORD, WRONG, FUNCTION, QUERY, HEADER, PAYLOAD = (
    f"secret-{name}" for name in ("password", "wrong", "function", "query", "header", "payload")
)


@heartline.service
class Vault:
    """Methods that are given secrets, and end in every way."""

    def keep(self, value: str) -> str:
        return value

    def count(self, value: int) -> int:
        return value

    def fail(self, value: str) -> None:
        raise ValueError("it failed")


def authenticate(peer: Peer) -> str | None:
    peers.append(peer)
    match peer.credentials:
        case {"password": password} if password == PASSWORD:
            return "ada"
        case password if password == FUNCTION:
            return "bob"
        case 5:
            raise KeyError
        case 6:
            return peer.headers  # type: ignore[return-value]
    raise PermissionError


peers: list[Peer] = []


class Watch:
    """Everything that might tell a secret."""

    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        self._log = log
        self.said: list[str] = []

    def note(self, *things: object) -> None:
        for thing in things:
            if isinstance(thing, BaseException):
                self.said.extend(traceback.format_exception(thing))
            self.said += [repr(thing), str(thing)]

    def check(self, *secrets: str | bytes) -> None:
        formatter = logging.Formatter()
        records = [formatter.format(record) for record in self._log.records]
        assert len(records) > 20
        for secret in secrets:
            shapes = [secret] if isinstance(secret, str) else [secret.hex(), repr(secret)[2:-1]]
            for shape in shapes:
                assert shape
                for said in [*records, *self.said]:
                    # The line of source code that a traceback shows is no value.
                    assert shape not in said, said


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> Watch:
    caplog.set_level(logging.DEBUG, "heartline")
    peers.clear()
    return Watch(caplog)


async def use(client: heartline.Connection, server: heartline.Server, watch: Watch) -> bytes:
    """All that one does with a connection; returns the token of its session."""
    vault: Any = client.service(Vault)
    there = server.connections[client.id]
    assert await vault.keep(PAYLOAD) == PAYLOAD
    await client.send(PAYLOAD)
    await there.receive()
    await server.publish("topic", PAYLOAD)
    # A method that raises, arguments of the wrong type, and one that cannot be sent.
    failing: list[tuple[Any, Any]] = [
        (vault.fail, PAYLOAD),
        (vault.count, PAYLOAD),
        (vault.keep, [PAYLOAD]),
        (vault.keep, [PAYLOAD, object()]),
    ]
    for method, argument in failing:
        with pytest.raises(HeartlineError) as caught:
            await method(argument)
        watch.note(caught.value)
    with pytest.raises(HeartlineError) as caught:
        await server.publish("topic", [PAYLOAD, object()])
    watch.note(caught.value, client, there, client.peer, there.peer, server, server.connections)
    watch.note(server.statistics(), client.statistics())
    ticket = link_of(client).session.ticket
    assert ticket is not None
    await link_of(client).stream.aclose()
    while client.statistics().links < 2:
        await trio.sleep(0.01)
    await vault.keep(PAYLOAD)
    return ticket[0]


async def test_nothing_tells_a_secret(watch: Watch) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    tls, trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    certificate.configure_cert(tls)
    authority.configure_trust(trust)
    again = Backoff(initial=0.01, maximum=0.01)
    tokens = []
    with trio.fail_after(PATIENCE):
        async with heartline.open_server(
            "wss://127.0.0.1:0", services=[Vault()], tls=tls, authenticate=authenticate, heartbeat=QUIET
        ) as server:
            url = f"{server.urls[0]}?token={QUERY}"
            for right in ({"password": PASSWORD}, lambda: FUNCTION):
                async with heartline.open_connection(
                    url, credentials=right, tls=trust, reconnect=again, heartbeat=QUIET
                ) as client:
                    tokens.append(await use(client, server, watch))
            for wrong in (WRONG, {"password": WRONG}, [WRONG, object()], f"\ud800{WRONG}", 5, 6):
                with pytest.raises(HeartlineError) as caught:
                    async with heartline.open_connection(url, credentials=wrong, tls=trust):
                        pass
                watch.note(caught.value)
            for unreachable in (url.replace("wss", "ws"), f"ws://127.0.0.1:1/?token={QUERY}"):
                with pytest.raises(ConnectionFailed) as refused:
                    async with heartline.open_connection(unreachable, credentials=PASSWORD):
                        pass
                watch.note(refused.value)
    watch.note(*peers)
    key = certificate.private_key_pem.bytes().splitlines()[1].decode()
    watch.check(PASSWORD, WRONG, FUNCTION, QUERY, PAYLOAD, key, *tokens)


def test_what_a_client_asked_for_is_not_printed() -> None:
    """A browser sends cookies, a proxy may add an authorization, and a query may have a token."""
    info = StreamInfo(
        address="192.0.2.1:5", path=f"/?token={QUERY}", headers={"authorization": f"Bearer {HEADER}"}
    )
    for one in (info, Peer.of(info, url="ws://host/", credentials=PASSWORD)):
        assert "192.0.2.1:5" in repr(one)
        for secret in (QUERY, HEADER, PASSWORD):
            assert secret not in repr(one)
