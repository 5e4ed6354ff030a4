"""Beginning with a state, and going on without a gap or an overlap."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heartline import Fold, History, Position, SqliteStore, TopicSettings, Update
from heartline.errors import (
    ConfigurationError,
    InvalidArguments,
    LocalProtocolError,
    PushError,
    RemoteProtocolError,
    SlowConsumer,
)
from heartline.push._served import WINDOW_SIZE
from heartline.push._state import State
from heartline.wire import CborSerializer, encode_value
from tests.push.durable_world import append
from tests.push.helpers import (
    HandPublisher,
    begin,
    cut,
    next_update,
    open_client,
    open_hand_publisher,
    open_topics,
    publish,
    run,
    settle,
    take,
    take_values,
)
from tests.push.stores import Disk, FakeStore

LIST = Fold(initial=list, apply=append)


def listed(**settings: Any) -> dict[str, TopicSettings]:
    return {"topic": TopicSettings(fold=LIST, **settings)}


def told(update: Update[Any]) -> tuple[bool, int, Any]:
    return update.snapshot, update.offset, update.value


async def test_a_state_and_what_follows(autojump_clock: MockClock) -> None:
    async with open_topics(topics=listed()) as server, open_client(server) as client:
        await publish(server, "ab")
        subscription = client.subscribe("topic", since="snapshot")
        async with subscription as topic:
            with pytest.raises(LocalProtocolError, match="no position before its snapshot is handled"):
                subscription.position  # noqa: B018
            await settle()
            await publish(server, "cd")
            first = await next_update(topic)
            assert told(first) == (True, 2, ["a", "b"])
            assert list(map(told, await take(topic, 2))) == [(False, 3, "c"), (False, 4, "d")]
        assert server.topic_state("topic") == ["a", "b", "c", "d"]
        assert topic.position == Position(first.epoch, 4)


async def test_the_state_before_the_first_update(autojump_clock: MockClock) -> None:
    async with open_topics(topics=listed()) as server, open_client(server) as client:
        async with client.subscribe("topic", since="snapshot") as topic:
            assert told(await next_update(topic)) == (True, 0, [])
            await publish(server, "a")
            assert told(await next_update(topic)) == (False, 1, "a")


async def test_a_state_comes_in_the_place_of_a_gap(autojump_clock: MockClock) -> None:
    topics = listed(history=History(count=2))
    async with open_topics(topics=topics) as server, open_client(server) as client:
        async with client.subscribe("topic", since="snapshot") as topic:
            await take(topic, 1)
            await publish(server, "ab")
            await settle()
            cut(client)
            await publish(server, "cdef")
            assert list(map(told, await take(topic, 3))) == [
                (False, 1, "a"),
                (False, 2, "b"),
                (True, 6, list("abcdef")),
            ]


async def test_a_state_that_was_lost_with_its_link_comes_again(autojump_clock: MockClock) -> None:
    async with open_topics(topics=listed()) as server, open_client(server) as client:
        await publish(server, "a")
        hand = HandPublisher(server.connections[client.id])
        async with client.subscribe("topic", since="snapshot") as topic:
            await hand.notice(0, "snapshot")  # what it announces will not come on this link
            cut(client)
            await publish(server, "b")
            assert [told(update) for update in await take(topic, 1)] == [(True, 2, ["a", "b"])]


@pytest.mark.parametrize("size", [10, 2 * WINDOW_SIZE, 20 * 1024 * 1024])
async def test_a_state_of_any_length_takes_part_in_the_window(size: int, autojump_clock: MockClock) -> None:
    """A long one is waited for like a long update, and opens the window again when it is handled."""
    topics = {"topic": TopicSettings(fold=Fold(initial=lambda: bytes(size), apply=lambda state, _: state))}
    async with open_topics(topics=topics) as server, open_client(server) as client:
        async with client.subscribe("topic", since="snapshot") as topic:
            await settle()
            await publish(server, range(600))
            await settle()
            assert len(topic._following._waiting) == (257 if size == 10 else 1)
            first = await next_update(topic)
            assert (first.snapshot, len(first.value)) == (True, size)
            assert await take_values(topic, 600) == list(range(600))


async def test_one_encoding_serves_all(autojump_clock: MockClock) -> None:
    class Counted:
        made = 0

    def count(state: Any, value: Any) -> Any:
        Counted.made += 1
        return value

    topics = {"topic": TopicSettings(fold=Fold(apply=count))}
    async with open_topics(topics=topics) as server, open_client(server) as client:
        await publish(server, [{"a": 1}])
        state = server._publisher.find("topic").state
        assert state is not None
        first = state.encode()
        async with client.subscribe("topic", since="snapshot") as topic:
            assert (await next_update(topic)).value == {"a": 1}
        assert state.encode() is first
        assert Counted.made == 1


async def test_the_state_is_made_of_what_subscribers_decode(autojump_clock: MockClock) -> None:
    """What the publisher does with its objects afterwards changes nothing."""
    async with open_topics(topics=listed()) as server:
        value = {"a": (1, 2)}
        await server.publish("topic", value)
        value["a"] = (3, 4)
        assert server.topic_state("topic") == [{"a": [1, 2]}]


# What cannot be.


@dataclass
class Change:
    item: str
    count: int


def _count(state: dict[str, int], change: Change) -> dict[str, int]:
    return state | {change.item: state.get(change.item, 0) + change.count}


async def test_a_fold_gets_values_of_its_type(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    topics = {"topic": TopicSettings(fold=Fold(apply=_count, type=Change))}
    async with open_topics(topics=topics) as server:
        for count in (1, 2):
            await server.publish("topic", Change("a", count))
        assert server.topic_state("topic") == {"a": 3}
        await server.publish("topic", {"item": "a"})
        with pytest.raises(PushError, match=r"update 3 could not be applied: .*required field `count`"):
            server.topic_state("topic")


@pytest.mark.parametrize("target", [3, "Change", print])
def test_what_is_no_type_of_a_fold(target: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^Fold\.type=.* cannot be checked: "):
        Fold(apply=_count, type=target)


async def test_a_topic_without_a_fold_has_no_snapshot(autojump_clock: MockClock) -> None:
    async with open_topics() as server, open_client(server) as client:
        with pytest.raises(InvalidArguments, match="topic 'topic' has no snapshot"):
            await client.subscribe("topic", since="snapshot").__aenter__()
        with pytest.raises(ConfigurationError, match=r"topic 'topic' has no fold.*TopicSettings\.fold"):
            server.topic_state("topic")


async def test_a_state_does_not_go_with_skipping(autojump_clock: MockClock) -> None:
    async with open_topics(topics=listed()) as server, open_client(server) as client:
        with pytest.raises(ConfigurationError, match="since='snapshot' does not go with 'keep newest'"):
            client.subscribe("topic", since="snapshot", policy="keep newest")
        with pytest.raises(InvalidArguments, match="a state needs every update"):
            await begin(client, since="snapshot", policy="keep newest")
        with pytest.raises(InvalidArguments, match="since must be"):
            await begin(client, since=["epoch", 1, "state"])


async def test_who_wants_to_be_disconnected_is(autojump_clock: MockClock) -> None:
    topics = listed(history=History(count=2))
    async with open_topics(topics=topics) as server, open_client(server) as client:
        async with client.subscribe("topic", since="snapshot", policy="disconnect") as topic:
            await settle()
            await publish(server, [bytes(WINDOW_SIZE)] * 5)
            with pytest.raises(SlowConsumer):
                await take(topic, 7)


async def test_an_update_that_cannot_be_applied(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The topic goes on without its state, and says so."""
    topics = {"topic": TopicSettings(fold=Fold(initial=int, apply=lambda state, value: state + value))}
    async with open_topics(topics=topics) as server, open_client(server) as client:
        await publish(server, [1, 2])
        async with client.subscribe("topic") as plain, client.subscribe("topic", since="snapshot") as topic:
            assert (await take_values(topic, 1)) == [3]
            await publish(server, ["three", 4])
            assert await take_values(plain, 2) == ["three", 4]
            assert await take_values(topic, 2) == ["three", 4], "it needs no state as long as nothing is lost"
        reason = "^topic 'topic': there is no state: update 3 could not be applied: TypeError"
        async with client.subscribe("topic", since="snapshot") as late:
            with pytest.raises(PushError, match=reason):
                await late.__anext__()
        with pytest.raises(PushError, match=reason):
            server.topic_state("topic")
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    caplog.clear()


async def test_a_state_that_fails_while_it_is_needed(autojump_clock: MockClock) -> None:
    topics = {"topic": TopicSettings(fold=Fold(initial=int, apply=lambda _, value: value))}
    async with open_topics(topics=topics) as server, open_client(server) as client:
        async with client.subscribe("topic", since="snapshot") as topic:
            state = server._publisher.find("topic").state
            assert state is not None
            state.fail("by the test")
            with pytest.raises(PushError, match="no state"):
                await topic.__anext__()


@pytest.mark.parametrize(
    "frames",
    [
        [("notice", 5, "snapshot"), ("push", 6)],
        [("notice", 5, "snapshot"), ("push", 4)],
        [("notice", 5, "snapshot"), ("notice", 5, "snapshot")],
        [("push", 1), ("notice", 0, "snapshot")],
    ],
)
async def test_a_publisher_that_breaks_the_rules(frames: list[Any], autojump_clock: MockClock) -> None:
    async with open_hand_publisher(reconnect=None) as (hand, client):
        async with client.subscribe("topic", since="snapshot") as topic:
            for kind, *what in frames:
                await getattr(hand, kind)(*what)
            with pytest.raises(RemoteProtocolError, match="topic 'topic'"):
                await take(topic, 3)


async def test_a_snapshot_that_nobody_asked_for(autojump_clock: MockClock) -> None:
    async with open_hand_publisher(reconnect=None) as (hand, client), client.subscribe("topic") as topic:
        await hand.notice(0, "snapshot")
        with pytest.raises(RemoteProtocolError, match="unasked for"):
            await topic.__anext__()


async def test_a_snapshot_is_confirmed_like_an_update(autojump_clock: MockClock) -> None:
    async with open_hand_publisher() as (hand, client):
        hand.answer = [7, "epoch", 5]
        async with client.subscribe("topic", since="snapshot") as topic:
            assert hand.asked[-1][1] == "snapshot"
            await hand.notice(5, "snapshot")
            await hand.push(5, "state")
            assert hand.confirmed == [(7, 5)]
            assert told(await next_update(topic)) == (True, 5, "state")
            assert hand.confirmed == [(7, 5)]
        await settle()
        assert hand.confirmed[1] == (7, 5)


# With a store.


@given(st.integers(1, 5), st.lists(st.integers(0, 12), max_size=8))
def test_a_state_outlives_the_server(count: int, lives: list[int]) -> None:
    """However much of the history is forgotten, and however often the server restarts."""

    async def main() -> None:
        disk, expected = Disk(), list[int]()
        for life in [*lives, 0]:
            store = FakeStore(disk)
            async with open_topics(topics=listed(store=store, history=History(count=count))) as server:
                assert server.topic_state("topic") == expected
                for _ in range(life):
                    expected.append(len(expected))
                    await server.publish("topic", expected[-1])
                assert len(disk.topics["topic"].updates) <= count + 1
                async with (
                    open_client(server) as client,
                    client.subscribe("topic", since="snapshot") as topic,
                ):
                    assert (await next_update(topic)).value == expected

    run(main)


async def test_a_fold_that_comes_too_late(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What was forgotten cannot be added up: there is no state, rather than a wrong one."""
    disk, history = Disk(), History(count=2)
    topics = {"topic": TopicSettings(store=FakeStore(disk), history=history)}
    async with open_topics(topics=topics) as server:
        await publish(server, range(5))
    async with open_topics(topics=listed(store=FakeStore(disk), history=history)) as server:
        with pytest.raises(PushError, match=r"updates 1 to 2 are not stored any more; SqliteStore\.drop"):
            server.topic_state("topic")
        await publish(server, [5])
    caplog.clear()


@pytest.mark.parametrize("field", ["apply", "initial"])
def test_a_wrong_fold_is_refused(field: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"Fold\.{field} must be callable, not 5"):
        Fold(**({"apply": append} | {field: 5}))  # type: ignore[arg-type]


async def test_a_state_that_cannot_be_sent(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not kept, and the log says so; the topic goes on, and its store does not fill up for its sake."""
    disk, history = Disk(), History(count=2)
    fold = Fold(initial=object, apply=lambda state, _: state)
    topics = {"topic": TopicSettings(store=FakeStore(disk), history=history, fold=fold)}
    async with open_topics(topics=topics) as server, open_client(server) as client:
        await publish(server, range(10))
        async with client.subscribe("topic", since="snapshot") as topic:
            with pytest.raises(
                PushError, match=r"the one after update 1 cannot be sent: value: a value of type"
            ):
                await topic.__anext__()
        with pytest.raises(PushError, match="the one after update 1 cannot be sent"):
            server.topic_state("topic")
    assert len(disk.topics["topic"].updates) == 3
    assert disk.topics["topic"].state is None
    assert [record.levelname for record in caplog.records if record.name == "heartline.push"] == [
        "ERROR",
        "WARNING",
    ]
    caplog.clear()


async def test_a_large_state_is_looked_at_now_and_then(autojump_clock: MockClock) -> None:
    """Looking at it costs, in all, no more than the updates; what goes to the store is always looked at."""
    looks = 0

    class Counting(CborSerializer):
        def encode(self, value: Any, segments: list[Any]) -> bytes:
            nonlocal looks
            looks += isinstance(value, dict)
            return super().encode(value, segments)

    serializer = Counting()
    fold = Fold(apply=lambda state, value: state | {f"{value}": "x" * 50}, initial=lambda: {"a": "x" * 5000})
    state = State("topic", fold, serializer, durable=False)
    for offset in range(1, 2001):
        state.apply(offset, *encode_value(serializer, offset))
    assert 1 < looks < 30


async def test_a_saved_state_that_cannot_be_read(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    disk, history = Disk(), History(count=1)
    async with open_topics(topics=listed(store=FakeStore(disk), history=history)) as server:
        await publish(server, range(5))
    saved = disk.topics["topic"].state
    assert saved is not None
    disk.topics["topic"].state = replace(saved, payload=saved.payload[:9] + b"\xff")
    async with open_topics(topics=listed(store=FakeStore(disk), history=history)) as server:
        with pytest.raises(PushError, match=r"the one after update \d that was saved cannot be read"):
            server.topic_state("topic")
        await publish(server, [5])
    caplog.clear()


# A state that was lost.


def broken(state: Any, value: Any) -> Any:
    raise KeyError("oops")


FOLDS = {"ok": LIST, "none": None, "broken": Fold(initial=list, apply=broken)}


async def live(path: Path, fold: str, values: Sequence[int]) -> Any:
    """A life of the server, which ends with this state, or with this trouble."""
    async with SqliteStore(path) as store:
        settings = TopicSettings(store=store, history=History(count=3), fold=FOLDS[fold])
        async with open_topics(topics={"topic": settings}) as server:
            await publish(server, values)
            try:
                return server.topic_state("topic")
            except PushError as error:
                return str(error)
            except ConfigurationError:
                return None


@pytest.mark.parametrize("before", [[("ok", 10), ("none", 10)], [("ok", 10), ("broken", 10)], [("none", 10)]])
async def test_a_lost_state_counts_from_where_it_was_dropped(
    before: list[tuple[str, int]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store"
    for fold, count in before:
        await live(path, fold, range(count))
    assert "are not stored any more" in await live(path, "ok", [1])
    async with SqliteStore(path) as store:
        await store.drop_state("topic")
    assert await live(path, "ok", []) == []
    expected = []
    for life in range(5):
        expected += [life, -life]
        assert await live(path, "ok", expected[-2:]) == expected
    caplog.clear()


async def test_a_fold_that_is_mended_in_time_has_lost_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "store"
    await live(path, "ok", range(10))
    assert "update 9 could not be applied: KeyError('oops')" in await live(path, "broken", [])
    await live(path, "none", [10])
    assert await live(path, "ok", []) == list(range(11))
    caplog.clear()


@pytest.mark.parametrize("fold", ["none", "broken"])
async def test_a_state_that_will_be_lost_is_warned_of(
    fold: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once in each life in which something can still be done, and not where there is nothing to lose."""
    path = tmp_path / "store"

    def warnings() -> list[str]:
        told = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
        caplog.clear()
        return told

    await live(path, "none", range(2))
    await live(path, "ok", range(8))
    assert warnings() == []
    for _ in range(2):
        await live(path, fold, [])
        (told,) = warnings()
        assert "is lost once the history forgets update 9" in told
    await live(path, fold, range(10))
    assert len(warnings()) == 1
    await live(path, fold, [])
    assert warnings() == []


async def test_a_state_outlives_a_new_epoch(tmp_path: Path) -> None:
    path = tmp_path / "store"
    assert await live(path, "ok", range(10)) == list(range(10))
    async with SqliteStore(path) as store:
        await store.begin_anew()
    assert await live(path, "ok", [10]) == list(range(11))
