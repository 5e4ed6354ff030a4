"""Sessions by hand: what was said, read back as frames, and two that have greeted each other."""

from __future__ import annotations

from heartline.session import Heartbeat, Role, Session
from heartline.session.session import Event
from heartline.wire import Frame, FrameDecoder, FrameType, Limits, encode

BURST = 256 * 1024


def taken(session: Session, *, budget: int = BURST, now: float = 0.0) -> list[Frame]:
    """What a take gives, as frames."""
    decoder = FrameDecoder(Limits(frame_size=2**24 - 1))
    frames = decoder.feed(b"".join(session.take(budget, now)))
    decoder.close()
    return frames


def names(frames: list[Frame]) -> list[str]:
    return [FrameType(frame.type).name for frame in frames]


def give(session: Session, *frames: Frame, now: float = 0.0) -> list[Event]:
    """The events of these frames; the error behind them, if there is one, is raised."""
    events = session.receive(encode(frames), now)
    if session.failed:
        session.receive(b"", now)
    return events


def move(sender: Session, receiver: Session, *, budget: int = BURST, now: float = 0.0) -> list[Event]:
    """One take of the sender gets to the receiver."""
    return give(receiver, *taken(sender, budget=budget, now=now), now=now)


def pair(
    client: Limits,
    server: Limits,
    *,
    heartbeats: tuple[Heartbeat, Heartbeat] = (Heartbeat(), Heartbeat()),
    now: float = 0.0,
) -> tuple[Session, Session]:
    """A client's and a server's session that have greeted each other."""
    one = Session(Role.CLIENT, limits=client, heartbeat=heartbeats[0], now=now)
    two = Session(Role.SERVER, limits=server, heartbeat=heartbeats[1], now=now)
    one.hello()
    move(one, two, now=now)
    two.welcome("the id")
    move(two, one, now=now)
    return one, two
