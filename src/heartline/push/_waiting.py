"""Waiting for subscribers, and the receipt that says what came of it."""

from __future__ import annotations

import math
from typing import Literal

import trio

from heartline.errors import ConnectionLost
from heartline.link import Link
from heartline.push._receipt import Level, Receipt, Wait, Who
from heartline.push._topic import Taken, Topic
from heartline.wire import FrameType

__all__ = ["WaitFor", "wait_receipt"]

WaitFor = Literal["stored", "sent", "confirmed"] | None


async def wait_receipt(topic: Topic, taken: Taken, wait: WaitFor, deadline: float) -> Receipt:
    """Wait for the subscribers of an update that was published, and say who has it."""
    everyone = frozenset(served.core.id for served in taken.targets)
    missing: set[Who] = set()
    if wait == "sent":
        missing = {served.who for served in taken.targets}
        with trio.move_on_at(deadline):
            await _wait_sent(topic, taken, missing)
    elif wait == "confirmed":
        missing = await _wait_confirmed(topic, taken, deadline)
    else:
        everyone = frozenset()
    gone = frozenset(connection_id for connection_id, _ in missing)
    return Receipt(
        topic=topic.name,
        epoch=topic.log.epoch,
        offset=taken.offset,
        confirmed=everyone - gone,
        missing=gone,
        level=Level.RECEIVED if topic.journal is None else Level.STORED,
    )


async def _wait_sent(topic: Topic, taken: Taken, missing: set[Who]) -> None:
    for served in taken.targets:
        while served in topic.served and served.cursor <= taken.offset:
            await topic.changed.park()
        link = served.core.link
        if link is None or served not in topic.served:
            continue
        try:
            await _wait_taken(link, served.number)
        except ConnectionLost:
            continue
        missing.discard(served.who)


@trio.lowlevel.enable_ki_protection
async def _wait_confirmed(topic: Topic, taken: Taken, deadline: float) -> set[Who]:
    wait = Wait(taken.offset, (served.who for served in taken.targets), patient=deadline < math.inf)
    topic.waits.append(wait)
    try:
        for served in taken.targets:
            if served not in topic.served:
                wait.gone(served.who, lost=False)  # this very update was too much for it
            elif served.start < taken.offset <= served.confirmed:
                wait.confirmed(served.who)  # it was published before, with the same key
        with trio.move_on_at(deadline):
            await wait.done()
    finally:
        topic.waits.remove(wait)
    return wait.missing


async def _wait_taken(link: Link, number: int) -> None:
    """Wait until the transport has taken what is queued under this number; raises :class:`ConnectionLost`."""
    await link.wait(object(), link.taken(FrameType.PUSH, number))
