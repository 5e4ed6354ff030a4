"""The handshake and the goodbye: what is agreed, and what is refused by name."""

from __future__ import annotations

from typing import Any

import cbor2
import numpy as np
import pytest

from fuzz.session_states import Place, greeting, session_at
from heartline.errors import LocalProtocolError, RemoteProtocolError, SerializationError
from heartline.session import (
    CloseCode,
    GoAway,
    Heartbeat,
    Hello,
    PeerLimits,
    Refuse,
    Role,
    Session,
    State,
    Welcome,
)
from heartline.session.messages import HELLO_SIZE, REASON_SIZE, SMALLEST_FRAME, VERSION, parse, render
from heartline.wire import HEADER_SIZE, CborSerializer, Frame, FrameType, Limits, encode
from heartline.wire.limits import LEAST_ITEMS
from tests.session.helpers import give, pair, taken

HELLO = Hello(version=VERSION, limits=PeerLimits.of(Limits()), heartbeat_timeout=30.0)
WELCOME = Welcome(version=VERSION, session="id", limits=PeerLimits.of(Limits()), heartbeat_timeout=30.0)
REFUSE = Refuse(code=2, reason="full")
GOAWAY = GoAway(code=1, reason="restart", drain=2.0)
MESSAGES = [HELLO, WELCOME, REFUSE, GOAWAY]
HUGE = 2**64 - 1


def altered(message: Any, **fields: Any) -> bytes:
    """The payload of a message with other values in some fields; ``...`` takes a field away."""
    value = cbor2.loads(render(message)) | fields
    return CborSerializer().encode({name: field for name, field in value.items() if field is not ...}, [])


def altered_limits(message: Any, **fields: Any) -> bytes:
    return altered(message, limits=cbor2.loads(render(message))["limits"] | fields)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was(message: Any) -> None:
    assert parse(render(message), type(message)) == message


def test_everything_in_a_greeting_arrives() -> None:
    limits = Limits(
        frame_size=5000,
        message_size=6000,
        items=20_000,
        memory=500_000_000,
        window=700,
        calls=9,
        channels=4,
        resume_window=7.5,
        replay_buffer=10_000,
    )
    client = Session(Role.CLIENT, limits=limits, heartbeat=Heartbeat(interval=1, timeout=9), now=0.0)
    client.hello(identity="who", credentials={"token": b"\x00secret"})
    server = session_at(Place(Role.SERVER, State.NEW, Limits()))
    (hello,) = give(server, *taken(client))
    assert hello == Hello(
        version=VERSION,
        limits=PeerLimits(
            frame_size=5000,
            message_size=6000,
            items=20_000,
            memory=500_000_000,
            window=700,
            calls=9,
            channels=4,
        ),
        heartbeat_timeout=9.0,
        identity="who",
        credentials={"token": b"\x00secret"},
        resume_window=7.5,
        replay_buffer=10_000,
    )
    assert server.peer is hello
    assert server.outbox.limits == hello.limits


MALFORMED = [
    (HELLO, {"version": ...}, "version"),
    (HELLO, {"version": "1"}, r"\$\.version"),
    (HELLO, {"version": True}, r"\$\.version"),
    (HELLO, {"version": 1.5}, r"\$\.version"),
    (HELLO, {"limits": ...}, "limits"),
    (HELLO, {"limits": 7}, r"\$\.limits"),
    (HELLO, {"limits": {}}, r"\$\.limits"),
    (HELLO, {"heartbeat_timeout": ...}, "heartbeat_timeout"),
    (HELLO, {"heartbeat_timeout": "30"}, r"\$\.heartbeat_timeout"),
    (HELLO, {"identity": 5}, r"\$\.identity"),
    (HELLO, {"identity": b"who"}, r"\$\.identity"),
    (HELLO, {"resume": [b"token"]}, r"\$\.resume"),
    (HELLO, {"resume": [b"token", -0.5]}, r"\$\.resume"),
    (WELCOME, {"session": ...}, "session"),
    (WELCOME, {"session": 5}, r"\$\.session"),
    (WELCOME, {"token": "text"}, r"\$\.token"),
    (WELCOME, {"resumed": 1}, r"\$\.resumed"),
    (WELCOME, {"received": None}, r"\$\.received"),
    (HELLO, {"resume_window": "60"}, r"\$\.resume_window"),
    (WELCOME, {"replay_buffer": 0.5}, r"\$\.replay_buffer"),
    (REFUSE, {"code": ...}, "code"),
    (REFUSE, {"code": "full"}, r"\$\.code"),
    (REFUSE, {"reason": b"full"}, r"\$\.reason"),
    (GOAWAY, {"code": None}, r"\$\.code"),
    (GOAWAY, {"drain": "soon"}, r"\$\.drain"),
]


@pytest.mark.parametrize(("message", "fields", "named"), MALFORMED)
def test_a_field_of_the_wrong_type_is_named(message: Any, fields: dict[str, Any], named: str) -> None:
    kind = type(message)
    with pytest.raises(RemoteProtocolError, match=f"malformed {kind.__name__.upper()}: .*{named}"):
        parse(altered(message, **fields), kind)


@pytest.mark.parametrize("kind", [Hello, Welcome, Refuse, GoAway])
@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"\xa0", b"\x80", b"\x00", cbor2.dumps({b"code": 1}), b"\xa1" * 99]
)
def test_what_is_no_message_at_all_is_refused(kind: Any, payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=f"malformed {kind.__name__.upper()}"):
        parse(payload, kind)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_truncation_is_refused(message: Any) -> None:
    payload = render(message)
    for length in range(len(payload)):
        with pytest.raises(RemoteProtocolError, match="malformed"):
            parse(payload[:length], type(message))
    with pytest.raises(RemoteProtocolError, match="bytes behind the value"):
        parse(payload + b"\x00", type(message))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_fields_of_a_later_version_are_skipped(message: Any) -> None:
    assert parse(altered(message, later={"deep": [1, None]}, **{"": 1.5}), type(message)) == message


def test_every_field_that_version_one_could_do_without_has_a_default() -> None:
    limits = cbor2.loads(render(HELLO))["limits"]
    bare = {"version": VERSION, "limits": limits, "heartbeat_timeout": 30}
    assert parse(cbor2.dumps(bare), Hello) == HELLO
    assert parse(cbor2.dumps(bare | {"session": "id"}), Welcome) == WELCOME
    assert parse(cbor2.dumps({"code": 2}), Refuse).reason == ""
    assert parse(cbor2.dumps({"code": 1}), GoAway).drain == 0.0


@pytest.mark.parametrize("message", [HELLO, WELCOME], ids=["HELLO", "WELCOME"])
@pytest.mark.parametrize(
    "timeout", [float("nan"), float("inf"), -float("inf"), -1.0, 0.0, -0.0, 1e-300, 0.01, 0.29]
)
def test_a_timeout_that_cannot_be_kept_is_refused(message: Any, timeout: float) -> None:
    with pytest.raises(RemoteProtocolError, match=f"a heartbeat timeout of {timeout} s"):
        parse(altered(message, heartbeat_timeout=timeout), type(message))


@pytest.mark.parametrize("message", [HELLO, WELCOME], ids=["HELLO", "WELCOME"])
@pytest.mark.parametrize(
    "fields",
    [{"resume_window": -1}, {"resume_window": float("nan")}, {"replay_buffer": -1}],
    ids=lambda fields: f"{fields}",
)
def test_a_wait_that_makes_no_sense_is_refused(message: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(
        RemoteProtocolError, match=r"the peer would wait .* s for a lost session, with .* kept"
    ):
        parse(altered(message, **fields), type(message))


@pytest.mark.parametrize("timeout", [0.3, 5, 1e300, HUGE])
def test_any_other_timeout_is_taken(timeout: float) -> None:
    assert parse(altered(HELLO, heartbeat_timeout=timeout), Hello).heartbeat_timeout == float(timeout)


@pytest.mark.parametrize("message", [HELLO, WELCOME], ids=["HELLO", "WELCOME"])
@pytest.mark.parametrize("name", PeerLimits.__struct_fields__)
def test_limits_under_which_nothing_can_be_sent_are_refused(message: Any, name: str) -> None:
    least = {"frame_size": SMALLEST_FRAME, "items": LEAST_ITEMS}.get(name, 1)
    for value in (0, -1, -(2**63), least - 1):
        with pytest.raises(RemoteProtocolError, match=f"announces {name} = {value}, at least {least}"):
            parse(altered_limits(message, **{name: value}), type(message))
    for value in (least, HUGE):
        assert getattr(parse(altered_limits(message, **{name: value}), type(message)).limits, name) == value
    for bad in (None, "1", 2.5, True, b""):
        with pytest.raises(RemoteProtocolError, match="malformed"):
            parse(altered_limits(message, **{name: bad}), type(message))


@pytest.mark.parametrize("kind", [Hello, Welcome, Refuse, GoAway])
def test_a_message_of_many_items_is_not_built(kind: Any) -> None:
    bomb = b"\xa1\x61x\x9a" + HELLO_SIZE.to_bytes(4) + b"\x80" * HELLO_SIZE
    with pytest.raises(RemoteProtocolError, match=r"malformed .*: more than 65536 items"):
        parse(bomb, kind)


def test_huge_limits_of_a_peer_do_no_harm() -> None:
    session = session_at(Place(Role.SERVER, State.NEW, Limits()))
    everything = dict.fromkeys(PeerLimits.__struct_fields__, HUGE)
    give(session, Frame(FrameType.HELLO, payload=altered_limits(HELLO, **everything)))
    session.welcome("id")
    taken(session)
    session.send(FrameType.DATA, 0, 0, bytes(300_000))
    assert sum(len(frame.payload) for frame in taken(session, budget=10**6)) == 300_000


@pytest.mark.parametrize("drain", [float("nan"), -1.0, -1e-9, -float("inf")])
def test_a_drain_that_makes_no_sense(drain: float) -> None:
    client, server = pair(Limits(), Limits())
    with pytest.raises(RemoteProtocolError, match=f"wants to drain for {drain} s"):
        give(client, Frame(FrameType.GOAWAY, payload=altered(GOAWAY, drain=drain)))
    assert client.state is State.OPEN
    with pytest.raises(LocalProtocolError, match=f"cannot drain for {drain} s"):
        server.go_away(1, "restart", drain=drain)
    assert server.state is State.OPEN


@pytest.mark.parametrize("drain", [0, 0.0, 5, float("inf")])
def test_any_other_drain_arrives(drain: float) -> None:
    client, server = pair(Limits(), Limits())
    server.go_away(1, "restart", drain=drain)
    assert give(client, *taken(server)) == [GoAway(code=1, reason="restart", drain=float(drain))]


def test_an_answer_in_another_version_is_refused() -> None:
    client = session_at(Place(Role.CLIENT, State.GREETING, Limits()))
    with pytest.raises(RemoteProtocolError, match="answers in version 2, not in 1"):
        give(client, Frame(FrameType.WELCOME, payload=altered(WELCOME, version=2)))
    assert client.peer is None
    # A HELLO in another version is for the server to refuse with a reason.
    server = session_at(Place(Role.SERVER, State.NEW, Limits()))
    (hello,) = give(server, Frame(FrameType.HELLO, payload=altered(HELLO, version=2)))
    assert isinstance(hello, Hello)
    assert hello.version == 2


@pytest.mark.parametrize("role", Role)
def test_a_malformed_greeting_leaves_the_session_where_it_was(role: Role) -> None:
    place = Place(role, State.GREETING if role is Role.CLIENT else State.NEW, Limits())
    session = session_at(place)
    kind = FrameType.WELCOME if role is Role.CLIENT else FrameType.HELLO
    with pytest.raises(RemoteProtocolError, match="malformed"):
        give(session, Frame(kind, payload=b"\xa0"))
    assert session.state is place.state
    assert session.peer is None


@pytest.mark.parametrize("credentials", [object(), np.zeros(3), memoryview(b"x"), {"a": [np.zeros(3)]}])
def test_credentials_that_cannot_be_sent(credentials: Any) -> None:
    client = session_at(Place(Role.CLIENT, State.NEW, Limits()))
    with pytest.raises(SerializationError):
        client.hello(credentials=credentials)
    assert client.state is State.NEW
    client.hello(credentials="these can")
    assert len(taken(client)) == 1


def test_credentials_longer_than_a_hello() -> None:
    """Whoever sends them has proved nothing, and decoding takes the loop's time."""
    client = session_at(Place(Role.CLIENT, State.NEW, Limits()))
    with pytest.raises(LocalProtocolError, match="it may have 65536"):
        client.hello(credentials=bytes(HELLO_SIZE))
    client.hello(credentials=bytes(HELLO_SIZE - 1024))
    (hello,) = taken(client)
    for length, error in ((HELLO_SIZE, "malformed"), (HELLO_SIZE + 1, "a HELLO of 65537 bytes")):
        server = session_at(Place(Role.SERVER, State.NEW, Limits()))
        with pytest.raises(RemoteProtocolError, match=error):
            server.receive(encode([Frame(FrameType.HELLO, payload=hello.payload.ljust(length, b"x"))]), 0.0)


def test_credentials_end_with_the_handshake() -> None:
    """Decoded they can take a hundred times the bytes of a HELLO, and a connection lasts."""
    client = session_at(Place(Role.CLIENT, State.NEW, Limits()))
    server = session_at(Place(Role.SERVER, State.NEW, Limits()))
    client.hello(identity="a name", credentials=[[] for _ in range(1000)])
    (hello,) = server.receive(encode(taken(client)), 0.0)
    server.welcome("a name")
    assert isinstance(hello, Hello)
    assert isinstance(server.peer, Hello)
    assert (server.peer.identity, server.peer.credentials) == ("a name", None)


def test_credentials_longer_than_a_frame() -> None:
    client = session_at(Place(Role.CLIENT, State.NEW, Limits(frame_size=4096)))
    with pytest.raises(LocalProtocolError, match=r"the credentials make a HELLO of 51\d\d bytes"):
        client.hello(credentials=bytes(4900))
    assert client.state is State.NEW
    client.hello(credentials=bytes(3700))


@pytest.mark.parametrize("reason", ["x" * 10**6, "\U0001f600" * 10**6, "x" + "é" * 10**6, "\ud800" * 10**6])
def test_a_reason_is_as_long_as_any_peer_can_take(reason: str) -> None:
    server = session_at(Place(Role.SERVER, State.NEW, Limits()))
    server.refuse(CloseCode.OVERLOADED, reason)
    frames = taken(server)
    assert sum(HEADER_SIZE + len(frame.payload) for frame in frames) <= SMALLEST_FRAME
    client = session_at(Place(Role.CLIENT, State.GREETING, Limits()))
    (refusal,) = give(client, *frames)
    assert isinstance(refusal, Refuse)
    shown = reason.encode(errors="replace").decode()
    assert shown.startswith(refusal.reason)
    assert REASON_SIZE - 4 < len(refusal.reason.encode()) <= REASON_SIZE


def test_the_greetings_fit_in_the_smallest_frame() -> None:
    assert len(greeting(Role.CLIENT)) < SMALLEST_FRAME / 2
    widest = Welcome(
        version=VERSION,
        session="\U0001f600" * 256,
        limits=PeerLimits(**dict.fromkeys(PeerLimits.__struct_fields__, HUGE)),
        heartbeat_timeout=1e300,
        token=bytes(16),
        resumed=True,
        received=HUGE,
        resume_window=1e300,
        replay_buffer=HUGE,
    )
    assert len(render(widest)) <= SMALLEST_FRAME


@pytest.mark.parametrize(
    ("code", "terminal"), [(0, False), (5, False), (99, False), (100, True), (104, True), (999, True)]
)
def test_a_code_is_terminal_from_a_hundred_on(code: int, terminal: bool) -> None:
    assert CloseCode.is_terminal(code) is terminal


@pytest.mark.parametrize("code", [0, -1, 104, 10**6, HUGE])
def test_codes_of_later_versions_arrive(code: int) -> None:
    client = session_at(Place(Role.CLIENT, State.GREETING, Limits()))
    (refusal,) = give(client, Frame(FrameType.REFUSE, payload=altered(REFUSE, code=code)))
    assert isinstance(refusal, Refuse)
    assert refusal.code == code
