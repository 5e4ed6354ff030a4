"""The tables of a connection's and a link's states, and what walks them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from heartline import ConnectionLost
from heartline.link import (
    CONNECTION_TRANSITIONS,
    LINK_TRANSITIONS,
    ConnectionState,
    ConnectionStep,
    Core,
    LinkState,
    LinkStep,
    Peer,
    Setup,
)
from heartline.session import Role
from heartline.testing import memory_pair
from tests.connection.helpers import run, settle

from .test_link import links

Table = Mapping[tuple[Enum, Enum], Enum]

TABLES = [
    pytest.param(
        CONNECTION_TRANSITIONS,
        ConnectionStep,
        ConnectionState.CONNECTING,
        ConnectionState.CLOSED,
        id="connection",
    ),
    pytest.param(LINK_TRANSITIONS, LinkStep, LinkState.UP, LinkState.OVER, id="link"),
]


def reachable(table: Table, start: Enum) -> set[Enum]:
    """The states that steps lead to from this one, itself among them."""
    found, fresh = {start}, [start]
    while fresh:
        here = fresh.pop()
        for (state, _), following in table.items():
            if state is here and following not in found:
                found.add(following)
                fresh.append(following)
    return found


@pytest.mark.parametrize(("table", "steps", "first", "last"), TABLES)
def test_every_state_is_reached_and_leads_to_the_end(
    table: Table, steps: Iterable[Enum], first: Enum, last: Enum
) -> None:
    states = set(type(first))
    assert reachable(table, first) == states
    for state in states:
        assert last in reachable(table, state)
    assert reachable(table, last) == {last}
    assert {step for _, step in table} == set(steps)


@given(st.lists(st.sampled_from(ConnectionStep), max_size=30))
def test_a_connection_takes_the_steps_that_have_a_row(script: list[ConnectionStep]) -> None:
    """Any other one is a bug, which is loud and changes nothing; whoever waits for a change is told."""

    async def main() -> None:
        core = Core(cast("Setup", None), Role.CLIENT, Peer(url="", address=""))
        told = []

        async def follow() -> None:
            while True:
                await core._wait_change()
                told.append(core.state)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await settle()
            walked = []
            for step in script:
                before = core.state
                if (before, step) in CONNECTION_TRANSITIONS:
                    core._step(step)
                    walked.append(CONNECTION_TRANSITIONS[before, step])
                    await settle()
                else:
                    with pytest.raises(KeyError):
                        core._step(step)
                assert core.state is (walked[-1] if walked else ConnectionState.CONNECTING)
            assert told == walked
            nursery.cancel_scope.cancel()

    run(main)


@given(st.lists(st.sampled_from(["lose", "come up", "fail"]), max_size=20))
def test_a_link_is_lost_once_and_over_for_good(script: list[str]) -> None:
    """Being lost or failing again changes nothing; it comes up where it was down, and nowhere else."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            streams: Any = memory_pair()
            link, _ = links(streams, nursery)
            state, loss, failure = LinkState.UP, None, None
            for number, what in enumerate(script):
                error = ConnectionLost(str(number))
                if what == "lose":
                    link.lose(error)
                    if state is LinkState.UP:
                        state, loss = LinkState.DOWN, error
                elif what == "fail":
                    link.fail(error)
                    state, loss, failure = LinkState.OVER, loss or error, failure or error
                elif state is LinkState.DOWN:
                    scope = link.scope
                    link.come_up(memory_pair()[0])
                    state, loss = LinkState.UP, None
                    assert link.scope is not scope
                else:
                    with pytest.raises(KeyError):
                        link.come_up(memory_pair()[0])
                assert (link.state, link.loss, link.failure) == (state, loss, failure)
                assert link.up == (not link.scope.cancel_called) == (state is LinkState.UP)

    run(main)
