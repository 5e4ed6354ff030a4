"""Links that break and servers that restart: nothing twice, nothing out of order, no loss in silence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from fuzz.properties import push as properties
from fuzz.runner import Property, properties_of
from heartline import (
    Backoff,
    CloseCode,
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionLost,
    Gap,
    History,
    Outcome,
    Overloaded,
    Position,
    Server,
)
from heartline.link import Part
from heartline.push import Push
from heartline.push._following import OVERLOADED_PAUSE
from heartline.rpc import Calls
from heartline.wire import Frame, FrameType
from tests.engine import core_of
from tests.push.helpers import (
    cut,
    open_client,
    open_hand_publisher,
    open_pair,
    open_topics,
    publish,
    put_part,
    settle,
    take,
    take_gap,
    take_values,
)


@pytest.mark.slow
@pytest.mark.parametrize("prop", properties_of(properties), ids=lambda prop: prop.__name__)
def test_property(prop: Property) -> None:
    prop()


# The link.


@pytest.mark.parametrize("since", [None, "newest", "oldest"])
async def test_what_is_published_before_the_first_update_came_is_not_lost(
    since: Any, autojump_clock: MockClock
) -> None:
    """It began, and has a place, although it never got anything."""
    async with open_pair() as (server, client), client.subscribe("topic", since=since) as topic:
        cut(client)
        await publish(server, range(3))
        assert await take_values(topic, 3) == [0, 1, 2]
        assert client.statistics().links == 2


async def test_what_has_arrived_is_kept_over_a_loss(autojump_clock: MockClock) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        await publish(server, range(10))
        await settle()
        cut(client)
        await settle()
        assert core_of(client).link is None
        assert await take_values(topic, 10) == list(range(10))
        await publish(server, [10])
        assert await take_values(topic, 1) == [10]


async def test_a_long_update_begins_anew_after_a_loss(autojump_clock: MockClock) -> None:
    long = bytes(range(256)) * 4000
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        await publish(server, ["before", long, "behind"])
        assert await take_values(topic, 1) == ["before"]
        cut(client)
        assert await take_values(topic, 2) == [long, "behind"]
        assert client.statistics().links == 2


async def test_a_gap_is_told_although_the_link_is_lost_in_the_middle_of_it(autojump_clock: MockClock) -> None:
    async with open_hand_publisher() as (hand, client), client.subscribe("topic") as topic:
        await hand.push(1)
        await hand.notice(2, "gap", 8, True)  # its newest update will not come on this link
        assert await take(topic, 1)
        cut(client)
        assert await anext(topic) == Gap(topic="topic", epoch="epoch", first=2, last=8)
        # The real publisher, that is there now, has never heard of this epoch.
        (gap,) = await take(topic, 1)
        assert (gap.first, gap.anew) == (9, True)


async def test_an_answer_that_the_link_did_not_survive(autojump_clock: MockClock) -> None:
    """The task that subscribes is resumed when the link on which it was answered has gone."""
    async with open_pair() as (server, client):
        _break_at(client, Calls, FrameType.RESULT, seen=True)
        async with client.subscribe("topic") as topic:
            assert client.statistics().links == 2
            await publish(server, [1])
            assert await take_values(topic, 1) == [1]


@pytest.mark.parametrize("times", [1, 3])
async def test_an_overloaded_peer_is_asked_again_after_a_loss(times: int, autojump_clock: MockClock) -> None:
    """Many subscriptions come back at once; that is no reason to end one."""
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        _overload(client, times)
        cut(client)
        await publish(server, [1])
        assert await take_values(topic, 1) == [1]
        assert trio.current_time() >= times * OVERLOADED_PAUSE


async def test_an_overloaded_peer_refuses_a_subscription(autojump_clock: MockClock) -> None:
    async with open_pair() as (_, client):
        _overload(client, 1)
        with pytest.raises(Overloaded):
            await client.subscribe("topic").__aenter__()
        # Beginning with a position, it has not begun either.
        _overload(client, 1)
        with pytest.raises(Overloaded):
            await client.subscribe("topic", since=Position("epoch", 1)).__aenter__()


def _overload(client: Connection, times: int) -> None:
    """The next calls of this client are answered as by a peer without room."""
    push = core_of(client).part(Push)
    subscribe = push._subscribe

    async def refuse(*arguments: Any) -> Any:
        nonlocal times
        if times:
            times -= 1
            await trio.lowlevel.checkpoint()
            raise Overloaded("no room", outcome=Outcome.NOT_SENT)
        return await subscribe(*arguments)

    push._subscribe = refuse


def _break_at(client: Connection, kind: type[Part], frame_type: int, *, seen: bool) -> None:
    """The link breaks when it has brought a frame of this type, whether that is seen or not."""
    inner = core_of(client).part(kind)

    def on_frame(frame: Frame) -> None:
        if frame.type != frame_type or client.statistics().links != links:
            inner.on_frame(frame)
            return
        if seen:
            inner.on_frame(frame)
        raise ConnectionLost("by the test")

    # The present link, or the next one if there is none.
    links = client.statistics().links + (core_of(client).link is None)
    put_part(client, cast(Part, _Instead(inner, on_frame=on_frame)))


class _Instead:
    """An object with some attributes replaced."""

    def __init__(self, inner: Any, **replaced: Any) -> None:
        self._inner = inner
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def test_waiting_for_a_link_costs_nothing(autojump_clock: MockClock) -> None:
    """While the old link is closed at leisure nobody spins."""

    class Count(trio.abc.Instrument):
        steps = 0

        def before_task_step(self, _task: trio.lowlevel.Task) -> None:
            self.steps += 1

    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        link, far_link = core_of(client).link, core_of(server.connections[client.id]).link
        assert link is not None
        assert far_link is not None

        async def close_slowly() -> None:
            await trio.sleep(0.9)
            link.stream.close()  # type: ignore[attr-defined]

        link.stream.aclose = close_slowly  # type: ignore[method-assign]
        count = Count()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, topic, 1)
            await settle()
            trio.lowlevel.add_instrument(count)
            link.fail(ConnectionLost("by the test"))
            await trio.sleep(0.8)
            trio.lowlevel.remove_instrument(count)
            nursery.cancel_scope.cancel()
        assert count.steps < 100


# The end of the connection.


async def test_a_client_that_does_not_reconnect(autojump_clock: MockClock) -> None:
    async with open_topics() as server, open_client(server, reconnect=None) as client:
        async with client.subscribe("topic") as topic:
            await publish(server, range(3))
            await settle()
            cut(client)
            await settle()
            assert await take_values(topic, 3) == [0, 1, 2], "they had arrived"
            with pytest.raises(ConnectionLost):
                await take(topic, 1)


async def test_a_client_that_gives_up_reconnecting(autojump_clock: MockClock) -> None:
    async with open_restarting() as (_, end):
        async with open_client("memory://restarting", reconnect=Backoff(initial=0.1, attempts=2)) as client:
            async with client.subscribe("topic") as topic:
                await end()
                with pytest.raises(ConnectionFailed, match="gave up reconnecting"):
                    await take(topic, 1)


async def _by_server(server: Server, client: Connection) -> None:
    await server.close_connection(client.id, reason="enough")


async def _by_client(_server: Server, client: Connection) -> None:
    await client.aclose()


@pytest.mark.parametrize(
    ("end", "code", "by_peer"), [(_by_server, CloseCode.KICKED, True), (_by_client, CloseCode.NORMAL, False)]
)
async def test_who_waits_learns_how_the_connection_was_closed(
    end: Callable[[Server, Connection], Awaitable[None]],
    code: CloseCode,
    by_peer: bool,
    autojump_clock: MockClock,
) -> None:
    async with open_pair() as (server, client), client.subscribe("topic") as topic:
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                for _ in range(2):
                    with pytest.raises(ConnectionClosed) as caught:
                        await take(topic, 1)
                    assert (caught.value.code, caught.value.by_peer) == (code, by_peer)

            nursery.start_soon(read)
            await settle()
            await end(server, client)
        with pytest.raises(ConnectionClosed):
            await client.subscribe("topic").__aenter__()


# The server.

Change = Callable[[], Awaitable[None]]


@asynccontextmanager
async def open_restarting(**settings: Any) -> AsyncIterator[tuple[list[Server], Change]]:
    """A server, and a function that ends it and begins another one when there is none."""
    async with trio.open_nursery() as nursery:
        servers: list[Server] = []
        scopes: list[trio.CancelScope] = []

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            with trio.CancelScope() as scope:
                async with open_topics("memory://restarting", **settings) as server:
                    servers.append(server)
                    scopes.append(scope)
                    task_status.started()
                    await trio.sleep_forever()

        async def change() -> None:
            if servers:
                servers.pop()
                scopes.pop().cancel()
                await trio.sleep(0.01)
            else:
                await nursery.start(serve)

        await change()
        yield servers, change
        nursery.cancel_scope.cancel()


async def test_a_server_that_restarts_tells_the_gap_and_the_newest(autojump_clock: MockClock) -> None:
    async with open_restarting() as (servers, change), open_client("memory://restarting") as client:
        async with client.subscribe("topic") as topic:
            await publish(servers[0], "abc")
            assert await take_values(topic, 3) == ["a", "b", "c"]
            epoch = topic.position.epoch
            await change()
            await change()
            await publish(servers[0], "ABCDE")
            gap = await take_gap(topic)
            assert (gap.gap.first, gap.newest.offset, gap.newest.value) == (4, 5, "E")
            assert gap.newest.epoch != epoch
            await publish(servers[0], "F")
            assert await take_values(topic, 1) == ["F"]
            assert topic.position == gap.newest.position


async def test_a_server_that_restarts_without_updates(autojump_clock: MockClock) -> None:
    async with open_restarting() as (servers, change), open_client("memory://restarting") as client:
        async with client.subscribe("topic") as topic:
            await publish(servers[0], "a")
            assert await take_values(topic, 1) == ["a"]
            await change()
            await change()
            gap = await take_gap(topic)
            assert (gap.gap.first, gap.newest) == (2, None)
            await publish(servers[0], "A")
            assert await take_values(topic, 1) == ["A"]


async def test_a_gap_is_told_although_the_link_is_lost_before_it(autojump_clock: MockClock) -> None:
    async with open_restarting() as (servers, change), open_client("memory://restarting") as client:
        async with client.subscribe("topic") as topic:
            await publish(servers[0], "abc")
            assert await take_values(topic, 3) == ["a", "b", "c"]
            await change()
            _break_at(client, Push, FrameType.PUSH, seen=False)
            await change()
            gap = await take_gap(topic)
            assert gap.gap.first == 4
            assert client.statistics().links == 3


async def test_who_keeps_the_newest_goes_on_without_a_gap(autojump_clock: MockClock) -> None:
    async with open_restarting() as (servers, change), open_client("memory://restarting") as client:
        async with client.subscribe("topic", policy="keep newest") as topic:
            await publish(servers[0], "a")
            assert await take_values(topic, 1) == ["a"]
            for state in "AB":
                await change()
                await change()
                await publish(servers[0], ["skipped", state])
                assert await take_values(topic, 1) == [state]


async def test_the_same_epoch_with_fewer_updates_is_another_life(autojump_clock: MockClock) -> None:
    """Only a seeded source of epochs repeats them; a place that the topic never had shows it."""
    async with open_topics(history=History(count=3)) as server, open_client(server) as client:
        epoch = (await server.publish("topic", 1)).epoch
        async with client.subscribe("topic", since=Position(epoch, 40)) as topic:
            gap = await take_gap(topic)
            assert (gap.gap.first, gap.newest.value) == (41, 1)
            for value in range(2, 100):
                await server.publish("topic", value)
                assert await take_values(topic, 1) == [value]
            assert client.statistics().links == 1
