"""What heartline needs of a listener beyond Trio's interface: that it knows its URL."""

from __future__ import annotations

from typing import Any, final

import trio

__all__ = ["Listener"]


@final
class Listener(trio.abc.Listener[trio.abc.Stream]):
    """Any Trio listener, with the ``url`` at which it can be reached (with the real port in place of 0).

    Errors of the inner listener's ``accept`` pass through, so that a server can deal with a lack of file
    descriptors.
    """

    def __init__(self, inner: trio.abc.Listener[Any], url: str) -> None:
        self._inner = inner
        self.url = url

    async def accept(self) -> trio.abc.Stream:
        """Wait for a connection; the transport's handshake happens later, at the stream's first I/O.

        Cancelling loses no connection.
        """
        stream: trio.abc.Stream = await self._inner.accept()
        return stream

    async def aclose(self) -> None:
        """Stop listening; streams that were accepted live on."""
        await self._inner.aclose()

    def __repr__(self) -> str:
        return f"<Listener {self.url}>"
