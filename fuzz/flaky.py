"""A memory network whose links break after so many bytes as a plan says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import trio

from heartline.transports.memory import current_network

__all__ = ["Flaw", "cut_after", "make_flaky"]


class Flaw(NamedTuple):
    """The client's end breaks after so many bytes that it sends, or receives."""

    sending: bool
    after: int


def make_flaky(flaws: Iterator[Flaw | None]) -> None:
    """From now on each link of this run has the next flaw; ``None``, and behind the last one: it has none."""
    network: Any = current_network()
    connect = network.connect

    async def connect_with_flaw(name: str) -> trio.abc.Stream:
        stream: trio.abc.Stream = await connect(name)
        flaw = next(flaws, None)
        if flaw is not None:
            cut_after(stream, flaw)
        return stream

    network.connect = connect_with_flaw


def cut_after(stream: Any, flaw: Flaw) -> None:
    """Break a memory stream at a byte: what came before it arrives, what follows does not."""
    left = flaw.after
    send_all, receive_some = stream.send_all, stream.receive_some

    async def send_limited(data: bytes) -> None:
        nonlocal left
        part = bytes(data[:left])
        await send_all(part)
        left -= len(part)
        if not left:
            stream.close()
            raise trio.BrokenResourceError("cut")

    async def receive_limited(_most: int | None = None) -> bytes:
        nonlocal left
        data: bytes = await receive_some(left)
        left -= len(data)
        if not left:
            stream.receive_some = receive_some
            stream.close()
        return data

    if not left:
        stream.close()
    elif flaw.sending:
        stream.send_all = send_limited
    else:
        stream.receive_some = receive_limited
