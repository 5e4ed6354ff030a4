"""The session: whatever two users do and however the link cuts it, and whatever bytes a peer sends."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import cbor2
import pytest
from hypothesis import event as reached
from hypothesis import given
from hypothesis import strategies as st

from fuzz.session_pair import BURST, World
from fuzz.session_script import Command, commands, limits
from fuzz.session_states import FIRST_CHANNELS, LIMITS, PLACES, Place, next_link, session_at
from fuzz.strategies import cbor_values, mutated, partitions, streams
from heartline.errors import RemoteProtocolError
from heartline.session import GoAway, Hello, PeerLimits, Refuse, Role, Session, State, Welcome
from heartline.session.heartbeat import SHORTEST_TIMEOUT
from heartline.session.messages import CONFIRMATION, MARK, SMALLEST_FRAME, VERSION, parse, render
from heartline.session.session import Event
from heartline.wire import CONTROL_TYPES, CborSerializer, Flag, Frame, FrameType, Limits, encode

# Lists of lists: one list would be short, as a rule.
scripts = st.lists(st.lists(commands, max_size=20), max_size=20)


def play(client: Limits, server: Limits, greeted: bool, script: list[list[Command]]) -> World:
    """The world behind a script, settled."""
    world = World(client, server)
    world.greet()
    if greeted:
        world.client.arrive(BURST, world.now)
    for command in itertools.chain.from_iterable(script):
        command(world)
        world.check()
    world.settle()
    return world


@given(limits, limits, st.booleans(), scripts)
def whatever_two_sides_send_arrives_once_and_in_order(
    client: Limits, server: Limits, greeted: bool, script: list[list[Command]]
) -> None:
    """Over any links, lost at any byte."""
    for mark, times in play(client, server, greeted, script).marks.items():
        if times:
            reached(mark)


# What a peer may send.

GREETINGS = [
    Hello(version=VERSION, limits=PeerLimits.of(Limits()), heartbeat_timeout=30.0, identity="a"),
    Welcome(version=VERSION, session="a", limits=PeerLimits.of(Limits()), heartbeat_timeout=30.0),
]
GOODBYES = [Refuse(code=2, reason="full"), GoAway(code=1, drain=1.0)]
_messages = st.sampled_from(GREETINGS + GOODBYES)
_numbers = st.sampled_from([0, 1, -1, 2, 2**63, 2**64 - 1, -(2**63), 0.0, 1e-300]) | st.floats()


@st.composite
def _altered(draw: st.DrawFn) -> bytes:
    """A message of which some fields were taken away or have other values."""
    fields = cbor2.loads(render(draw(_messages)))
    for _ in range(draw(st.integers(1, 3))):
        inside = fields.get("limits") if draw(st.booleans()) else fields
        if not isinstance(inside, dict) or not inside:
            continue
        name = draw(st.sampled_from(sorted(inside, key=repr)))
        if draw(st.integers(0, 4)):
            inside[name] = draw(_numbers | cbor_values)
        else:
            del inside[name]
    return CborSerializer().encode(fields, [])


_rendered = _messages.map(render)
message_payloads = st.one_of(_rendered, _altered(), mutated(_rendered), cbor_values.map(cbor2.dumps))

_counts = st.integers(0, 4) | st.integers(0, 2**64 - 1)
_control = st.one_of(
    st.builds(
        lambda kind, payload: Frame(kind, 0, 0, 0, payload),
        st.sampled_from([FrameType.HELLO, FrameType.WELCOME, FrameType.REFUSE, FrameType.GOAWAY]),
        message_payloads,
    ),
    st.builds(
        lambda kind, time, count: Frame(kind, 0, 0, 0, MARK.pack(time, count)),
        st.sampled_from([FrameType.PING, FrameType.PONG]),
        st.floats(),
        _counts,
    ),
    st.builds(
        lambda kind, number, count: Frame(kind, 0, 0, number, CONFIRMATION.pack(count)),
        st.sampled_from([FrameType.ACK, FrameType.CREDIT]),
        st.integers(0, 4),
        _counts,
    ),
    st.builds(Frame, st.sampled_from(sorted(CONTROL_TYPES)), payload=st.binary(max_size=20)),
)
_sequenced: st.SearchStrategy[Frame] = st.builds(
    Frame,
    st.sampled_from([kind for kind in FrameType if kind >= FrameType.OPEN]),
    st.sampled_from([0, 0, int(Flag.MORE)]),
    st.integers(0, 5),
    st.integers(0, 3),
    st.binary(max_size=8) | st.sampled_from([bytes(150), bytes(300)]),
)
_frames = st.lists(_control | _sequenced | _sequenced, max_size=12)
plausible = _frames.map(encode)
places = st.sampled_from(PLACES)
incoming = plausible | mutated(plausible) | streams


class Outcome(NamedTuple):
    """All that can be seen of a session that was sent some bytes."""

    events: list[Event]
    error: str | None
    state: Any
    counts: tuple[int, int, int]
    answer: bytes


def feed(session: Session, pieces: list[bytes]) -> Outcome:
    """Send bytes, then nothing until an error that is due has come; nothing but that error may be raised."""
    events: list[Event] = []
    error = None
    try:
        for piece in pieces:
            events += session.receive(piece, 1.0)
        while session.holds_back or session.failed:
            events += session.receive(b"", 1.0)
    except RemoteProtocolError as caught:
        error = str(caught)
    assert session.failed == (error is not None)
    answer = b"".join(session.take(BURST, 1.0))
    assert 0 <= session.confirmed <= session.sent
    return Outcome(events, error, session.state, (session.received, session.confirmed, session.sent), answer)


@given(places, incoming, st.data())
def the_events_do_not_depend_on_how_the_bytes_are_cut(
    place: Place, stream: bytes, data: st.DataObject
) -> None:
    whole = feed(session_at(place), [stream])
    assert feed(session_at(place), data.draw(partitions(stream))) == whole
    assert feed(session_at(place), [bytes([byte]) for byte in stream]) == whole


@given(places, incoming, st.lists(incoming | st.just(b""), min_size=2, max_size=3))
def an_error_is_final_and_always_the_same(place: Place, stream: bytes, more: list[bytes]) -> None:
    session = session_at(place)
    first = feed(session, [stream])
    if first.error is None:
        return
    for piece in more:
        with pytest.raises(RemoteProtocolError) as caught:
            session.receive(piece, 1.0)
        assert str(caught.value) == first.error


@given(st.sampled_from(Role), _frames, st.integers(0, 12), st.integers(0, 400))
def a_loss_changes_nothing_of_what_a_peer_may_send(
    role: Role, frames: list[Frame], cut: int, arriving: int
) -> None:
    """Inside a frame that is sent again, or between two; whatever a peer may not send stands anywhere."""
    place = Place(role, State.OPEN, LIMITS)
    whole = feed(session_at(place), [encode(frames)])
    session = session_at(place)
    half = encode(frames[cut : cut + 1])
    before = feed(session, [encode(frames[:cut]) + half[:-1][:arriving]])
    if not session.resumable or before.error is not None:
        return
    session.lose()
    session.resume(next_link(session, session.confirmed, own=LIMITS), session.confirmed)
    behind = feed(session, [encode(frames[cut:])])
    assert before.events + behind.events == whole.events
    assert (behind.error is None, behind.state, behind.counts) == (
        whole.error is None,
        whole.state,
        whole.counts,
    )


@given(places, incoming)
def a_peer_gets_no_more_than_it_may(place: Place, stream: bytes) -> None:
    session = session_at(place)
    held = 0
    messages = 0
    for event in feed(session, [stream]).events:
        if isinstance(event, Frame):
            assert len(event.payload) <= place.limits.message_size
            messages += 1
            if event.type == FrameType.DATA and event.channel == FIRST_CHANNELS[0]:
                assert held < place.limits.window
                held += len(event.payload)
    assert session.received >= messages


@given(message_payloads, st.sampled_from([Hello, Welcome, Refuse, GoAway]))
def a_message_is_in_order_or_refused(payload: bytes, kind: Any) -> None:
    try:
        message = parse(payload, kind)
    except RemoteProtocolError:
        return
    if isinstance(message, GoAway):
        assert message.drain >= 0
    elif isinstance(message, (Hello, Welcome)):
        assert message.limits.frame_size >= SMALLEST_FRAME
        assert all(getattr(message.limits, name) >= 1 for name in PeerLimits.__struct_fields__)
        assert SHORTEST_TIMEOUT <= message.heartbeat_timeout < float("inf")


@given(st.sampled_from(GREETINGS + GOODBYES), st.dictionaries(st.text(max_size=5), cbor_values, max_size=4))
def fields_of_a_later_version_are_skipped(message: Any, later: dict[str, Any]) -> None:
    fields = {f"later {key}": value for key, value in later.items()} | cbor2.loads(render(message))
    assert parse(CborSerializer().encode(fields, []), type(message)) == message
