"""Who may go on with a session: forged, foreign, spent and late tokens do nothing to anybody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import heartline
from heartline import CloseCode, Connection, ConnectionState, Limits, Peer, Server
from heartline.session import Refuse, Role, Session, Welcome
from heartline.session.messages import VERSION, Hello, PeerLimits, render
from heartline.wire import Flag, Frame, FrameType, encode
from tests.engine import core_of, link_of
from tests.opening import open_stream

from ..connection.helpers import QUIET, RawPeer, data, settle
from .helpers import vouch

LIMITS = Limits()
Ticket = tuple[bytes, int]


@asynccontextmanager
async def guarded(**settings: Any) -> AsyncIterator[tuple[Server, RawPeer, Connection]]:
    """A server, a peer that is in, and a bystander to whom nothing must happen."""
    async with (
        heartline.open_server("memory://", heartbeat=QUIET, **settings) as server,
        heartline.open_connection(server.urls[0], identity="bystander", heartbeat=QUIET) as bystander,
    ):
        there = server.connections["bystander"]
        peer = await RawPeer.join(server.urls[0], identity="me", limits=LIMITS)
        yield server, peer, server.connections["me"]
        await settle()
        assert server.connections["bystander"] is there
        await bystander.send(b"still here")
        assert await there.receive() == b"still here"
        assert bystander.statistics().links == 1


async def come_back(
    server: Server,
    ticket: Ticket | None,
    *,
    identity: str = "me",
    limits: Limits = LIMITS,
    credentials: Any = None,
    attempt: tuple[bytes, int] | None = None,
) -> tuple[RawPeer, Any]:
    """Another link, and what the server says to it."""
    peer = RawPeer.of(await open_stream(server.urls[0], tls=None), Role.CLIENT, limits=limits)
    peer.session.hello(identity=identity, resume=ticket, credentials=credentials, attempt=attempt)
    await peer.flush()
    events = await peer.events()
    return peer, events[0] if events else None


def cut(peer: RawPeer) -> None:
    peer.stream.close()  # type: ignore[attr-defined]


async def resume(server: Server, peer: RawPeer, attempt: tuple[bytes, int] | None = None) -> RawPeer:
    """Come back with the right ticket, and go on."""
    again, answer = await come_back(server, peer.session.ticket, attempt=attempt)
    assert isinstance(answer, Welcome)
    assert answer.resumed
    if peer.session.state is heartline.session.State.OPEN:
        peer.session.lose()
    peer.session.resume(again.session, answer.received)
    again.session = peer.session
    return again


async def resume_as(server: Server, peer: RawPeer, identity: str) -> None:
    _, answer = await come_back(server, peer.session.ticket, identity=identity)
    assert isinstance(answer, Welcome)


async def test_the_right_ticket(autojump_clock: MockClock) -> None:
    async with guarded() as (server, peer, connection):
        cut(peer)
        await settle()
        assert connection.state is ConnectionState.LOST
        await connection.send(b"while it was away")
        again = await resume(server, peer)
        (frame,) = await again.events()
        assert frame.payload == b"while it was away"
        assert server.connections["me"] is connection
        assert connection.statistics().resumed == 1


def forged(ticket: Ticket) -> Ticket:
    return bytes(16), ticket[1]


def empty(ticket: Ticket) -> Ticket:
    return b"", ticket[1]


def shortened(ticket: Ticket) -> Ticket:
    return ticket[0][:-1], ticket[1]


def ahead(ticket: Ticket) -> Ticket:
    return ticket[0], ticket[1] + 1


@pytest.mark.parametrize("alter", [forged, empty, shortened, ahead])
@pytest.mark.parametrize("lost", [True, False])
async def test_a_wrong_ticket_is_refused_and_changes_nothing(
    alter: Any, lost: bool, autojump_clock: MockClock
) -> None:
    async with guarded() as (server, peer, connection):
        if lost:
            cut(peer)
        await settle()
        state = connection.state
        for _ in range(3):
            intruder, answer = await come_back(server, alter(peer.session.ticket))
            assert isinstance(answer, Refuse)
            assert answer.code == CloseCode.NO_SESSION
            assert not CloseCode.is_terminal(answer.code)
            assert await intruder.rest() == []
        assert (connection.state, server.connections["me"]) == (state, connection)
        await connection.send(b"for the owner")
        again = await resume(server, peer)
        assert [frame.payload for frame in await again.events()] == [b"for the owner"]


async def test_the_ticket_of_another(autojump_clock: MockClock) -> None:
    async with guarded() as (server, peer, connection):
        other = await RawPeer.join(server.urls[0], identity="other", limits=LIMITS)
        _, answer = await come_back(server, other.session.ticket, identity="me")
        assert isinstance(answer, Refuse)
        _, answer = await come_back(server, peer.session.ticket, identity="other")
        assert isinstance(answer, Refuse)
        assert server.connections["me"] is connection
        assert connection.state is ConnectionState.OPEN


async def test_a_ticket_is_bound_to_who_the_server_says_it_is(autojump_clock: MockClock) -> None:
    def authenticate(peer: Peer) -> Any:
        return peer.credentials

    async with guarded(authenticate=authenticate) as (server, peer, _):
        cut(peer)
        _, answer = await come_back(server, peer.session.ticket, identity="me", credentials="somebody else")
        assert isinstance(answer, Refuse)
        assert answer.code == CloseCode.NO_SESSION
        _, answer = await come_back(server, peer.session.ticket, identity="whoever", credentials="me")
        assert isinstance(answer, Welcome)


async def test_a_ticket_is_spent_once_the_new_one_has_been_seen(autojump_clock: MockClock) -> None:
    async with guarded() as (server, peer, connection):
        spent = peer.session.ticket
        cut(peer)
        again = await resume(server, peer)
        assert peer.session.ticket != spent
        again.session.send(FrameType.DATA, 0, 0, b"I am here")
        await again.flush()
        await settle()
        _, answer = await come_back(server, spent)
        assert isinstance(answer, Refuse)
        assert connection.state is ConnectionState.OPEN
        assert await connection.receive() == b"I am here"


async def test_until_then_it_is_good_however_often_the_answer_is_lost(autojump_clock: MockClock) -> None:
    async with guarded() as (server, peer, connection):
        cut(peer)
        for _ in range(5):
            stranded, answer = await come_back(server, peer.session.ticket)
            assert isinstance(answer, Welcome)
            cut(stranded)  # it never saw the answer
        await connection.send(b"x")
        again = await resume(server, peer)
        assert [frame.payload for frame in await again.events()] == [b"x"]


async def test_a_try_that_was_long_under_way_does_not_spend_the_ticket_of_a_later_one(
    autojump_clock: MockClock,
) -> None:
    async with guarded() as (server, peer, connection):
        cut(peer)
        first = peer.session.ticket
        again = await resume(server, peer, (b"me", 3))  # it has the new token, and has said nothing since
        for _ in range(3):
            # A try before that, held up by the network.
            _, answer = await come_back(server, first, attempt=(b"me", 2))
            assert isinstance(answer, Refuse)
        await connection.send(b"x")
        assert [frame.payload for frame in await again.events()] == [b"x"]
        cut(again)
        again = await resume(server, peer, (b"me", 4))


async def test_a_first_try_that_was_long_under_way_does_not_replace_a_later_one(
    autojump_clock: MockClock,
) -> None:
    """Without a ticket too: the later one would be told, for good, that it was replaced."""
    async with guarded(authenticate=vouch) as (server, _, _):
        later, answer = await come_back(server, None, attempt=(b"me", 2))
        assert isinstance(answer, Welcome)
        connection = server.connections["me"]
        for number in (1, 2):
            _, answer = await come_back(server, None, attempt=(b"me", number))
            assert isinstance(answer, Refuse)
            assert not CloseCode.is_terminal(answer.code)
        assert server.connections["me"] is connection
        assert later.kinds() == [FrameType.WELCOME]
        # A later one of the same client, and any of another, are the newest.
        for attempt in ((b"me", 3), (b"somebody else", 1), None):
            _, answer = await come_back(server, None, attempt=attempt)
            assert isinstance(answer, Welcome)


async def test_the_name_of_a_client_is_bounded(autojump_clock: MockClock) -> None:
    async with guarded() as (server, _, _):
        _, answer = await come_back(server, None, identity="long", attempt=(bytes(65), 1))
        assert isinstance(answer, Refuse)
        assert answer.code == CloseCode.PROTOCOL_ERROR


async def test_a_ticket_that_is_too_late(autojump_clock: MockClock) -> None:
    async with guarded(limits=Limits(resume_window=5)) as (server, peer, _):
        cut(peer)
        await trio.sleep(5.1)
        _, answer = await come_back(server, peer.session.ticket)
        assert isinstance(answer, Refuse)
        assert answer.code == CloseCode.NO_SESSION
        _, answer = await come_back(server, None)
        assert isinstance(answer, Welcome)
        assert not answer.resumed


async def test_other_limits_make_another_session(autojump_clock: MockClock) -> None:
    async with guarded() as (server, peer, _):
        cut(peer)
        _, answer = await come_back(server, peer.session.ticket, limits=Limits(window=5))
        assert isinstance(answer, Refuse)
        assert answer.code == CloseCode.NO_SESSION


async def test_a_link_that_the_server_thought_alive_is_closed(autojump_clock: MockClock) -> None:
    async with guarded() as (server, peer, connection):
        again = await resume(server, peer)
        assert await peer.stream.receive_some() == b""
        await connection.send(b"x")
        assert [frame.payload for frame in await again.events()] == [b"x"]


async def test_two_that_come_at_once(autojump_clock: MockClock) -> None:
    """Both have the right ticket, so they are one client; the later one is where it is."""
    async with guarded() as (server, peer, connection):
        cut(peer)
        answers: dict[int, Any] = {}

        async def come(number: int) -> None:
            answers[number] = await come_back(server, peer.session.ticket)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(come, number)
        await settle()
        open_ones = [peer for peer, answer in answers.values() if isinstance(answer, Welcome)]
        assert open_ones
        assert connection.state is ConnectionState.OPEN
        assert server.statistics().handshaking == 0
        assert len(server.connections) == 2


async def test_a_second_hello_on_a_link(autojump_clock: MockClock) -> None:
    async with guarded() as (_server, peer, connection):
        hello = Hello(
            version=VERSION, limits=PeerLimits.of(LIMITS), heartbeat_timeout=30.0, resume=peer.session.ticket
        )
        await peer.send(Frame(FrameType.HELLO, payload=render(hello)))
        goodbye = (await peer.rest())[-1]
        assert goodbye.code == CloseCode.PROTOCOL_ERROR
        await settle()
        assert connection.state is ConnectionState.CLOSED


async def test_who_breaks_the_rules_cannot_come_back(autojump_clock: MockClock) -> None:
    async with guarded() as (server, peer, _):
        await peer.send(Frame(FrameType.ACK, payload=(99).to_bytes(8, "big")))
        await peer.rest()
        _, answer = await come_back(server, peer.session.ticket)
        assert isinstance(answer, Refuse)


async def test_frames_behind_the_hello_come_too_early(autojump_clock: MockClock) -> None:
    async with guarded() as (server, peer, connection):
        cut(peer)
        await settle()
        stream = await open_stream(server.urls[0], tls=None)
        session = Session(Role.CLIENT, limits=LIMITS, heartbeat=QUIET, now=0.0)
        session.hello(identity="me", resume=peer.session.ticket)
        await stream.send_all(b"".join(session.take(1 << 20, 0.0)) + encode([data(b"early")]))
        await settle()
        assert connection.state is ConnectionState.CLOSED or connection.state is ConnectionState.LOST


async def test_a_confirmation_that_crosses_an_older_count(autojump_clock: MockClock) -> None:
    """On the old link the peer confirms what on the new one it says it lacks, both in the same moment."""
    async with guarded() as (server, peer, connection):
        await connection.send(b"x")
        await peer.events()
        again = RawPeer.of(await open_stream(server.urls[0], tls=None), Role.CLIENT, limits=LIMITS)
        again.session.hello(identity="me", resume=(peer.session.token, 0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(again.flush)
            nursery.start_soon(peer.send, Frame(FrameType.ACK, payload=(1).to_bytes(8, "big")))
        await settle()
        _, answer = await come_back(server, None, identity="another")
        assert isinstance(answer, Welcome)


async def say(peer: RawPeer, frames: list[Frame]) -> None:
    with suppress(trio.BrokenResourceError):
        await peer.send(*frames)


async def test_a_confirmation_that_is_decoded_while_the_session_is_handed_over(
    autojump_clock: MockClock,
) -> None:
    """What came in the read before counts: the peer has told two stories, and that ends its session."""
    told = []
    for attempt in range(60):  # Trio draws which task runs first
        async with guarded() as (server, peer, connection):
            await connection.send(b"x")
            await peer.events()
            again = RawPeer.of(await open_stream(server.urls[0], tls=None), Role.CLIENT, limits=LIMITS)
            again.session.hello(identity="me", resume=(peer.session.token, 0))
            skipped = [Frame(0x77, Flag.IGNORABLE)] * 1200  # more than are decoded in one go
            ack = Frame(FrameType.ACK, payload=(1).to_bytes(8, "big"))
            frames = [*skipped * (1 + attempt % 2), ack, *skipped]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(say, peer, frames)
                for _ in range(attempt % 3):
                    await trio.lowlevel.checkpoint()
                nursery.start_soon(again.flush)
            await settle()
            assert (connection.state is ConnectionState.CLOSED) is ("me" not in server.connections)
            told.append(str(core_of(connection).reason))
    assert any("0 frames confirmed, after 1" in reason for reason in told)


async def test_a_full_server_lets_its_own_come_back(autojump_clock: MockClock) -> None:
    async with guarded(limits=Limits(connections=2)) as (server, peer, _):
        _, answer = await come_back(server, None, identity="stranger")
        assert isinstance(answer, Refuse)
        assert answer.code == CloseCode.OVERLOADED
        cut(peer)
        await settle()
        await resume(server, peer)


async def test_who_was_lost_first_makes_room_for_a_newcomer(autojump_clock: MockClock) -> None:
    async with guarded(limits=Limits(connections=4)) as (server, peer, _):
        lost = [peer, *[await RawPeer.join(server.urls[0], identity=name, limits=LIMITS) for name in "ab"]]
        for one in lost:
            cut(one)
            await settle()
        for name in ("new", "newer"):
            _, answer = await come_back(server, None, identity=name)
            assert isinstance(answer, Welcome)
        await settle()
        assert set(server.connections) == {"bystander", "new", "newer", "b"}
        await resume_as(server, lost[2], "b")
        _, answer = await come_back(server, None, identity="too many")
        assert isinstance(answer, Refuse)


async def test_what_lost_sessions_hold_is_bounded(autojump_clock: MockClock) -> None:
    limits = Limits(lost_buffer=100_000, window=1 << 20, channels=10)
    async with guarded(limits=limits) as (server, _, _):
        for number in range(10):
            peer = await RawPeer.join(
                server.urls[0], identity=f"lost {number}", limits=Limits(window=1 << 20, channels=10)
            )
            await server.connections[f"lost {number}"].send(bytes(30_000))
            await settle()
            cut(peer)
            await settle()
            lost = [one for one in server.connections.values() if one.state is ConnectionState.LOST]
            assert sum(one.statistics().unconfirmed + one.statistics().backlog for one in lost) <= 100_000
        assert {name for name in server.connections if name.startswith("lost")} == {
            f"lost {number}" for number in (7, 8, 9)
        }


async def test_halves_and_what_is_unread_count_for_lost_sessions(autojump_clock: MockClock) -> None:
    """Uploads that were cut off in the middle."""
    async with guarded(limits=Limits(lost_buffer=1_000_000)) as (server, _, _):
        for number in range(10):
            peer = await RawPeer.join(server.urls[0], identity=f"lost {number}", limits=LIMITS)
            await peer.send(data(bytes(150_000)))
            for _ in range(2):
                await peer.send(Frame(FrameType.CALL, Flag.MORE, id=1, payload=bytes(100_000)))
            await settle()
            cut(peer)
            await settle()
            lost = [one for one in server.connections.values() if one.state is ConnectionState.LOST]
            assert sum(one.statistics().held for one in lost) <= 1_000_000
            assert server.statistics().held >= 350_000 * len(lost)
        assert {name for name in server.connections if name.startswith("lost")} == {"lost 8", "lost 9"}


async def test_a_session_that_is_over_holds_nothing(autojump_clock: MockClock) -> None:
    """Not even until somebody collects the garbage."""
    async with guarded(limits=LIMITS) as (server, peer, connection):
        await peer.send(Frame(FrameType.CALL, Flag.MORE, id=1, payload=bytes(100_000)))
        await connection.send(bytes(200_000))
        await settle()
        session = link_of(connection).session
        cut(peer)
        await settle()
        assert session.held > 300_000
        await trio.sleep(LIMITS.resume_window + 1)
        assert connection.state is ConnectionState.CLOSED
        assert session.held == 0
        del server


async def test_what_lost_sessions_hold_counts_as_it_grows(autojump_clock: MockClock) -> None:
    """Those that were lost first end, though it is another one that grows; what shrank counts no more."""
    limits = Limits(lost_buffer=300_000, write_buffer=1 << 20)
    async with guarded(limits=limits) as (server, _, _):
        for name in ("first", "second", "third"):
            peer = await RawPeer.join(server.urls[0], identity=name, limits=LIMITS)
            if name == "first":
                await peer.send(data(bytes(150_000)))
            cut(peer)
            await settle()
        for count in range(1, 4):
            await server.connections["third"].send(bytes(60_000))
            await settle()
            assert ("first" in server.connections) == (count < 3)
        assert {"second", "third"} <= set(server.connections)


@pytest.mark.parametrize("way", ["kick", "drain", "replace"])
async def test_what_ends_a_session_in_the_moment_of_its_handover_ends_it(
    way: str, autojump_clock: MockClock
) -> None:
    """The event of the loss comes in just that moment when a client is back before it was missed."""
    for _ in range(20):
        async with heartline.open_server("memory://", heartbeat=QUIET, authenticate=vouch) as server:
            peer = await RawPeer.join(server.urls[0], identity="me", limits=LIMITS)
            connection = server.connections["me"]
            events = server.events()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(come_back, server, peer.session.ticket)
                while not isinstance(await anext(events), heartline.Lost):
                    pass
                with trio.fail_after(5):
                    if way == "kick":
                        await server.close_connection("me")
                    elif way == "drain":
                        await server.drain(1)
                    else:
                        await come_back(server, None)
            await trio.sleep(2)  # for a goodbye that nobody answers
            assert connection.state is ConnectionState.CLOSED
            assert server.connections.get("me") is not connection


@pytest.mark.parametrize("ticks", range(25))
async def test_a_server_that_ends_in_the_moment_of_a_handover_ends_the_session(
    ticks: int, autojump_clock: MockClock
) -> None:
    """Whichever task has it then: whoever waits for a message outside is told."""
    for _ in range(20):  # Trio draws which one runs first
        with trio.CancelScope() as scope:
            async with heartline.open_server("memory://", heartbeat=QUIET) as server:
                peer = await RawPeer.join(server.urls[0], identity="me", limits=LIMITS)
                connection = server.connections["me"]
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(come_back, server, peer.session.ticket)
                    for _ in range(ticks):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
        assert connection.state is ConnectionState.CLOSED


async def test_a_draining_server_lets_nobody_come_back(autojump_clock: MockClock) -> None:
    async with heartline.open_server("memory://", heartbeat=QUIET) as server:
        peer = await RawPeer.join(server.urls[0], identity="me", limits=LIMITS)
        cut(peer)
        await settle()
        await server.drain(1)
        _, answer = await come_back(server, peer.session.ticket)
        assert isinstance(answer, Refuse)
        assert answer.code == CloseCode.GOING_AWAY
