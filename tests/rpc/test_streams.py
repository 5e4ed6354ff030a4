"""Calls with a lane for a stream of items: refused, until methods stream, and the lane is free again."""

from __future__ import annotations

import pytest
import trio

import heartline
from heartline import Limits, service
from heartline.wire import Frame, FrameType
from tests.rpc.helpers import CBOR, QUIET, RawPeer, call_frame, raw_client, settle

CALL, DATA, CLOSE, RESET, CANCEL, FAULT = (
    FrameType.CALL,
    FrameType.DATA,
    FrameType.CLOSE,
    FrameType.RESET,
    FrameType.CANCEL,
    FrameType.FAULT,
)
WINDOW = 4096


@service
class Busy:
    def __init__(self) -> None:
        self.added = 0

    def add(self, a: int, b: int) -> int:
        self.added += 1
        return a + b

    async def wait(self, a: int, b: int) -> None:
        await trio.sleep_forever()


class Streamer:
    """A peer whose calls have lanes."""

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer
        self.number = 100

    def begin(self, target: str) -> int:
        """Queue a CALL with a lane."""
        self.number += 1
        lane = self.peer.session.next_channel()
        self.peer.session.send(CALL, lane, self.number, call_frame(0, target, 1, 2).payload)
        return lane

    def end(self, lane: int, end: str) -> None:
        """Queue what a caller says at the end."""
        if end == "close":
            self.peer.session.send(CLOSE, lane, 0, b"")
            return
        self.peer.session.break_off(RESET, lane)
        if end == "cancel":
            self.peer.session.send(CANCEL, lane, self.number, b"")

    async def receive_fault(self, lane: int) -> tuple[str, str]:
        """The kind and the message of the fault that answers on this lane."""
        await self.peer.flush()
        frame = await self.peer.receive()
        assert (frame.type, frame.channel, frame.id) == (FAULT, lane, self.number)
        fault = CBOR.decode(frame.payload)
        return fault["kind"], fault["message"]


def is_free(peer: RawPeer, lane: int) -> bool:
    return lane not in [number for number, _ in peer.session._lanes.all()]


@pytest.mark.parametrize("end", ["close", "reset", "cancel"])
@pytest.mark.parametrize("at_once", [False, True], ids=["behind the answer", "at once"])
@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("Busy.add", "arguments"),
        ("Busy.wait", "arguments"),
        ("Busy.missing", "unknown"),
        ("Busy.add while others run", "overloaded"),
    ],
)
async def test_a_call_with_a_lane_is_refused_and_the_lane_is_free(
    target: str, kind: str, at_once: bool, end: str
) -> None:
    busy = Busy()
    # One lane at a time: were it not free, the next would be an error of the protocol.
    limits = Limits(calls=1, channels=1, resume_window=0)
    async with (
        heartline.open_server("memory://", services=[busy], limits=limits, heartbeat=QUIET) as server,
        raw_client(server.urls[0]) as peer,
    ):
        if kind == "overloaded":
            await peer.call(1, "Busy.wait", 1, 2)
        streamer = Streamer(peer)
        for _ in range(3):
            lane = streamer.begin(target.split()[0])
            peer.session.send(DATA, lane, 0, b"an item")
            if at_once:
                streamer.end(lane, end)
            seen_kind, message = await streamer.receive_fault(lane)
            assert seen_kind == kind
            assert ("no stream" in message) is (kind == "arguments")
            if not at_once:
                streamer.end(lane, end)
                await peer.flush()
                await settle()
            assert is_free(peer, lane)
        assert busy.added == 0
        if kind == "overloaded":
            return
        await peer.call(2, "Busy.add", 1, 2)
        assert await peer.receive_result() == 3


async def test_items_for_a_refused_call_are_dropped_and_their_credit_comes_back() -> None:
    limits = Limits(frame_size=WINDOW, window=WINDOW, resume_window=0)
    async with (
        heartline.open_server("memory://", services=[Busy()], limits=limits, heartbeat=QUIET) as server,
        raw_client(server.urls[0]) as peer,
    ):
        streamer = Streamer(peer)
        lane = streamer.begin("Busy.add")
        for _ in range(20):
            peer.session.send(DATA, lane, 0, bytes(WINDOW))
            await peer.flush()
            while peer.session.outbox.blocked(lane):
                data = await peer.stream.receive_some(1 << 20)
                for event in peer.session.receive(bytes(data), trio.current_time()):
                    assert isinstance(event, Frame)
                    peer._frames.append(event)
        streamer.end(lane, "close")
        assert (await streamer.receive_fault(lane))[0] == "arguments"
        (connection,) = server.connections.values()
        assert connection.statistics().frames_received > 20
        assert connection.statistics().channels == 0
        with trio.move_on_after(0) as scope:
            await connection.accept_channel()
        assert scope.cancelled_caught, "an item is no channel"
        await peer.call(2, "Busy.add", 1, 2)
        assert await peer.receive_result() == 3
