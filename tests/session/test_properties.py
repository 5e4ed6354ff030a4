"""The properties of sessions, a few examples of each; ``python -m fuzz session`` runs more."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from fuzz.properties import heartbeat, session
from fuzz.runner import Property, properties_of
from fuzz.session_pair import BURST, World
from fuzz.session_script import (
    Arrive,
    Break,
    Cancel,
    Command,
    Consume,
    Data,
    Dial,
    End,
    Lose,
    Open,
    Put,
    Take,
    Withdraw,
)
from heartline.wire import FrameType, Limits

MARKS = {
    "credit awaited over a loss",
    "broken off inside a message",
    "end taken back",
    "end waited for credit",
    "full",
    "held back",
    "interleaved",
    "lost HELLO",
    "lost WELCOME",
    "lost WELCOME after a lost one",
    "lost in the handshake",
    "replay",
    "replay in parts",
    "replay inside a message",
    "replay inside two messages",
    "replay of half a take",
    "taken over",
    "withdrawn with its lane",
}
"""What the pair of sessions may come by, and must be seen to."""

SCRIPTS = 200


@pytest.mark.parametrize("prop", properties_of(session, heartbeat), ids=lambda prop: prop.__name__)
def test_property(prop: Property) -> None:
    prop()


@pytest.mark.slow
def test_scripts_reach_every_mark() -> None:
    """The same scripts each time, of the same commands that the property draws, mixed for losses."""
    seen: Counter[str] = Counter()
    for seed in range(SCRIPTS):
        seen += _play(random.Random(seed)).marks
    assert set(seen) == MARKS, seen
    assert min(seen.values()) >= 2, seen


def _play(rng: random.Random) -> World:
    limits = [
        Limits(
            frame_size=2048,
            message_size=20_480,
            window=rng.choice([500, 10_000]),
            replay_buffer=rng.choice([1000, 10_000, 4 * 2**20]),
        )
        for _ in range(2)
    ]
    world = World(*limits)
    world.greet()
    for _ in range(60):
        side, other = rng.randrange(2), rng.randrange(2)
        commands: list[Command] = [
            Put(side, FrameType.CALL, rng.randrange(4), 0, rng.choice([0, 0, 3, 6]), rng.randrange(40)),
            Put(other, FrameType.PUSH, rng.randrange(4), 0, rng.choice([0, 0, 1]), rng.randrange(40)),
            Data(side, 0, rng.choice([0, 0, 3]), rng.randrange(400)),
            Data(side, 1 + rng.randrange(5), rng.choice([0, 9]), rng.randrange(400)),
            Consume(side, 0, 2),
            Open(side, FrameType.CALL, rng.choice([0, 0, 0, 2]), rng.randrange(40)),
            End(side, rng.randrange(3), rng.random() < 0.5, rng.random() < 0.5, rng.choice([0, 0, 2])),
            Cancel(side, rng.randrange(3)) if rng.random() < 0.5 else Withdraw(side),
            Take(side, rng.choice([0, 1, 5000, BURST])),
            Take(other, rng.choice([0, 1, 5000, BURST])),
            Arrive(side, rng.choice([1, 50, 500, 3000, BURST])),
            Arrive(other, rng.choice([1, 50, 500, 3000, BURST])),
            Break((rng.choice([0, 100, 5000]), rng.choice([0, 100, 5000]))),
            Lose(side),
            Dial(rng.choice([10, BURST, BURST]), rng.choice([0, BURST]), rng.choice([0, 50, 1000, BURST])),
        ]
        rng.choice(commands)(world)
        world.check()
    world.settle()
    return world
