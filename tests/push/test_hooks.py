"""Middleware around subscribing and publishing: what is refused or given up leaves nothing behind."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import given
from trio.testing import MockClock

from heartline import (
    CallError,
    ConnectionLost,
    Forbidden,
    InvalidArguments,
    KeyReused,
    Observer,
    Operation,
    Overloaded,
    RemoteError,
    Server,
    SqliteStore,
    TopicSettings,
)
from heartline.observe import Proceed
from heartline.push import Push
from tests.engine import core_of
from tests.small_middleware import Allowed, Journal

from .helpers import (
    HandSubscriber,
    cut,
    is_stuck,
    open_client,
    open_pair,
    open_topics,
    run,
    settle,
    take_values,
)


class Gate:
    """Subscriptions wait here, before and after they begin, and may be refused."""

    def __init__(
        self, *, before: float = 0.0, after: float = 0.0, shield: bool = False, error: Exception | None = None
    ) -> None:
        self.before, self.after, self.shield, self.error = before, after, shield, error

    async def __call__(self, operation: Operation, proceed: Proceed) -> Any:
        if operation.kind != "subscribe":
            return await proceed()
        with trio.CancelScope(shield=self.shield):
            await trio.sleep(self.before)
            await proceed()
            await trio.sleep(self.after)
            if self.error is not None:
                raise self.error
        return "not what the publisher says"


def check_nothing_left(server: Server, topic: str = "topic") -> None:
    assert not server.subscribers(topic)
    for connection in server.connections.values():
        push = core_of(connection).find_part(Push)
        assert push is None or not (push._served or push._requests)


class TestSubscribe:
    async def test_it_sees_where_a_subscription_begins(self) -> None:
        seen = []

        async def look(operation: Operation, proceed: Proceed) -> Any:
            if operation.kind == "subscribe":
                seen.append(operation)
            return await proceed()

        async with open_pair(middleware=[look]) as (server, client):
            await server.publish("topic", 1)
            async with client.subscribe("topic", since="oldest") as subscription:
                assert await take_values(subscription, 1) == [1]
        assert [(one.name, one.peer, one.subject) for one in seen] == [("topic", client.id, "oldest")]

    async def test_a_permission_by_topic(self) -> None:
        allowed = Allowed({"secret": {"ada"}, "closed": set()})
        async with (
            open_topics(middleware=[allowed]) as server,
            open_client(server, identity="ada") as ada,
            open_client(server, identity="ben") as ben,
        ):
            async with ada.subscribe("secret"), ben.subscribe("open"):
                with pytest.raises(Forbidden, match=r"^subscribe to '\w+': ben may not subscribe here"):
                    async with ben.subscribe("secret"):
                        pass
                await settle()
                assert server.subscribers("secret") == {"ada"}
                assert server.subscribers("open") == {"ben"}

    @pytest.mark.parametrize(
        ("error", "told"),
        [(PermissionError("no"), Forbidden), (Overloaded("no"), Overloaded), (ValueError("no"), RemoteError)],
    )
    @pytest.mark.parametrize("after", [False, True])
    async def test_a_refused_one_leaves_nothing(
        self, error: Exception, told: type[CallError], after: bool, autojump_clock: MockClock
    ) -> None:
        async def refuse(operation: Operation, proceed: Proceed) -> Any:
            if after or operation.kind != "subscribe":
                result = await proceed()
                if operation.kind != "subscribe":
                    return result
                assert server.subscribers("topic")
            raise error

        async with open_pair(middleware=[refuse]) as (server, client), open_client(server) as other:
            hand = HandSubscriber(other)  # nobody says LEAVE for it
            for _ in range(3):
                with pytest.raises(told, match="no"):
                    await hand.subscribe("topic")
                check_nothing_left(server)
            with pytest.raises(told, match="no"):
                async with client.subscribe("topic"):
                    pass
            await settle()
            check_nothing_left(server)
            assert client.statistics().links == 1

    async def test_the_key_of_another_one_harms_nobody(self, autojump_clock: MockClock) -> None:
        async with open_pair(middleware=[Gate(before=1)]) as (server, client):
            hand = HandSubscriber(client)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hand.subscribe, "topic")
                await settle()
                with pytest.raises(InvalidArguments, match="the key 1 is that of another subscription"):
                    await hand.subscribe("topic")
            assert server.subscribers("topic") == {client.id}
            with pytest.raises(InvalidArguments, match="the key 1 is that of another subscription"):
                await hand.subscribe("topic")
            assert server.subscribers("topic") == {client.id}

    @pytest.mark.parametrize("shield", [False, True])
    @pytest.mark.parametrize("order", ["cancel", "leave", "cancel, leave", "leave, cancel"])
    @pytest.mark.parametrize("when", [0.5, 1.5])
    async def test_one_that_is_given_up_leaves_nothing(
        self, order: str, shield: bool, when: float, autojump_clock: MockClock
    ) -> None:
        gate = Gate(before=1, after=1, shield=shield)
        async with open_pair(middleware=[gate]) as (server, client):
            hand = HandSubscriber(client)
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()

                async def ask() -> None:
                    with scope, suppress(Forbidden):
                        await hand.subscribe("topic")

                nursery.start_soon(ask)
                await trio.sleep(when)
                assert bool(server.subscribers("topic")) == (when > 1)
                for step in order.split(", "):
                    if step == "cancel":
                        scope.cancel()
                        await settle()
                    else:
                        await hand.leave(1)
            await trio.sleep(5)
            check_nothing_left(server)
            assert client.statistics().links == 1
            gate.before = gate.after = 0
            await hand.subscribe("topic")
            assert server.subscribers("topic") == {client.id}

    async def test_one_whose_session_ends_leaves_nothing(self, autojump_clock: MockClock) -> None:
        gate = Gate(before=1, shield=True)
        async with open_pair(middleware=[gate]) as (server, client), trio.open_nursery() as nursery:

            async def follow() -> None:
                async with client.subscribe("topic") as subscription:
                    assert await take_values(subscription, 1) == [1]

            nursery.start_soon(follow)
            await trio.sleep(0.5)
            cut(client)  # it asks once more, in its next session
            await trio.sleep(5)
            assert server.subscribers("topic") == {client.id}
            await server.publish("topic", 1)
            await trio.sleep(1)
            check_nothing_left(server)

    async def test_what_is_asked_for_ends_with_its_session(self) -> None:
        async with open_pair() as (server, client):
            push = core_of(server.connections[client.id]).part(Push)
            with push.request(7) as request:
                push.on_session_end(ConnectionLost("cut"), lambda _frame_type: set())
                assert request.given_up
                with push.request(7) as another:
                    pass
                assert not another.given_up
            assert not push._requests

    async def test_a_subscription_is_asked_about_in_every_session(self, autojump_clock: MockClock) -> None:
        allowed = Allowed({})
        async with open_pair(middleware=[allowed]) as (server, client):
            with pytest.raises(Forbidden):
                async with client.subscribe("topic") as subscription:
                    allowed.topics["topic"] = set()
                    cut(client)
                    await take_values(subscription, 1)
            check_nothing_left(server)

    async def test_one_that_was_put_off_after_a_loss_tries_again(self, autojump_clock: MockClock) -> None:
        refusals = 0

        async def put_off(operation: Operation, proceed: Proceed) -> Any:
            nonlocal refusals
            if operation.kind == "subscribe" and refusals:
                refusals -= 1
                await proceed()
                raise Overloaded("one moment")
            return await proceed()

        async with open_pair(middleware=[put_off]) as (server, client):
            async with client.subscribe("topic") as subscription:
                refusals = 3
                cut(client)
                await settle()
                await server.publish("topic", "missed")
                assert await take_values(subscription, 1) == ["missed"]
            assert not refusals


@given(
    before=st.sampled_from([0.0, 1.0]),
    after=st.sampled_from([0.0, 1.0]),
    shield=st.booleans(),
    error=st.sampled_from([None, PermissionError("no"), Overloaded("no"), ValueError("no")]),
    patience=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 9.0]), min_size=1, max_size=4),
    cuts=st.lists(st.sampled_from([0.3, 1.3, 2.3]), max_size=2),
)
def test_whatever_middleware_does_what_is_left_leaves_nothing(
    before: float,
    after: float,
    shield: bool,
    error: Exception | None,
    patience: list[float],
    cuts: list[float],
) -> None:
    async def follow(client: Any, seconds: float) -> None:
        with trio.move_on_after(seconds):
            try:
                async with client.subscribe("topic") as subscription:
                    await take_values(subscription, 1)
            except CallError:
                pass

    async def main() -> None:
        gate = Gate(before=before, after=after, shield=shield, error=error)
        async with open_pair(middleware=[gate]) as (server, client):
            async with trio.open_nursery() as nursery:
                for seconds in patience:
                    nursery.start_soon(follow, client, seconds)
                for moment in cuts:
                    await trio.sleep(moment)
                    cut(client)
                    await client.wait_open()
            await trio.sleep(10)
            check_nothing_left(server)
            gate.error = None
            async with client.subscribe("topic") as subscription:
                await server.publish("topic", 1)
                assert await take_values(subscription, 1) == [1]

    run(main)


class TestPublish:
    async def test_it_sees_the_value_and_keeps_the_receipt(self) -> None:
        seen = []

        async def look(operation: Operation, proceed: Proceed) -> None:
            if operation.kind == "publish":
                seen.append(operation)
            await proceed()

        async with open_topics(middleware=[look]) as server:
            assert (await server.publish("topic", {"a": 1})).offset == 1
        assert seen == [Operation(kind="publish", name="topic", peer="", subject={"a": 1})]

    async def test_a_permission_by_topic(self) -> None:
        async with open_topics(middleware=[Allowed({"closed": set()})]) as server:
            await server.publish("open", 1)
            with pytest.raises(PermissionError, match="the server may not publish here"):
                await server.publish("closed", 1)
            assert "closed" not in server.statistics().topics

    async def test_errors_of_publishing_pass_through_it(self) -> None:
        journal = Journal()
        async with open_topics(middleware=[journal]) as server:
            await server.publish("topic", 1, key="a")
            with pytest.raises(KeyReused):
                await server.publish("topic", 2, key="a")
        assert journal.lines == ["publish topic", "publish topic: KeyReused"]

    async def test_to_forget_about_it_publishes_nothing(self) -> None:
        async def forget(_operation: Operation, _proceed: Proceed) -> Any:
            return "fine"

        async with open_topics(middleware=[forget]) as server:
            with pytest.raises(PermissionError, match="did not go on with publish 'topic'"):
                await server.publish("topic", 1)
            assert not server.statistics().topics

    async def test_it_may_delay_and_be_cancelled(self, autojump_clock: MockClock) -> None:
        async def wait(operation: Operation, proceed: Proceed) -> Any:
            await trio.sleep_forever()
            return await proceed()

        async with open_topics(middleware=[wait]) as server:
            assert await is_stuck(lambda: server.publish("topic", 1))
            assert not server.statistics().topics


class TestObservers:
    @pytest.mark.parametrize("stored", [False, True])
    async def test_they_hear_of_every_update_once(
        self, stored: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Heard(Observer):
            def update_published(self, topic: str, offset: int, size: int) -> None:
                heard.append((topic, offset, size))

        class Broken(Observer):
            def update_published(self, topic: str, offset: int, size: int) -> None:
                raise ZeroDivisionError

        heard: list[tuple[str, int, int]] = []
        async with (
            SqliteStore(tmp_path / "store") as store,
            open_pair(
                observers=[Broken(), Heard()],
                topics={"topic": TopicSettings(store=store if stored else None)},
            ) as (server, client),
        ):
            async with client.subscribe("topic") as subscription:
                await server.publish("topic", "x" * 100, key="a")
                await server.publish("topic", "x" * 100, key="a")
                await server.publish("topic", "x" * 200)
                assert [len(value) for value in await take_values(subscription, 2)] == [100, 200]
            assert server.statistics().topics["topic"].retained_bytes == sum(size for _, _, size in heard)
        assert [(topic, offset) for topic, offset, _size in heard] == [("topic", 1), ("topic", 2)]
        assert heard[1][2] - heard[0][2] == 100
        assert [record.name for record in caplog.records] == ["heartline.observe"] * 2
