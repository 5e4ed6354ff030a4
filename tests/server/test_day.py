"""What an operator reads of a day: many clients that lose links, three restarts, and an attack."""

from __future__ import annotations

import logging
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import Backoff, Connection, Peer
from heartline.testing import MemoryNetwork
from heartline.transports import Listener, StreamInfo
from heartline.transports.memory import use_network
from tests.docs.snippets import DOCS
from tests.engine import core_of, link_of
from tests.opening import open_stream

from ..connection.helpers import QUIET
from .test_handshake import hello

URL = "memory://fleet"
CLIENTS = 200
"""The page of 1,000 is as long, and takes five times as long to run."""
HOUR = 3600.0
RESTARTS = (6 * HOUR, 12 * HOUR, 18 * HOUR)
BETWEEN_LOSSES = 172.0
"""Seconds: two or three losses a day for each client."""

PATIENT = Backoff(initial=10.0, maximum=60.0)
"""Most attempts after a restart succeed: those that fail say nothing here, and take time to run."""

PAGE = 200
"""Lines: about four screens, for all of a day."""

_on_server: ContextVar[bool] = ContextVar("_on_server", default=False)
"""Both ends are in this process; the operator has the log of one."""


class AddressedStream(trio.abc.Stream):
    """A stream with an address, as a socket has one."""

    def __init__(self, inner: trio.abc.Stream, address: str) -> None:
        self._inner = inner
        self._address = address

    def describe_peer(self) -> StreamInfo:
        return StreamInfo(address=self._address)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._inner.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()


class AddressedListener(trio.abc.Listener[trio.abc.Stream]):
    def __init__(self, inner: Listener) -> None:
        self._inner = inner
        self._ports = random.Random(1)

    async def accept(self) -> trio.abc.Stream:
        stream = await self._inner.accept()
        port = self._ports.randrange(32768, 61000)
        return AddressedStream(stream, f"192.0.2.{self._ports.randrange(1, 255)}:{port}")

    async def aclose(self) -> None:
        await self._inner.aclose()


class AddressedNetwork:
    def __init__(self) -> None:
        self._network = MemoryNetwork()

    def listen(self, name: str = "", *, backlog: int = 128) -> Listener:
        inner = self._network.listen(name, backlog=backlog)
        return Listener(AddressedListener(inner), inner.url)

    async def connect(self, name: str) -> trio.abc.Stream:
        return await self._network.connect(name)


class Page(logging.Handler):
    """The records of the server's side, as lines with the time of the day."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if _on_server.get():
            self.records.append(record)
            now = trio.current_time()
            clock = f"{now // HOUR:02.0f}:{now // 60 % 60:02.0f}:{now % 60:02.0f}"
            self.lines.append(f"{clock} {record.levelname} {record.name}: {record.getMessage()}")


@pytest.fixture
def page() -> Iterator[Page]:
    logger = logging.getLogger("heartline")
    page = Page()
    logger.addHandler(page)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # what the clients say is no part of the test, and much
    try:
        yield page
    finally:
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(page)


def authenticate(peer: Peer) -> str:
    if peer.credentials != f"password of {peer.identity}":
        raise PermissionError("the password is wrong")
    assert peer.identity is not None
    return peer.identity


async def run_server() -> None:
    """A server with a restart now and then, each two seconds long."""
    _on_server.set(True)
    for end in (*RESTARTS, 24 * HOUR):
        async with heartline.open_server(URL, authenticate=authenticate, heartbeat=QUIET):
            await trio.sleep_until(end)
        await trio.sleep(2)


async def run_client(number: int, clients: dict[int, Connection]) -> None:
    await trio.sleep(number / 10)
    name = f"device-{number}"
    async with heartline.open_connection(
        URL, identity=name, credentials=f"password of {name}", heartbeat=QUIET, reconnect=PATIENT
    ) as clients[number]:
        await trio.sleep_forever()


async def cut_links(clients: dict[int, Connection]) -> None:
    choose = random.Random(2)
    while True:
        await trio.sleep(BETWEEN_LOSSES)
        client = clients[choose.randrange(len(clients))]
        if core_of(client).link is not None:
            await link_of(client).stream.aclose()


ATTACKS = {
    "a wrong password": hello(identity="device-1", credentials="guess\n"),
    "garbage": b"\0" * 100,
    "a web browser": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01" * 30,
    "anything": b"\xff\x1b[2J\n" * 30,
    "silence": b"",
}


async def attack() -> None:
    """From eight to ten o'clock, six times a minute."""
    await trio.sleep(8 * HOUR)
    async with trio.open_nursery() as nursery:
        for number in range(720):
            await trio.sleep(10)
            nursery.start_soon(_bother, list(ATTACKS.values())[number % len(ATTACKS)])


async def _bother(sent: bytes) -> None:
    async with await open_stream(URL) as stream:
        if sent:
            await stream.send_all(sent)
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


@pytest.mark.slow
async def test_a_day_is_a_page(page: Page, autojump_clock: MockClock) -> None:
    use_network(AddressedNetwork())
    clients: dict[int, Connection] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_server)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(CLIENTS):
            nursery.start_soon(run_client, number, clients)
        nursery.start_soon(attack)
        await trio.sleep(CLIENTS / 10)
        nursery.start_soon(cut_links, clients)
        await trio.sleep_until(24 * HOUR + 20)
        nursery.cancel_scope.cancel()
    assert len(page.lines) <= PAGE
    for record in page.records:
        assert record.getMessage().isprintable()
        assert record.levelno == logging.INFO
        assert not record.exc_info
    assert {_shape(line) for line in _shown()} <= {_shape(line) for line in page.lines}
    told = _counted(page.lines)
    assert told["let in"] == 4 * CLIENTS
    assert told["ended"] == 4 * CLIENTS
    assert told["back"] <= told["lost"] <= told["back"] + len(RESTARTS) + 1
    assert sum(line.count("refused") for line in page.lines) < 50


def _counted(lines: list[str]) -> Counter[str]:
    """How often something happened, by lines and summaries together: nothing is left out."""
    told: Counter[str] = Counter()
    for line in lines:
        for count, kind in re.findall(r"(\d+) (let in|lost|back|ended)\b", line):
            told[kind] += int(count)
        told["let in"] += line.endswith(": let in")
    return told


def _shown() -> list[str]:
    """The lines of the page that shows operators such a day, without that of a client whose session is gone.

    That one had lost its link just before a restart, which does not happen every day.
    """
    text = (DOCS / "how-to" / "read-the-logs.md").read_text()
    return [line for line in text.splitlines() if re.match(r"\d\d:", line) and "no such session" not in line]


def _shape(line: str) -> str:
    """A line without its numbers, a summary without what it sums up."""
    return re.sub(r"\d+", "#", re.sub(r"( more in \d+ min): .*", r"\1", line))
