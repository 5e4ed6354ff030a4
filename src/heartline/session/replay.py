"""What was sent and is not confirmed: kept to be sent again on the next link.

Frames are kept as they were written, a chunk for each write, not an object for each frame, nor views that
would keep a whole message for one fragment of it. Only short writes are copied, to the one before. So keeping
costs little, and no more memory than it counts; positions are found again from the lengths in the frames'
headers.
"""

from __future__ import annotations

from heartline.session.outbox import Buffer
from heartline.wire import HEADER, HEADER_SIZE

__all__ = ["Replay"]


SMALL = 512
"""Bytes below which a write is put to the chunk before it if that is small too: a peer that makes the other
side write single small frames, and confirms none or each by itself, costs neither memory nor time."""


class _Chunk:
    """Some frames in a row."""

    __slots__ = ("buffers", "count", "size")

    def __init__(self, buffers: list[Buffer], count: int, size: int) -> None:
        self.buffers, self.count, self.size = buffers, count, size


class Replay:
    """The sequenced frames that the peer has not confirmed, oldest first."""

    __slots__ = ("_chunks", "_due", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        """Bytes; when they are reached nothing new is sent until the peer confirms."""
        self.size: int = 0
        """Bytes kept, headers included."""
        self._chunks: list[_Chunk] = []
        self._due = 0
        """Chunks at the end that have to be sent again."""

    @property
    def full(self) -> bool:
        """Whether the peer has to confirm something before anything new is sent."""
        return self.size >= self.limit

    @property
    def due(self) -> bool:
        """Whether frames have to be sent again."""
        return self._due > 0

    def keep(self, buffers: list[Buffer], count: int) -> None:
        """Keep what is sent now: ``count`` frames."""
        size = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        self.size += size
        if size < SMALL and len(buffers) == 1 and self._chunks and not self._due:
            last = self._chunks[-1]
            if last.size < SMALL and len(last.buffers) == 1:
                last.buffers[0] = b"".join((last.buffers[0], buffers[0]))
                last.count, last.size = last.count + count, last.size + size
                return
        self._chunks.append(_Chunk(buffers, count, size))

    def drop(self, count: int) -> None:
        """Forget the ``count`` oldest frames: they are confirmed."""
        whole = 0
        for chunk in self._chunks:
            if chunk.count > count:
                if count:
                    self._shorten(chunk, count)
                break
            count -= chunk.count
            self.size -= chunk.size
            whole += 1
        del self._chunks[:whole]
        self._due = min(self._due, len(self._chunks))

    def _shorten(self, chunk: _Chunk, count: int) -> None:
        rest = _without(chunk.buffers, count)
        size = sum(map(len, rest))
        self.size -= chunk.size - size
        chunk.buffers, chunk.count, chunk.size = rest, chunk.count - count, size

    def rewind(self) -> None:
        """Everything that is kept has to be sent again."""
        self._due = len(self._chunks)

    def take(self, budget: int) -> list[Buffer]:
        """The next of what has to be sent again: whole chunks, until ``budget`` bytes are reached."""
        buffers: list[Buffer] = []
        taken = 0
        while self._due and (not buffers or taken < budget):
            chunk = self._chunks[-self._due]
            buffers += chunk.buffers
            taken += chunk.size
            self._due -= 1
        return buffers


def _without(buffers: list[Buffer], count: int) -> list[Buffer]:
    """These buffers without their first frames. A header never lies in two buffers, a payload may."""
    index = position = 0
    for _ in range(count):
        position += HEADER_SIZE + HEADER.unpack_from(buffers[index], position)[0]
        while index < len(buffers) and position >= len(buffers[index]):
            position -= len(buffers[index])
            index += 1
    rest = buffers[index:]
    if position:
        rest[0] = memoryview(rest[0])[position:]
    return rest
