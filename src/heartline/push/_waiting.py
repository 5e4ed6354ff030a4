"""Handing an update out, waiting for its subscribers, and the receipt that says what happened to it."""

from __future__ import annotations

import math
from collections.abc import Set

import trio

from heartline.errors import ConnectionLost
from heartline.link import Link
from heartline.push._receipt import Level, Receipt, Wait, Who
from heartline.push._topic import TURN, Taken, Topic
from heartline.push._types import WaitFor
from heartline.wire import FrameType

__all__ = ["hand_out"]


async def hand_out(topic: Topic, taken: Taken, wait: WaitFor, deadline: float) -> Receipt:
    """Let an update reach its subscribers, wait for them, and say which ones have it."""
    everyone = missing = frozenset[str]()
    if wait == "confirmed":
        everyone, missing = _ids(taken), _connections(await _wait_confirmed(topic, taken, deadline))
    else:
        await topic.spread(taken.offset)
        if wait == "sent":
            everyone, missing = _ids(taken), _connections(await _wait_sent(topic, taken, deadline))
    return Receipt(
        topic=topic.name,
        epoch=topic.log.epoch,
        offset=taken.offset,
        confirmed=everyone - missing,
        missing=missing,
        level=Level.RECEIVED if topic.journal is None else Level.STORED,
    )


def _ids(taken: Taken) -> frozenset[str]:
    return frozenset(served.core.id for served in taken.targets)


def _connections(whom: Set[Who]) -> frozenset[str]:
    return frozenset(connection_id for connection_id, _ in whom)


def _refused(topic: Topic, taken: Taken) -> Set[Who]:
    """Those who accept no message of this length."""
    entry = topic.log.get(taken.offset)
    return (entry and entry.refused) or frozenset()


async def _wait_sent(topic: Topic, taken: Taken, deadline: float) -> set[Who]:
    missing = {served.who for served in taken.targets}
    with trio.move_on_at(deadline):
        for served in taken.targets:
            while topic.has(served) and served.cursor <= taken.offset:
                await topic.changed.park()
            link = served.core.link
            if link is None or not topic.has(served) or served.who in _refused(topic, taken):
                continue
            try:
                await _wait_taken(link, served.number)
            except ConnectionLost:
                continue
            missing.discard(served.who)
    return missing


@trio.lowlevel.enable_ki_protection
async def _wait_confirmed(topic: Topic, taken: Taken, deadline: float) -> set[Who]:
    wait = Wait(
        taken.offset,
        (served.who for served in taken.targets),
        refused=_refused(topic, taken),
        patient=deadline < math.inf,
    )
    topic.add_wait(wait)
    try:
        await topic.spread(taken.offset)
        for count, served in enumerate(taken.targets, 1):
            if served.who not in topic.served and not wait.patient:
                wait.gone(served.who, lost=False)  # before this began to wait
            elif served.start < taken.offset <= served.confirmed:
                wait.confirmed(served.who)  # it was published before, with the same key
            if count % TURN == 0:
                await trio.lowlevel.checkpoint()
        with trio.move_on_at(deadline):
            await wait.done()
    finally:
        topic.discard_wait(wait)
    return wait.missing


async def _wait_taken(link: Link, number: int) -> None:
    """Wait until the transport has taken what is queued under this number; raises :class:`ConnectionLost`."""
    await link.wait(object(), link.taken(FrameType.PUSH, number))
