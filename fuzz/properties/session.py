"""The session: whatever two users do and however the link cuts it, and whatever bytes a peer sends."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fuzz.session_pair import BURST, World
from fuzz.session_script import Command, commands, limits
from heartline.wire import Limits


# Lists of lists: one list would be short, as a rule.
scripts = st.lists(st.lists(commands, max_size=20), max_size=20)


@given(limits, limits, st.booleans(), scripts)
def whatever_two_sides_send_arrives_once_and_in_order(
    client: Limits, server: Limits, greeted: bool, script: list[list[Command]]
) -> None:
    world = World(client, server)
    world.greet()
    if greeted:
        world.server.arrive(BURST, world.now)
    for command in itertools.chain.from_iterable(script):
        command(world)
        world.check()
    world.settle()
