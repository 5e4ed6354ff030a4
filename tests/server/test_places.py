"""Places for handshakes: bounded, shared among hosts, and never held by who says nothing."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

import heartline
from heartline import CloseCode, ConfigurationError, ConnectionRefusedByPeer, Limits, Peer
from heartline.server._handshakes import Handshake, Handshakes, host_of
from heartline.server._refusals import Refused
from heartline.testing import memory_pair
from heartline.transports.memory import MemoryNetwork, use_network
from tests.opening import open_listeners, open_stream
from tests.patience import PATIENCE

from ..connection.helpers import QUIET, run, settle, url_of
from .test_handshake import answer, hello


async def test_silent_streams_keep_nobody_out(autojump_clock: MockClock) -> None:
    """However many there are: each newcomer has the place of the oldest of them."""
    limits = Limits(handshakes=4)
    async with heartline.open_server("memory://", limits=limits, heartbeat=QUIET) as server:
        silent = [await open_stream(server.urls[0]) for _ in range(10)]
        await settle()
        assert (server.statistics().handshaking, server.statistics().refused) == (4, 6)
        for number in range(8):
            async with heartline.open_connection(server.urls[0], identity=str(number), heartbeat=QUIET):
                assert str(number) in server.connections
        assert trio.current_time() < 1
        for stream in silent[:6]:
            _, refusal = await answer(stream)
            assert refusal.code == CloseCode.OVERLOADED
            assert not CloseCode.is_terminal(refusal.code)
        for stream in silent:
            await stream.aclose()


@pytest.mark.parametrize("sent", [hello()[:1], hello()[:-1]])
async def test_neither_do_those_that_never_finish(sent: bytes, autojump_clock: MockClock) -> None:
    limits = Limits(handshakes=4)
    async with heartline.open_server("memory://", limits=limits, heartbeat=QUIET) as server:
        dripping = [await open_stream(server.urls[0]) for _ in range(4)]
        for stream in dripping:
            await stream.send_all(sent)
        await settle()
        async with heartline.open_connection(server.urls[0], heartbeat=QUIET):
            _, refusal = await answer(dripping[0])
            assert refusal.code == CloseCode.OVERLOADED
            assert server.statistics().handshaking == 3


async def test_who_has_greeted_is_not_given_up_for_who_has_not(autojump_clock: MockClock) -> None:
    """The server is to blame for what they wait for, so the newcomer is told to come again."""

    async def slow(peer: Peer) -> str | None:
        await trio.sleep(3)
        return None

    limits = Limits(handshakes=2)
    async with heartline.open_server("memory://", limits=limits, authenticate=slow) as server:
        async with trio.open_nursery() as nursery:

            async def visit(name: str, done: trio.Event) -> None:
                async with heartline.open_connection(server.urls[0], identity=name):
                    done.set()

            arrived = [trio.Event() for _ in range(2)]
            for number, done in enumerate(arrived):
                nursery.start_soon(visit, str(number), done)
            await settle()
            with pytest.raises(ConnectionRefusedByPeer) as caught:
                async with heartline.open_connection(server.urls[0]):
                    pass
            assert caught.value.code == CloseCode.OVERLOADED
            assert not caught.value.terminal
            for done in arrived:
                await done.wait()


async def test_a_host_has_its_share(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own silent streams make room for it; those of others do not have to."""
    limits = Limits(handshakes=8, handshakes_per_host=2)
    async with heartline.open_server("tcp://127.0.0.1:0", limits=limits, heartbeat=QUIET) as server:
        port = int(server.urls[0].rpartition(":")[2])

        async def connect(host: str) -> trio.SocketStream:
            return await trio.open_tcp_stream("127.0.0.1", port, local_address=host)

        greedy = [await connect("127.0.0.1") for _ in range(5)]
        modest = await connect("127.0.0.2")
        with trio.fail_after(PATIENCE):
            for stream in greedy[:3]:
                _, refusal = await answer(stream)
                assert refusal.code == CloseCode.OVERLOADED
        assert server.statistics().handshaking == 3
        async with heartline.open_connection(server.urls[0], heartbeat=QUIET):
            await modest.send_all(hello(identity="modest"))
            assert (await modest.receive_some())[4] == 0x02, "WELCOME"
        for stream in (*greedy, modest):
            await stream.aclose()


async def test_what_has_no_address_has_no_share(autojump_clock: MockClock) -> None:
    limits = Limits(handshakes=8, handshakes_per_host=1)
    async with heartline.open_server("memory://", limits=limits) as server:
        streams = [await open_stream(server.urls[0]) for _ in range(8)]
        await settle()
        assert server.statistics().handshaking == 8
        for stream in streams:
            await stream.aclose()


async def test_a_flood_of_those_turned_away_is_bounded(autojump_clock: MockClock) -> None:
    """Each may cost a second, if its stream takes no bytes; beyond some they are just closed."""
    use_network(MemoryNetwork(buffer_size=1))
    limits = Limits(handshakes=3)
    async with heartline.open_server("memory://", limits=limits, heartbeat=QUIET) as server:
        streams = [await open_stream(server.urls[0]) for _ in range(50)]
        await settle()
        open_ones = 0
        for stream in streams:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(b"\0")
                open_ones += 1
        assert open_ones == 3 + 3, "three shake hands, and three are being told why they may not"
        assert trio.current_time() == 0
        for stream in streams:
            await stream.aclose()


HOSTS = {"tcp://127.0.0.1:0": "127.0.0.1", "tcp://[::1]:0": bytes(8), "ws://127.0.0.1:0": "127.0.0.1"}


@pytest.mark.parametrize("url", [*HOSTS, "unix"])
async def test_what_counts_as_a_host(url: str, tmp_path: object) -> None:
    (listener,) = await open_listeners(url_of(url, tmp_path))
    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(_connect_and_wait, listener.url)
        async with await listener.accept() as stream:
            assert host_of(stream) == HOSTS.get(url)
        nursery.cancel_scope.cancel()
    for end in memory_pair():
        assert host_of(end) is None


async def _connect_and_wait(url: str) -> None:
    if url.startswith("ws"):
        url = url.replace("ws", "tcp", 1).rstrip("/")
    async with await open_stream(url):
        await trio.sleep_forever()


class Somewhere:
    """Stands for a stream from a host."""

    def __init__(self, host: str | None) -> None:
        self.host = host


steps = st.lists(
    st.tuples(
        st.sampled_from(["begin", "complete", "end"]), st.sampled_from([None, "a", "b"]), st.integers(0, 9)
    ),
    max_size=60,
)


@given(steps, st.integers(1, 6), st.integers(1, 6))
def test_the_bounds_hold_and_the_oldest_incomplete_goes(
    script: list[tuple[str, str | None, int]], total: int, share: int
) -> None:
    async def main() -> None:
        handshakes = Handshakes(Limits(handshakes=total, handshakes_per_host=share))
        present: list[Handshake] = []
        complete: set[Handshake] = set()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("heartline.server._handshakes.host_of", lambda stream: stream.host)
            for verb, host, index in script:
                if verb == "begin":
                    crowd = [one for one in present if one.host == host]
                    if host is None or len(crowd) < share:
                        crowd = present if len(present) >= total else []
                    victim = next((one for one in crowd if one not in complete), None)
                    stream: Any = Somewhere(host)
                    if crowd and victim is None:
                        with pytest.raises(Refused):
                            handshakes.begin(stream)
                        continue
                    present.append(handshakes.begin(stream))
                    if victim is not None:
                        assert victim.evicted
                        assert victim.scope.cancel_called
                        present.remove(victim)
                elif present:
                    one = present[index % len(present)]
                    if verb == "complete":
                        handshakes.complete(one)
                        complete.add(one)
                    else:
                        handshakes.end(one)
                        handshakes.end(one)
                        present.remove(one)
                assert len(handshakes) == len(present) <= total
                for name in ("a", "b"):
                    assert sum(one.host == name for one in present) <= share
                assert not any(one.evicted for one in present)

    run(main)


def test_the_share_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="handshakes_per_host"):
        Limits(handshakes_per_host=0)


async def test_who_is_turned_away_for_others_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "heartline.server")
    async with heartline.open_server("memory://", limits=Limits(handshakes=1)) as server:
        for _ in range(2):
            await open_stream(server.urls[0])
        await settle()
    assert "its place was needed" in caplog.text
