"""A transport of somebody else's may raise anything: for a client that is an attempt that failed."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import Backoff, ConnectionFailed, Limits
from heartline.transports.memory import MemoryNetwork, MemoryStream, use_network
from tests.engine import link_of

from .helpers import QUIET, cut, settle


class FaultyNetwork(MemoryNetwork):  # type: ignore[misc]  # final for users
    """A network in memory where connecting raises, or gives streams that do, when it is told so."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    async def connect(self, name: str) -> MemoryStream:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "connect":
            raise ZeroDivisionError("a bug")
        if fault == "too slow":
            raise trio.TooSlowError
        if fault == "silent":
            await trio.sleep_forever()
        if fault == "in cleanup":
            await fail_in_cleanup()
        stream = await super().connect(name)
        if fault:

            async def fail(*_: object) -> None:
                await trio.lowlevel.checkpoint()
                raise ZeroDivisionError("a bug")

            setattr(stream, fault, fail)
        return stream


async def fail_in_cleanup(*_: object) -> None:
    """Wait, and when that is cancelled raise an error beside the cancellation."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError("a bug")


FAULTS = ["connect", "send_all", "receive_some"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_first_attempt_says_what_the_transport_raised(
    fault: str, autojump_clock: MockClock
) -> None:
    network = FaultyNetwork()
    use_network(network)
    async with heartline.open_server("memory://") as server:
        network.faults = [fault]
        with pytest.raises(ConnectionFailed, match="ZeroDivisionError") as raised:
            async with heartline.open_connection(server.urls[0]):
                pass
    assert f"cannot connect to {server.urls[0]}: the transport raised" in str(raised.value)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("too slow", r"the transport raised TooSlowError\(\)"),
        ("silent", r"no handshake within 5 s \(Limits.handshake_timeout\)"),
    ],
)
async def test_a_deadline_of_the_transport_is_not_taken_for_ours(
    fault: str, message: str, autojump_clock: MockClock
) -> None:
    network = FaultyNetwork()
    use_network(network)
    async with heartline.open_server("memory://") as server:
        network.faults = [fault]
        with pytest.raises(ConnectionFailed, match=f"cannot connect to {server.urls[0]}: {message}"):
            async with heartline.open_connection(server.urls[0], limits=Limits(handshake_timeout=5)):
                pass


async def test_a_client_comes_back_over_attempts_that_raise(autojump_clock: MockClock) -> None:
    network = FaultyNetwork()
    use_network(network)
    again = Backoff(initial=0.01, maximum=0.1)
    async with (
        heartline.open_server("memory://", heartbeat=QUIET) as server,
        heartline.open_connection(server.urls[0], heartbeat=QUIET, reconnect=again) as connection,
    ):
        network.faults = list(FAULTS)
        cut(connection)
        await trio.sleep(5)
        assert not network.faults
        assert connection.state is heartline.ConnectionState.OPEN


async def test_an_attempt_that_raises_as_the_block_is_left(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    network = FaultyNetwork()
    use_network(network)
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        with pytest.raises(KeyError, match="of the block"):
            async with heartline.open_connection(server.urls[0], heartbeat=QUIET) as connection:
                network.faults = ["in cleanup"]
                cut(connection)
                await trio.sleep(5)
                assert not network.faults
                raise KeyError("of the block")
    assert "ZeroDivisionError" in caplog.text


async def test_a_write_that_raises_as_the_block_is_cancelled(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        with trio.move_on_after(5) as scope:
            async with heartline.open_connection(server.urls[0], heartbeat=QUIET) as connection:
                monkeypatch.setattr(link_of(connection).stream, "send_all", fail_in_cleanup)
                await connection.send("stuck")
                await settle()
                await trio.sleep_forever()
        assert scope.cancelled_caught
    assert "internal error while writing" in caplog.text
