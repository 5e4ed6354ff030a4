"""The session: whatever two users do and however the link cuts it, and whatever bytes a peer sends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fuzz.session_pair import BURST, World
from fuzz.session_script import Command, limits, scripts
from heartline.wire import Limits


@given(limits, limits, scripts, st.booleans())
def whatever_two_sides_send_arrives_once_and_in_order(
    client: Limits, server: Limits, script: list[Command], greeted: bool
) -> None:
    world = World(client, server)
    world.greet()
    if greeted:
        world.server.arrive(BURST, world.now)
    for command in script:
        command(world)
        world.check()
    world.settle()
