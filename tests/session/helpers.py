"""Sessions by hand: what was said, read back as frames, and two that have greeted each other."""

from __future__ import annotations

from heartline.session import Heartbeat, Hello, Role, Session, Welcome
from heartline.session.session import Event
from heartline.wire import Frame, FrameDecoder, FrameType, Limits, encode
from heartline.wire.limits import SHARES

BURST = 256 * 1024


def frugal(share: int, **limits: int) -> Limits:
    """Limits that hold so many bytes of each kind, and messages of that length."""
    settled = {"channels": 2, "window": 1000, "calls": 1, "replay_buffer": 1000, "write_buffer": 1000}
    sizes = {"frame_size": min(65536, share), "message_size": share, "memory": SHARES * share}
    return Limits(**{**sizes, **settled, **limits})


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


def give_bytes(session: Session, data: bytes) -> list[Event]:
    """All events of these bytes, those too that a session holds back behind a long message."""
    events = session.receive(data, 0.0)
    while session.holds_back:
        events += session.receive(b"", 0.0)
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
    two.welcome("the id", token=b"token 0")
    move(two, one, now=now)
    return one, two


def lose(*sessions: Session) -> None:
    for session in sessions:
        session.lose()


def reconnect(
    client: Session,
    server: Session,
    limits: tuple[Limits, Limits] = (Limits(), Limits()),
    *,
    now: float = 0.0,
) -> list[Event]:
    """Both go on with another link; what came to the client behind the WELCOME."""
    one = Session(Role.CLIENT, limits=limits[0], heartbeat=Heartbeat(), now=now)
    two = Session(Role.SERVER, limits=limits[1], heartbeat=Heartbeat(), now=now)
    one.hello(resume=client.ticket)
    (hello,) = move(one, two, now=now)
    assert isinstance(hello, Hello)
    assert hello.resume is not None
    assert server.admits(hello.resume, hello.limits)
    two.welcome("the id", token=client.token + b"'", resumed=True, received=server.received)
    server.resume(two, hello.resume[1])
    (welcome,) = move(server, one, now=now)
    assert isinstance(welcome, Welcome)
    client.resume(one, welcome.received)
    return give(client, now=now) if client.holds_back else []
