"""How updates travel: joined or at once, past each other, from inside services and at the end of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import Gap, History, Server, ServerStatistics, Update
from heartline.errors import ConfigurationError
from heartline.push import TopicStatistics
from heartline.push._served import WINDOW_COUNT
from tests.engine import link_of
from tests.patience import PATIENCE
from tests.push.helpers import (
    AGAIN,
    cut,
    open_client,
    open_pair,
    open_topics,
    publish,
    settle,
    take,
    take_values,
)

URLS = ["tcp://127.0.0.1:0", "ws://127.0.0.1:0", "unix"]


def count_writes(server: Server, name: str) -> list[int]:
    """The lengths of the writes to a client from now on."""
    link = link_of(server.connections[name])
    stream: Any = link.stream
    writes: list[int] = []
    send_all = stream.send_all

    async def counted(data: bytes) -> None:
        writes.append(len(data))
        await send_all(data)

    stream.send_all = counted
    return writes


async def test_a_single_update_leaves_at_once(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        await settle()
        writes = count_writes(server, client.id)
        for number in range(10):
            await server.publish("topic", number)
            await settle()
            assert len(writes) == number + 1
            assert await take_values(topic, 1) == [number]
        assert trio.current_time() == 0


async def test_what_is_published_in_a_hurry_is_joined(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client):
        async with client.subscribe("a") as a, client.subscribe("b") as b:
            await settle()
            writes, before = count_writes(server, client.id), client.statistics().frames_sent
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(server.publish, "a", number)
                    nursery.start_soon(server.publish, "b", number)
            await settle()
            assert len(writes) <= 3
            assert sorted(await take_values(a, 100)) == list(range(100))
            assert sorted(await take_values(b, 100)) == list(range(100))
            await settle()
            assert client.statistics().frames_sent - before <= 20, "and so are the confirmations"


@pytest.mark.parametrize("kind", ["memory://", *URLS])
async def test_a_long_update_delays_no_other_topic(kind: str, tmp_path: Path) -> None:
    """The small ones come while it is still on its way."""
    url = f"unix://{tmp_path}/socket" if kind == "unix" else kind
    async with open_topics(url) as server, open_client(server) as client:
        async with client.subscribe("bulk") as bulk, client.subscribe("topic") as topic:
            order: list[str] = []
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:

                    async def read(subscription: heartline.Subscription[Any], count: int) -> None:
                        for _ in range(count):
                            (update,) = await take(subscription, 1)
                            order.append(update.topic)

                    nursery.start_soon(read, bulk, 1)
                    nursery.start_soon(read, topic, 21)
                    await server.publish("bulk", bytes(40_000_000))
                    for number in range(20):
                        await server.publish("topic", number, wait="confirmed")
                    while "bulk" not in order:
                        await trio.sleep(0.01)
                    await server.publish("topic", "last")
            # Each of these went there and back.
            assert order.index("bulk") >= 5


@pytest.mark.parametrize("kind", URLS)
async def test_a_stream_of_updates_over_sockets(kind: str, tmp_path: Path) -> None:
    """Windows, long updates and losses of the link, with what the kernel's buffers make of them."""
    url = f"unix://{tmp_path}/socket" if kind == "unix" else kind
    count = 3 * WINDOW_COUNT
    sizes = (1, 100, 20_000, 1, 70_000, 1, 1)
    async with open_topics(url, history=History(count=10 * WINDOW_COUNT)) as server:
        async with open_client(server, identity="reader") as client, client.subscribe("topic") as topic:
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:

                    async def publish_all() -> None:
                        for number in range(count):
                            await server.publish("topic", [number, bytes(sizes[number % len(sizes)])])
                            if number % 250 == 249:
                                links = client.statistics().links
                                link = link_of(server.connections["reader"])
                                await link.stream.aclose()
                                while client.statistics().links == links:
                                    await trio.sleep(0.01)

                    nursery.start_soon(publish_all)
                    for number in range(count):
                        (update,) = await take(topic, 1)
                        assert update.value == [number, bytes(sizes[number % len(sizes)])]
            assert client.statistics().links >= 2


async def test_publishing_from_inside_a_service(autojump_clock: MockClock) -> None:
    """Also to the caller itself, and also waiting for its confirmation."""

    @heartline.service
    class Speaker:
        async def say(self, text: str) -> list[str]:
            receipt = await server.publish("topic", text, wait="confirmed")
            return sorted(receipt.confirmed)

    async with open_topics(services=[Speaker()]) as server, open_client(server) as client:
        async with trio.open_nursery() as nursery:
            heard: list[str] = []

            async def listen(task_status: trio.TaskStatus[None]) -> None:
                async with client.subscribe("topic") as topic:
                    task_status.started()
                    async for update in topic:
                        assert isinstance(update, Update)
                        heard.append(update.value)
                        if update.value == "over":
                            break

            await nursery.start(listen)
            speaker = client.service(Speaker)
            for text in ("hello", "over"):
                assert await speaker.say(text) == [client.id]
        assert heard == ["hello", "over"]


async def test_publishing_while_the_server_drains(autojump_clock: MockClock) -> None:
    """Who is still busy gets what is published; who has gone is waited for no longer than the timeout."""

    @heartline.service
    class Busy:
        async def work(self) -> str:
            await trio.sleep(2)
            return "done"

    async with open_topics(services=[Busy()]) as server, open_client(server, reconnect=None) as client:
        async with client.subscribe("topic") as topic, trio.open_nursery() as nursery:
            results: list[Any] = []

            async def work() -> None:
                results.append(await client.service(Busy).work())

            nursery.start_soon(work)
            await settle()
            nursery.start_soon(server.drain, 10.0)
            await settle()
            await publish(server, ["while it drains"])
            assert await take_values(topic, 1) == ["while it drains"]
            await trio.sleep(5)
            assert results == ["done"]
            receipt = await server.publish("topic", "nobody is here", wait="confirmed", timeout=1.0)
            assert not receipt.confirmed
            with pytest.raises(heartline.ConnectionClosed, match="draining"):
                await take(topic, 1)


# The server's side of topics.


async def test_the_statistics_of_topics(autojump_clock: MockClock) -> None:
    async with open_topics(history=History(count=500, age=100.0)) as server:
        assert server.statistics().topics == {}
        async with open_client(server) as one, open_client(server) as two:
            async with one.subscribe("topic") as slow, two.subscribe("topic", policy="keep newest"):
                async with two.subscribe("silent"):
                    await settle()
                    await publish(server, [bytes(90)] * 20)
                    await take(slow, 6)
                    await publish(server, range(3))
                    await take(slow, 1)
                    await settle()
                    statistics = server.statistics()
        assert isinstance(statistics, ServerStatistics)
        size = sum(entry.length for entry in server._publisher.find("topic").log)
        assert statistics.topics == {
            "topic": TopicStatistics(
                subscribers=2, last_offset=23, retained=23, retained_bytes=size, slowest_lag=23, skipped=0
            ),
            "silent": TopicStatistics(
                subscribers=1, last_offset=0, retained=0, retained_bytes=0, slowest_lag=0, skipped=0
            ),
        }
        assert size > 20 * 90
        await trio.sleep(101)
        after = server.statistics().topics["topic"]
        assert (after.subscribers, after.last_offset, after.retained, after.retained_bytes) == (0, 23, 0, 0)


async def test_a_topic_has_the_history_that_was_declared(autojump_clock: MockClock) -> None:
    async with open_pair(history=History(count=2)) as (server, client):
        async with client.subscribe("late") as late:
            server.declare_topic("long", history=History(count=100))
            server.declare_topic("late", history=History(count=5))
            for topic in ("long", "late", "default"):
                await publish(server, range(50), topic)
            statistics = server.statistics().topics
            assert {name: topic.retained for name, topic in statistics.items()} == {
                "long": 50,
                "late": 5,
                "default": 2,
            }
            assert await take_values(late, 50) == list(range(50))


async def test_a_declaration_comes_before_the_first_update(autojump_clock: MockClock) -> None:
    async with open_topics() as server:
        server.declare_topic("topic", history=History(count=1))
        server.declare_topic("topic", history=History(count=2))
        await publish(server, range(3))
        with pytest.raises(ConfigurationError, match="'topic' has updates already"):
            server.declare_topic("topic", history=History(count=3))
        assert server.statistics().topics["topic"].retained == 2
        with pytest.raises(ConfigurationError, match=r"history must be a heartline.History, not 5"):
            server.declare_topic("other", history=5)  # type: ignore[arg-type]


async def test_who_is_subscribed(autojump_clock: MockClock) -> None:
    async with open_topics() as server, open_client(server) as one, open_client(server) as two:
        assert server.subscribers("topic") == frozenset()
        async with one.subscribe("topic"), one.subscribe("topic"):
            async with two.subscribe("topic"), two.subscribe("other"):
                assert server.subscribers("topic") == {one.id, two.id}
            await settle()
            assert server.subscribers("topic") == {one.id}
            cut(one)
            await settle()
            assert server.subscribers("topic") == frozenset()


async def test_a_state_that_all_clients_share(autojump_clock: MockClock) -> None:
    """Clients that come, go and lose their links hold the newest state in the end, and never an older one."""
    async with open_topics(history=History(count=3)) as server, trio.open_nursery() as nursery:
        states: dict[int, int] = {}

        async def follow(number: int) -> None:
            policy: heartline.SlowPolicy = "drop oldest" if number % 2 else "keep newest"
            async with open_client(server, reconnect=AGAIN) as client:
                async with client.subscribe("state", since="newest", policy=policy) as topic:
                    while True:
                        (update,) = await take(topic, 1)
                        if isinstance(update, Gap):
                            continue
                        assert update.value > states.get(number, -1)
                        states[number] = update.value
                        if update.value % 10 == number:
                            cut(client)
                        await trio.sleep(number / 10)

        for number in range(10):
            nursery.start_soon(follow, number)
        for state in range(100):
            await server.publish("state", state)
            await trio.sleep(0.1)
        await trio.sleep(100)
        assert states == dict.fromkeys(range(10), 99)
        nursery.cancel_scope.cancel()
