"""Resuming, without any I/O: two sessions that lose one link and go on with another."""

from __future__ import annotations

from heartline.session import Session
from heartline.wire import FrameType, Limits
from tests.session.helpers import pair, taken


def resume(client: Session, server: Session) -> None:
    """Shake hands on a new link, for the sessions that have lost theirs."""
    one, two = pair(Limits(), Limits())
    server.resume(two, client.received)
    client.resume(one, server.received)


def test_without_a_link_nothing_is_taken() -> None:
    """A writer that was about to take more when the link was lost gets nothing: it would be lost with it."""
    client, server = pair(Limits(), Limits())
    client.send(FrameType.DATA, 0, 0, b"sent")
    taken(client)
    client.send(FrameType.DATA, 0, 0, b"queued")
    client.lose()
    server.lose()
    assert client.take(1 << 20, 0.0) == []
    resume(client, server)
    assert [frame.payload for frame in taken(client)] == [b"sent", b"queued"]
    assert client.sent == 2
