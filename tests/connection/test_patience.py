"""The first connection to a server that is not up yet, and how soon the next ones are tried."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import (
    Backoff,
    ConfigurationError,
    ConnectionFailed,
    ConnectionRefusedByPeer,
    Peer,
    Reconnected,
    RemoteProtocolError,
)
from heartline.testing import memory_pair
from tests.opening import open_listeners

from .helpers import QUIET, Highest, cut

URL = "memory://late"
SECOND = Backoff(initial=1, factor=1, maximum=1)


def connect(**settings: Any) -> Any:
    return heartline.open_connection(URL, rng=Highest(), heartbeat=QUIET, **settings)


@pytest.mark.parametrize("reconnect", [SECOND, None])
async def test_a_server_that_is_late(reconnect: Backoff | None, autojump_clock: MockClock) -> None:
    async def serve() -> None:
        await trio.sleep(2.5)
        async with heartline.open_server(URL, heartbeat=QUIET):
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with connect(patience=60, reconnect=reconnect) as connection:
            assert connection.statistics().links == 1
            assert trio.current_time() == pytest.approx(3)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("patience", "ends"), [(0, 0), (2.5, 2.5), (3, 3)])
async def test_the_last_error_is_raised_at_the_end(
    patience: float, ends: float, autojump_clock: MockClock
) -> None:
    with pytest.raises(ConnectionFailed, match="nobody listens"):
        async with connect(patience=patience, reconnect=SECOND):
            pass
    assert trio.current_time() == ends


async def test_a_day_of_attempts_is_a_page_of_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "heartline")
    with pytest.raises(ConnectionFailed, match="nobody listens"):
        async with connect(patience=24 * 3600, reconnect=Backoff(initial=30, maximum=30)):
            pass
    assert 20 < len(caplog.records) < 100


async def test_attempts_bound_it_too(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionFailed):
        async with connect(patience=60, reconnect=Backoff(initial=1, factor=1, maximum=1, attempts=4)):
            pass
    assert trio.current_time() == 4


async def test_what_cannot_be_mended_is_raised_at_once(autojump_clock: MockClock) -> None:
    def refuse(peer: Peer) -> None:
        raise PermissionError("not you")

    async with heartline.open_server(URL, authenticate=refuse):
        with pytest.raises(ConnectionRefusedByPeer, match="not you"):
            async with connect(patience=60):
                pass
    with pytest.raises(ConfigurationError, match="tcpx"):
        async with heartline.open_connection("tcpx://127.0.0.1:1", patience=60):
            pass
    (listener,) = await open_listeners(URL)
    async with listener, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def babble() -> None:
            stream = await listener.accept()
            await stream.send_all(b"220 mail.example.org ESMTP\r\n")

        with pytest.raises(RemoteProtocolError):
            async with connect(patience=60):
                pass
    assert trio.current_time() == 0


async def test_a_refusal_for_now_is_tried_again(autojump_clock: MockClock) -> None:
    def later(peer: Peer) -> None:
        if trio.current_time() < 5:
            raise heartline.Overloaded("not now")

    async with heartline.open_server(URL, authenticate=later, heartbeat=QUIET):
        async with connect(patience=60, reconnect=SECOND):
            assert trio.current_time() == pytest.approx(5)


async def test_a_stream_that_is_given_is_used_once(autojump_clock: MockClock) -> None:
    stream, other = memory_pair()
    other.close()
    with pytest.raises(ConnectionFailed):
        async with heartline.open_connection(stream, patience=60):
            pass
    assert trio.current_time() == 0


@pytest.mark.parametrize("patience", [-1, "60", None, float("nan"), True])
async def test_a_wrong_setting(patience: Any) -> None:
    with pytest.raises(ConfigurationError, match="patience must be seconds of at least 0"):
        async with connect(patience=patience):
            pass


# After a loss


@pytest.mark.parametrize(
    ("lasts", "waits"), [(20, [0.2] * 9), (0, [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30])]
)
async def test_a_link_on_which_a_session_went_on_and_lasted_is_no_failure(
    lasts: float, waits: list[float], autojump_clock: MockClock
) -> None:
    """One that is cut at once is, or a server that drops its clients would see them ever more often."""
    async with (
        heartline.open_server(URL, heartbeat=QUIET),
        connect() as connection,
    ):
        events = connection.events()
        seen = []
        for _ in waits:
            await trio.sleep(lasts)
            lost = trio.current_time()
            cut(connection)
            async for event in events:
                if isinstance(event, Reconnected):
                    assert event.resumed
                    break
            seen.append(trio.current_time() - lost)
        assert seen == pytest.approx(waits)


async def test_a_link_shorter_than_the_next_delay_is_a_failure(autojump_clock: MockClock) -> None:
    """So the delays stay within the time that links last."""
    waits = []
    async with heartline.open_server(URL, heartbeat=QUIET), connect() as connection:
        events = connection.events()
        for _ in range(20):
            await trio.sleep(1)
            lost = trio.current_time()
            cut(connection)
            async for event in events:
                if isinstance(event, Reconnected):
                    break
            waits.append(trio.current_time() - lost)
    assert max(waits) <= 1
    assert any(later < earlier for earlier, later in itertools.pairwise(waits)) or max(waits) == min(waits)
