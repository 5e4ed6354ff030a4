"""Opening by URL in tests that have no endpoint: what a transport runs ends with the task's own nursery."""

from __future__ import annotations

import ssl

import trio

from heartline import transports
from heartline.transports import Listener, TransportContext, TransportOptions

__all__ = ["make_context", "open_listeners", "open_stream"]


def make_context(
    tls: ssl.SSLContext | None = None, options: TransportOptions | None = None
) -> TransportContext:
    nursery = trio.lowlevel.current_task().parent_nursery
    assert nursery is not None
    return TransportContext(nursery=nursery, tls=tls, options=options or TransportOptions())


async def open_stream(url: str, *, tls: ssl.SSLContext | None = None) -> trio.abc.Stream:
    return await transports.open_stream(url, make_context(tls))


async def open_listeners(
    url: str, *, tls: ssl.SSLContext | None = None, options: TransportOptions | None = None
) -> list[Listener]:
    return await transports.open_listeners(url, make_context(tls, options))
