"""Whatever text a peer puts where, a line of the log stays a line, and an error too; and both stay short."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

import heartline
from heartline import Connection, HeartlineError, Limits
from heartline.session import CloseCode, Role, Session
from heartline.testing import memory_pair
from heartline.wire import Frame, FrameType
from tests.few_examples import few_examples
from tests.opening import open_stream
from tests.rpc.helpers import CBOR, QUIET, RawPeer, call_frame, raw_client, raw_server, run, settle

from .test_handshake import hello

FORGED = "bye\n2026-01-01 CRITICAL root: \x1b[31mall is lost\r\u2028\x00\u202e"

LONGEST = 20_000
"""Characters of a line: a kilobyte of a peer's text, each character escaped, and some words."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    [FORGED, "\n", "\x1b[2J", FORGED * 2000, "é" * 50_000]
)


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        # What the application itself raised has a traceback, and nothing else.
        assert record.exc_info is None, record.getMessage()


@contextmanager
def all_lines() -> Iterator[list[str]]:
    logger = logging.getLogger("heartline")
    handler = Lines()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield handler.lines
    finally:
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(handler)


def check(lines: list[str]) -> None:
    for line in lines:
        assert line.isprintable(), line
        assert len(line) <= LONGEST


@heartline.service
class Service:
    """What the client below calls."""

    def method(self) -> None: ...


# What a server may say


async def goodbye(connection: Connection, peer: RawPeer, text: str) -> None:
    peer.session.go_away(CloseCode.NORMAL, text)
    await peer.flush()
    await connection.receive()


def fault(**fields: str) -> Callable[[Connection, RawPeer, str], Awaitable[None]]:
    async def say(connection: Connection, peer: RawPeer, text: str) -> None:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def answer() -> None:
                call = await peer.receive()
                told = {"kind": "raised", "message": "no", "type_name": "Error"}
                told |= {name: shape.replace("TEXT", text) for name, shape in fields.items()}
                await peer.send(Frame(FrameType.FAULT, id=call.id, payload=CBOR.encode(told, [])))

            await heartline.remote(connection.service(Service).method)()

    return say


async def reset(connection: Connection, peer: RawPeer, text: str) -> None:
    async with await connection.open_channel(text[:20] or "channel") as channel:
        events = await peer.events()
        (opened,) = (event for event in events if isinstance(event, Frame))
        await peer.send(Frame(FrameType.RESET, channel=opened.channel, payload=text.encode()))
        await channel.receive()


async def channel(connection: Connection, peer: RawPeer, text: str) -> None:
    await peer.send(
        Frame(FrameType.OPEN, channel=2, payload=text.encode()[:200].decode(errors="ignore").encode())
    )
    await peer.send(Frame(FrameType.RESET, channel=2, payload=text.encode()))
    opened = await connection.accept_channel()
    assert repr(opened).isprintable()
    await opened.receive()


SAID: dict[str, Callable[[Connection, RawPeer, str], Awaitable[None]]] = {
    "reason of a goodbye": goodbye,
    "message of a fault": fault(message="TEXT"),
    "type of a fault": fault(type_name="TEXT"),
    "kind of a fault": fault(kind="TEXT"),
    "message of another kind": fault(kind="overloaded", message="TEXT"),
    "reason of a reset": reset,
    "name of a channel": channel,
}


@pytest.mark.parametrize("where", SAID)
@few_examples
@given(texts)
@example(FORGED)
def test_what_a_server_says(where: str, text: str) -> None:
    async def main() -> None:
        with all_lines() as lines:
            async with raw_server(reconnect=None, limits=Limits(message_size=1 << 20)) as (connection, peer):
                with trio.move_on_after(5):
                    try:
                        await SAID[where](connection, peer, text)
                    except* (HeartlineError, trio.EndOfChannel, trio.BrokenResourceError) as group:
                        lines += _texts(group)
                lines.append(repr(connection))
            check(lines)

    run(main)


def _texts(error: BaseException | None) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [line for one in error.exceptions for line in _texts(one)]
    return [] if error is None else [str(error), *_texts(error.__cause__)]


@pytest.mark.parametrize("where", ["refused", "welcomed"])
@few_examples
@given(texts)
@example(FORGED)
def test_what_a_server_says_in_the_handshake(where: str, text: str) -> None:
    async def main() -> None:
        here, there = memory_pair()
        session = Session(Role.SERVER, limits=Limits(resume_window=0), heartbeat=QUIET, now=0)
        peer = RawPeer(there, session)

        async def answer() -> None:
            await peer.events()
            if where == "refused":
                session.refuse(CloseCode.OVERLOADED, text)
            else:
                session.welcome(text[:1000])
            await peer.flush()

        with all_lines() as lines:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer)
                try:
                    async with heartline.open_connection(here, heartbeat=QUIET) as connection:
                        lines += [repr(connection)]
                        there.close()
                        await settle()
                except HeartlineError as error:
                    lines += _texts(error)
        check(lines)

    run(main)


# What a client may say


async def say_goodbye(peer: RawPeer, text: str) -> None:
    peer.session.go_away(CloseCode.NORMAL, text)
    await peer.flush()


async def call_a_method(peer: RawPeer, text: str) -> None:
    await peer.send(call_frame(1, text.encode()[:200].decode(errors="ignore")))


async def call_a_service(peer: RawPeer, text: str) -> None:
    await peer.send(call_frame(1, f"Service.{text[:40]}"))


async def give_an_argument(peer: RawPeer, text: str) -> None:
    await peer.send(call_frame(1, "Service.method", text[:1000]))


async def subscribe(peer: RawPeer, text: str) -> None:
    for number, arguments in enumerate(
        [
            (text[:1000], None, "drop oldest", 1),
            ("topic", text[:1000], "drop oldest", 2),
            ("topic", None, text[:1000], 3),
        ],
        1,
    ):
        await peer.send(call_frame(number, "$push.subscribe", *arguments))


async def open_a_channel(peer: RawPeer, text: str) -> None:
    await peer.send(Frame(FrameType.OPEN, channel=1, payload=text.encode()[:400]))
    await peer.send(Frame(FrameType.RESET, channel=1, payload=text.encode()[:2000]))


CLIENT = {
    function.__name__: function
    for function in (say_goodbye, call_a_method, call_a_service, give_an_argument, subscribe, open_a_channel)
}


@pytest.mark.parametrize("how", CLIENT)
@few_examples
@given(texts)
@example(FORGED)
def test_what_a_client_says(how: str, text: str) -> None:
    async def main() -> None:
        with all_lines() as lines:
            async with heartline.open_server("memory://", services=[Service()], heartbeat=QUIET) as server:
                async with raw_client(server.urls[0]) as peer:
                    await CLIENT[how](peer, text)
                    await trio.sleep(1)
                    lines += map(repr, server.connections.values())
                await settle()
            check(lines)

    run(main)


@few_examples
@given(texts)
@example(FORGED)
def test_what_a_stranger_says(text: str) -> None:
    async def main() -> None:
        def authenticate(peer: heartline.Peer) -> str | None:
            raise PermissionError(f"{peer.identity} with {peer.credentials}")

        greetings: list[Any] = [hello(identity=text[:1000]), hello(credentials=text[:1000]), text.encode()]
        with all_lines() as lines:
            async with heartline.open_server("memory://", authenticate=authenticate) as server:
                for greeting in greetings:
                    async with await open_stream(server.urls[0]) as stream:
                        await stream.send_all(greeting[: 1 << 15])
                        await trio.sleep(20)
            check(lines)

    run(main)
