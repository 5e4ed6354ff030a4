"""Topics of a client, to which its server subscribes."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from heartline import (
    ConnectionClosed,
    ConnectionLost,
    Fold,
    Gap,
    History,
    Level,
    LocalProtocolError,
    PushError,
    SqliteStore,
    TopicSettings,
)
from tests.patience import PATIENCE
from tests.push.helpers import cut, open_client, open_pair, open_topics, publish, settle, take, take_values


@pytest.mark.parametrize("url", ["memory://", "tcp://127.0.0.1:0"])
async def test_a_server_follows_a_topic_of_its_client(url: str) -> None:
    async with open_topics(url) as server, open_client(server) as client:
        await client.publish("state", "before")
        connection = server.connections[client.id]
        async with connection.subscribe("state", since="oldest") as topic, trio.open_nursery() as nursery:

            async def follow() -> None:
                assert await take_values(topic, 2) == ["before", "now"]
                nursery.start_soon(topic.__anext__)

            nursery.start_soon(follow)
            with trio.fail_after(PATIENCE):
                receipt = await client.publish("state", "now", wait="confirmed")
            assert (receipt.offset, receipt.confirmed) == (2, {client.id})
            nursery.cancel_scope.cancel()


async def test_both_follow_a_topic_of_the_same_name(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        connection = server.connections[client.id]
        async with client.subscribe("topic") as theirs, connection.subscribe("topic") as ours:
            await server.publish("topic", "from the server")
            await client.publish("topic", "from the client")
            assert await take_values(theirs, 1) == ["from the server"]
            assert await take_values(ours, 1) == ["from the client"]


async def test_it_does_not_notice_that_a_link_was_lost(autojump_clock: MockClock) -> None:
    """What is published while there is none waits in the history."""
    async with open_topics() as server, open_client(server, resume_window=60.0) as client:
        async with server.connections[client.id].subscribe("topic") as topic:
            for turn in range(5):
                cut(client)
                await client.publish("topic", turn)
                assert await take_values(topic, 1) == [turn]
        assert client.statistics().resumed == 5


async def test_it_ends_with_the_session_of_its_client(autojump_clock: MockClock) -> None:
    """The client comes back as another connection; with the position nothing is missed there."""
    async with open_topics() as server, open_client(server, identity="ann") as client:
        topic = server.connections["ann"].subscribe("topic")
        with pytest.raises(ConnectionLost):
            async with topic:
                await publish_here(client, 1, 2)
                assert await take_values(topic, 2) == [1, 2]
                cut(client)
                await anext(topic)
        await publish_here(client, 3)
        await client.wait_open()
        async with server.connections["ann"].subscribe("topic", since=topic.position) as again:
            assert await take_values(again, 1) == [3]


async def publish_here(client: object, *values: int) -> None:
    """Publish on a client's topic."""
    await publish(client, values)  # type: ignore[arg-type]


async def test_a_client_declares_and_deletes(autojump_clock: MockClock) -> None:
    topics = {"sum": TopicSettings(fold=Fold(initial=int, apply=int.__add__))}
    async with (
        open_topics() as server,
        open_client(server, topics=topics, history=History(count=2)) as client,
    ):
        client.declare_topic("long", history=History(count=50))
        connection = server.connections[client.id]
        for value in range(10):
            for name in ("long", "short", "sum"):
                await client.publish(name, value)
        assert client.topic_state("sum") == 45
        async with connection.subscribe("long", since="oldest") as topic:
            assert await take_values(topic, 10) == list(range(10))
            await client.delete_topic("long")
            with pytest.raises(PushError, match="topic 'long': the topic was deleted"):
                await take(topic, 2)
        async with connection.subscribe("short", since="oldest") as topic:
            assert await take_values(topic, 2) == [8, 9]


async def test_a_topic_of_a_client_has_a_store(tmp_path: Path) -> None:
    """It goes on in the next life of the client."""
    epochs = set()
    async with open_topics() as server, SqliteStore(tmp_path / "store") as store:
        topics = {"topic": TopicSettings(store=store)}
        for life in range(3):
            async with open_client(server, identity="ann", topics=topics) as client:
                receipt = await client.publish("topic", life, key=str(life))
                assert (receipt.level, receipt.offset) == (Level.STORED, life + 1)
                epochs.add(receipt.epoch)
                async with server.connections["ann"].subscribe("topic", since="oldest") as topic:
                    assert await take_values(topic, life + 1) == list(range(life + 1))
    assert len(epochs) == 1


async def test_a_client_that_begins_again_begins_its_topics_again(autojump_clock: MockClock) -> None:
    async with open_topics() as server:
        async with open_client(server, identity="ann") as client:
            await client.publish("topic", 1)
            async with server.connections["ann"].subscribe("topic", since="oldest") as topic:
                assert await take_values(topic, 1) == [1]
        async with open_client(server, identity="ann") as client:
            async with server.connections["ann"].subscribe("topic", since=topic.position) as again:
                gap = await anext(again)
                assert isinstance(gap, Gap)
                assert (gap.first, gap.last, gap.anew) == (2, 0, True)


async def test_a_servers_connection_publishes_nothing_of_its_own(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        connection = server.connections[client.id]
        with pytest.raises(LocalProtocolError, match=r"Server\.publish"):
            await connection.publish("topic", 1)
        for use in (connection.declare_topic, connection.topic_state):
            with pytest.raises(LocalProtocolError, match=r"Server\."):
                use("topic")
        with pytest.raises(LocalProtocolError, match=r"Server\."):
            await connection.delete_topic("topic")
        assert not server.statistics().topics


async def test_nobody_can_get_what_a_closed_client_publishes(autojump_clock: MockClock) -> None:
    async with open_pair() as (_, client):
        await client.aclose()
        await settle()
        with pytest.raises(ConnectionClosed):
            await client.publish("topic", 1)
