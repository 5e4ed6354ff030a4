"""Publishing with a key: once, however often it is repeated."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from heartline import History
from heartline.errors import ConfigurationError, KeyReused, StoreError
from heartline.push._keys import MAX_KEY
from tests.push.helpers import open_pair, open_topics, settle, take_values
from tests.push.stores import Disk
from tests.push.test_journal import open_durable


async def test_a_repeated_publish_publishes_nothing(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        first = await server.publish("topic", {"a": 1}, key="one")
        assert await server.publish("topic", {"a": 1}, key="one") == first
        assert (await server.publish("topic", {"a": 1}, key="two")).offset == 2
        assert (await server.publish("topic", {"a": 1})).offset == 3
        assert (await server.publish("other", {"a": 1}, key="one")).offset == 1
        assert (await take_values(topic, 3)) == [{"a": 1}] * 3


async def test_who_came_after_the_update_is_not_waited_for(autojump_clock: MockClock) -> None:
    """It can never confirm what it was never given."""
    async with open_pair() as (server, client):
        await server.publish("topic", "value", key="one")
        async with client.subscribe("topic"):
            await settle()
            for wait in ("sent", "confirmed"):
                with trio.fail_after(1):
                    receipt = await server.publish("topic", "value", key="one", wait=wait)
                assert not receipt.confirmed | receipt.missing


async def test_the_same_key_with_another_value(autojump_clock: MockClock) -> None:
    async with open_topics() as server:
        await server.publish("topic", 0)
        await server.publish("topic", 1, key="one")
        with pytest.raises(KeyReused, match="the key 'one' is that of update 2") as caught:
            await server.publish("topic", 2, key="one")
        assert (caught.value.topic, caught.value.key, caught.value.offset) == ("topic", "one", 2)
        assert server.statistics().topics["topic"].last_offset == 2


async def test_at_the_same_time(autojump_clock: MockClock) -> None:
    async with open_durable() as (server, store):
        offsets = []

        async def publish() -> None:
            offsets.append((await server.publish("topic", "value", key="key")).offset)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(publish)
        assert offsets == [1] * 10
        assert [len(batch) for batch in store.batches] == [1]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_who_waits_takes_over_from_one_that_did_not_publish(
    end: str, autojump_clock: MockClock
) -> None:
    async with open_durable() as (server, store), trio.open_nursery() as nursery:
        store.planted.append(StoreError("planted"))

        async def publish_first() -> None:
            with pytest.raises(StoreError):
                await server.publish("topic", "value", key="key" if end == "failed" else None)

        nursery.start_soon(publish_first)
        await settle()
        with trio.CancelScope() as scope:
            if end == "cancelled":
                nursery.start_soon(_cancel_soon, scope)
                await server.publish("topic", "value", key="key")
        assert (await server.publish("topic", "value", key="key")).offset == 1


async def _cancel_soon(scope: trio.CancelScope) -> None:
    await trio.sleep(0.5)
    scope.cancel()


async def test_keys_outlive_the_server(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with open_durable(disk) as (server, _):
        first = await server.publish("topic", "value", key="key")
    async with open_durable(disk) as (server, store):
        assert await server.publish("topic", "value", key="key") == first
        with pytest.raises(KeyReused):
            await server.publish("topic", "other", key="key")
        assert not store.batches


@pytest.mark.parametrize("durable", [False, True])
async def test_the_memory_of_keys_is_bounded(durable: bool, autojump_clock: MockClock) -> None:
    """The newest keys are remembered, in the store too, however long the history is."""
    disk, history = Disk(), History(keys=3)
    async with open_durable(disk, history=history) if durable else _open_plain(history) as (server, _):
        for number in range(10):
            await server.publish("topic", number, key=str(number))
            await server.publish("topic", number)
        for number in (7, 8, 9):
            receipt = await server.publish("topic", number, key=str(number))
            assert receipt.offset == 2 * number + 1
        assert len(server._publisher.find("topic").keys) == 3
        assert (await server.publish("topic", 6, key="6")).offset == 21
    if durable:
        assert len(disk.topics["topic"].keys) <= 4


def _open_plain(history: History) -> Any:
    class Plain:
        async def __aenter__(self) -> Any:
            self.server = open_topics(history=history)
            return await self.server.__aenter__(), None

        async def __aexit__(self, *error: Any) -> None:
            await self.server.__aexit__(*error)

    return Plain()


async def test_a_repeated_publish_waits_for_the_confirmations_of_the_first(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        receipt = await server.publish("topic", 1, key="key", wait="confirmed", timeout=1.0)
        assert receipt.missing == {client.id}
        async with trio.open_nursery() as nursery:
            await take_values(topic, 1)
            nursery.start_soon(topic.__anext__)
            receipt = await server.publish("topic", 1, key="key", wait="confirmed", timeout=1.0)
            assert receipt.confirmed == {client.id}
            # And once it is confirmed, there is nothing to wait for.
            start = trio.current_time()
            receipt = await server.publish("topic", 1, key="key", wait="confirmed")
            assert (receipt.confirmed, trio.current_time()) == ({client.id}, start)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY + 1), "a\nb", "\ud800", 5, b"key"])
async def test_a_wrong_key_is_refused(key: Any) -> None:
    async with open_topics() as server:
        with pytest.raises(ConfigurationError, match=f"a key is text of 1 to {MAX_KEY} printable characters"):
            await server.publish("topic", 1, key=key)
        assert (await server.publish("topic", 1, key="x" * MAX_KEY)).offset == 1
