"""The bytes of one stream in one direction, on their way over a wire."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable

import trio

from heartline.testing._wire import Wire

__all__ = ["Flow"]

CAPACITY = 64 * 1024
"""Bytes of one direction of a stream under way or unread until sending waits, as in ``memory_pair``."""

ANNOUNCED = CAPACITY // 4
"""Bytes read after which the sender hears of the room, if anything is left unread: told of every byte, it
would send ever smaller pieces to a slow reader (the silly window syndrome of RFC 813)."""

PIECE_SIZE = 16 * 1024
"""Bytes that arrive at once, at most. Pieces are cut anywhere, and some of them very small."""


class Flow:
    """Pieces with the moment (in the wire's time) at which each is there.

    The last piece may be empty, which is the end of the stream, or ``None``: the sender is gone without an
    end. No task moves the pieces: the receiver sleeps until the next one is due.
    """

    def __init__(
        self, wire: Wire, back: Wire, rng: random.Random, witness: Callable[[float, bytes], None]
    ) -> None:
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        self.held: int = 0
        """Bytes sent of which the sender has not heard that they were read, at most :data:`CAPACITY`."""
        self.ended: bool = False
        """The sender has said that no more will come."""
        self._wire = wire
        self._back = back
        self._rng = rng
        self._witness = witness
        self._pieces: deque[tuple[float, bytes | None]] = deque()
        self._read = 0
        """Bytes, of those held."""
        self._deaf = False
        """Nothing that is sent will arrive any more."""
        self._refused = math.inf
        """When the sender learns, in the time of the wire back, that nobody receives."""
        for user in (wire, back):
            user.users[self] = None

    def detach(self) -> None:
        """Both ends are done: the wires may forget this."""
        for user in (self._wire, self._back):
            user.users.pop(self, None)

    # The sender's side.

    @property
    def room(self) -> int:
        """Bytes that can be sent now."""
        return CAPACITY - self.held

    @property
    def refused(self) -> bool:
        """Whether the sender knows that nobody receives any more."""
        return self._back.is_past(self._refused)

    async def wait_room(self, room: int, over: Callable[[], bool]) -> None:
        """Return when ``room`` bytes fit, or waiting is of no use: ``over()`` is true, or it is refused."""
        await self._wait(
            lambda: self.room >= room or self.refused or over(), lambda: self._back.due(self._refused)
        )

    def put(self, data: bytes) -> None:
        """Send ``data``, for which there is room."""
        self.held += len(data)
        while data and not self._deaf:
            # Half goes on in one piece, as most writes do. A tenth is cut into crumbs, where code that puts
            # messages together fails first.
            chance, size = self._rng.random(), min(PIECE_SIZE, len(data))
            if chance < 0.5:
                size = self._rng.randint(1, min(size, 16) if chance < 0.1 else size)
            self._send(data[:size])
            data = data[size:]

    def end(self) -> None:
        """Say that no more bytes will come."""
        if not self.ended:
            self.ended = True
            if not self._deaf:
                self._send(b"")

    def abort(self) -> None:
        """The sender is gone, and its system says so."""
        self._send(None)

    def _send(self, piece: bytes | None) -> None:
        # Jitter may make a piece due before the one ahead of it, for which it then waits.
        due = self._wire.send(len(piece or b""))
        self._pieces.append((due, piece))
        self._witness(due, piece or b"")
        self.changed.unpark_all()

    # The receiver's side.

    @property
    def readable(self) -> bool:
        """Whether a piece, or the end, is there."""
        return bool(self._pieces) and self._wire.is_past(self._pieces[0][0])

    async def wait_readable(self, over: Callable[[], bool]) -> None:
        """Return when a piece or the end is there, or waiting is of no use: ``over()`` is true."""
        await self._wait(lambda: self.readable or over(), self._next_due)

    def take(self, most: int | None) -> bytes | None:
        """The piece that is there, or its first ``most`` bytes; the end (or ``None``) again and again."""
        due, piece = self._pieces[0]
        if not piece:
            return piece
        taken, rest = (piece, b"") if most is None else (piece[:most], piece[most:])
        if rest:
            self._pieces[0] = due, rest
        else:
            self._pieces.popleft()
        self._read += len(taken)
        if self._read >= ANNOUNCED or not self._pieces:
            self.held, self._read = self.held - self._read, 0
            self.changed.unpark_all()
        return taken

    def refuse(self) -> None:
        """Receive no more, and let the sender know."""
        self._refused = min(self._refused, self._back.send(0))
        self._pieces.clear()
        self.lose()

    def _next_due(self) -> float:
        return self._wire.due(self._pieces[0][0]) if self._pieces else math.inf

    # What can happen to it.

    def lose(self, *, now: bool = False) -> None:
        """Lose what is under way and unread, except for a prefix, which with ``now`` arrives at once.

        The sender is not told: what it had sent counts against its room for ever.
        """
        kept: deque[tuple[float, bytes | None]] = deque()
        budget = self._rng.randint(0, sum(len(piece or b"") for _, piece in self._pieces))
        for due, piece in self._pieces:
            if piece and budget > 0:
                kept.append((-math.inf if now else due, piece[:budget]))
                budget -= len(piece)
        self._pieces, self._deaf = kept, True
        self.changed.unpark_all()

    async def _wait(self, ready: Callable[[], bool], due: Callable[[], float]) -> None:
        if ready():
            await trio.lowlevel.checkpoint()
        while not ready():
            with trio.CancelScope(deadline=due()):
                await self.changed.park()
