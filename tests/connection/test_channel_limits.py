"""How many channels there may be, which numbers they have, and what a peer may not do with them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from heartline import (
    Limits,
    LocalProtocolError,
    RemoteProtocolError,
)
from heartline.wire import Frame, FrameType

from ..engine import link_of, number_of
from .helpers import data, open_pair, open_to_raw, opened, pair_of_channels, settle

CLOSE = FrameType.CLOSE
WINDOW = Limits().window


async def test_numbers_are_free_again_when_both_are_done(autojump_clock: MockClock) -> None:
    async with open_pair(limits=Limits(channels=2)) as (client, there, _):
        for number in range(200):
            ours, theirs = await pair_of_channels(client, there, str(number))
            assert number_of(ours) % 2 == 1
            await ours.send(number)
            for channel in (ours, theirs) if number % 2 else (theirs, ours):
                await channel.aclose()
            await settle()


async def test_the_numbers_begin_anew_after_the_last() -> None:
    async with open_pair() as (client, there, _):
        first, _theirs = await pair_of_channels(client, there)
        link_of(client).session._lanes._next = 0xFFFF
        last, _theirs = await pair_of_channels(client, there)
        after, _theirs = await pair_of_channels(client, there)
        assert [number_of(channel) for channel in (first, last, after)] == [1, 0xFFFF, 3]


async def test_opening_beyond_the_peers_limit(autojump_clock: MockClock) -> None:
    async with open_pair(server_limits=Limits(channels=3)) as (client, there, _):
        channels = [await client.open_channel(str(n)) for n in range(3)]
        with pytest.raises(LocalProtocolError, match=r"3 channels \(Limits.channels\)"):
            await client.open_channel("one too many")
        await there.open_channel("the other direction counts by itself")
        await channels[0].aclose()
        await settle()
        with pytest.raises(LocalProtocolError):
            await client.open_channel("nobody has accepted the closed one: it still counts")
        await there.accept_channel()
        await settle()
        await client.open_channel("now there is room")


async def test_a_peer_that_opens_too_many_is_cut_off() -> None:
    async with open_to_raw(limits=Limits(channels=3), reconnect=None) as (connection, peer):
        await peer.send(*[opened(2 * n + 2) for n in range(4)])
        with pytest.raises(RemoteProtocolError, match=r"more than 3 channels .*Limits.channels"):
            await connection.receive()


async def test_opening_and_closing_fills_no_memory_where_nobody_accepts() -> None:
    """Each would leave a window of data behind; the number is not free until the channel was accepted."""
    async with open_to_raw(limits=Limits(channels=3), reconnect=None) as (connection, peer):
        for n in range(3):
            number = 2 * n + 2
            await peer.send(
                opened(number), data(b"left behind", channel=number), Frame(CLOSE, channel=number)
            )
        await settle()
        assert connection.statistics().channels == 3
        channel = await connection.accept_channel()
        assert await channel.receive() == b"left behind"
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
        (close,) = await peer.events()
        assert (close.type, close.channel) == (CLOSE, 2)
        await peer.send(opened(2), opened(8))
        with pytest.raises(RemoteProtocolError, match="more than 3 channels"):
            await connection.receive()


async def test_a_channel_takes_its_place_until_the_close_of_both() -> None:
    async with open_to_raw(limits=Limits(channels=1), reconnect=None) as (connection, peer):
        for number in (2, 4):
            await peer.send(opened(number))
            await (await connection.accept_channel()).aclose()
            await peer.send(Frame(CLOSE, channel=number))
        await peer.send(opened(6))
        await (await connection.accept_channel()).aclose()
        await peer.send(opened(8))
        with pytest.raises(RemoteProtocolError, match="more than 1 channels"):
            await connection.receive()


@pytest.mark.parametrize(
    "frames",
    [
        [opened(1)],
        [opened(2), opened(2)],
        [opened(0)],
        [opened(2, b"\xff")],
        [opened(2, b"x" * 257)],
        [data(b"x", channel=2)],
        [Frame(CLOSE, channel=4)],
        [opened(2), Frame(CLOSE, channel=2), data(b"x", channel=2)],
        [opened(2), Frame(CLOSE, channel=2), opened(2)],
        [Frame(CLOSE, channel=0)],
    ],
)
async def test_what_a_peer_may_not_do(frames: list[Frame]) -> None:
    async with open_to_raw(reconnect=None) as (connection, peer):
        await peer.send(*frames)
        with pytest.raises(RemoteProtocolError):
            await connection.receive()
        goodbye = (await peer.rest())[-1]
        assert goodbye.code == 100


async def test_a_name_has_an_end() -> None:
    async with open_pair() as (client, there, _):
        await pair_of_channels(client, there, "ü" * 128)
        with pytest.raises(LocalProtocolError, match="256 bytes"):
            await client.open_channel("ü" * 129)
