"""A process that is stopped for longer than the heartbeat's timeout, and goes on: so do the sessions."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

import heartline

from ._process import start, until, url_to_listen
from ._records import check

pytestmark = pytest.mark.slow

kinds = pytest.mark.parametrize("kind", ["tcp", "unix"])


@kinds
async def test_a_server_that_was_stopped(kind: str, tmp_path: Path) -> None:
    async with start("server", url=url_to_listen(kind, tmp_path), history=1_000_000) as server:
        url = await server.read("url")
        async with start("client", url=url, name="ann") as ann, start("client", url=url, name="bob") as bob:
            for client in (ann, bob):
                await client.read("opened")
            server.send(signal.SIGSTOP)
            for client in (ann, bob):
                while "nothing was heard" not in await client.read("lost"):
                    pass  # a busy machine lost it before that
            server.send(signal.SIGCONT)
            for client in (ann, bob):
                assert await client.read("reconnected") is True
            results = []
            for client in (ann, bob):
                await client.finish()
                results.append(await client.read("result"))
            async with heartline.open_connection(url) as own:
                notes = await own.service("Ledger").notes()
            for result in results:
                check(result, notes)
                assert result["resumed"] > 0


@kinds
async def test_a_client_that_was_stopped(kind: str, tmp_path: Path) -> None:
    async with start("server", url=url_to_listen(kind, tmp_path), history=1_000_000) as server:
        url = await server.read("url")
        async with (
            heartline.open_connection(url) as own,
            start("client", url=url, name="ann") as ann,
        ):
            watch = own.service("Watch")
            await ann.read("opened")
            ann.send(signal.SIGSTOP)
            await until(lambda: _is(watch, "lost"))
            ann.send(signal.SIGCONT)
            assert await ann.read("reconnected") is True
            await until(lambda: _is(watch, "open"))
            await ann.finish()
            check(await ann.read("result"), await own.service("Ledger").notes())


async def _is(watch: Any, state: str) -> bool:
    look = await watch.look()
    return bool(look["connections"]["ann"] == state)
