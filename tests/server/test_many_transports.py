"""One server on several transports at once, and its handle inside of what it handles."""

from __future__ import annotations

from pathlib import Path

import trio

import heartline


@heartline.service
class Announcer:
    def __init__(self) -> None:
        self.server: heartline.Server | None = None

    async def announce(self, text: str) -> int:
        assert self.server is not None
        return (await self.server.broadcast(text)).sent


async def test_one_server_listens_everywhere_and_echoes(tmp_path: Path) -> None:
    urls = ("tcp://127.0.0.1:0", "ws://127.0.0.1:0", f"unix://{tmp_path}/socket", "memory://")
    announcer = Announcer()
    async with heartline.open_server(*urls, services=[announcer]) as server, trio.open_nursery() as nursery:
        announcer.server = server
        assert [url.split(":")[0] for url in server.urls] == ["tcp", "ws", "unix", "memory"]

        @nursery.start_soon
        async def echo() -> None:
            async for message in server.messages():
                await message.connection.send(message.value)

        async with trio.open_nursery() as clients:

            async def ask(url: str) -> None:
                async with heartline.open_connection(url) as connection:
                    for message in (b"bytes", "text", {"a": [1, 2.5, None]}):
                        await connection.send(message)
                        assert await connection.receive() == message

            for url in server.urls:
                clients.start_soon(ask, url)
        nursery.cancel_scope.cancel()


async def test_a_handler_uses_the_server(tmp_path: Path) -> None:
    announcer = Announcer()
    async with heartline.open_server("memory://", services=[announcer]) as server:
        announcer.server = server
        async with (
            heartline.open_connection(server.urls[0]) as speaker,
            heartline.open_connection(server.urls[0]) as listener,
        ):
            assert await speaker.service(Announcer).announce("hear, hear") == 2
            assert await listener.receive() == "hear, hear"
            assert await speaker.receive() == "hear, hear"
