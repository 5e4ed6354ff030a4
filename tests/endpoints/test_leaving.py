"""Whatever leaves a block says goodbye: the other end hears why, and nothing is left behind."""

from __future__ import annotations

import gc
import signal
import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio.testing import MockClock

import heartline
from heartline import CloseCode
from tests.connection.helpers import QUIET, RawPeer, listen, no_leaks

from .leaving import BUSY, leave

URLS = {
    "tcp": "tcp://127.0.0.1:0",
    "tls": "tls://127.0.0.1:0",
    "unix": "unix://{}/socket",
    "ws": "ws://127.0.0.1:0",
    "wss": "wss://127.0.0.1:0",
    "memory": "memory://",
}
GOODBYE = {"client": "a goodbye, NORMAL", "server": "a goodbye, GOING_AWAY"}


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and a client's that trusts it."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.mark.slow
@pytest.mark.parametrize("way", ["the end", "an error", "cancelled", "a deadline"])
@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("kind", URLS)
async def test_the_other_end_hears_a_goodbye(
    kind: str,
    side: str,
    way: str,
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    tmp_path: Path,
    mock_clock: MockClock,
) -> None:
    """The clock stands: a healthy peer costs no time, and whoever waited for some would wait for ever."""
    heard = {}
    with no_leaks():
        for doing in BUSY:
            heard[doing] = await leave(side, way, doing, URLS[kind].format(tmp_path), contexts)
        gc.collect()
    down = heard.pop("the link is down")
    assert "ConnectionLost" in down
    assert heard == dict.fromkeys(BUSY[:-1], GOODBYE[side])


def test_a_second_ctrl_c_ends_the_wait_for_an_answer() -> None:
    """The goodbye is still written, for whoever reads it later."""
    told: list[Any] = []

    @trio.lowlevel.enable_ki_protection  # so that it meets the main task
    async def interrupt() -> None:
        for _ in range(2):
            await trio.sleep(0.25)
            signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        async with await listen() as listener, trio.open_nursery() as nursery:
            mute: list[RawPeer] = []

            @nursery.start_soon
            async def admit() -> None:
                mute.append(await RawPeer.admit(await listener.accept()))

            nursery.start_soon(interrupt)
            with pytest.raises(KeyboardInterrupt):
                async with heartline.open_connection(listener.url, heartbeat=QUIET):
                    await trio.sleep_forever()
            told.append(trio.current_time())
            told.extend(event.code for event in await mute[0].rest())
            await mute[0].stream.aclose()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    time, *codes = told
    assert time == 0.5, "the answer would be waited for until 1.25"
    assert CloseCode.NORMAL in codes


@pytest.mark.parametrize("way", ["the end", "cancelled"])
@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_peer_that_does_not_answer_costs_a_second(
    side: str, way: str, autojump_clock: MockClock
) -> None:
    with no_leaks(), trio.CancelScope() as scope:
        if side == "client":
            async with await listen() as listener, trio.open_nursery() as nursery:

                @nursery.start_soon
                async def admit() -> None:
                    await RawPeer.admit(await listener.accept())

                async with heartline.open_connection(listener.url, heartbeat=QUIET):
                    if way == "cancelled":
                        scope.cancel()
        else:
            async with heartline.open_server("memory://", heartbeat=QUIET) as server:
                await RawPeer.join(server.urls[0])
                if way == "cancelled":
                    scope.cancel()
    assert trio.current_time() == 1
