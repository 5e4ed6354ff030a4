"""Whatever leaves a block says goodbye: the other end hears why, and nothing is left behind."""

from __future__ import annotations

import gc
import ssl
from pathlib import Path

import pytest
import trustme
from trio.testing import MockClock

from tests.connection.helpers import no_leaks

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
