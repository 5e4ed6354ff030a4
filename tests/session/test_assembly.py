"""What a message that came in fragments is made of."""

from __future__ import annotations

from typing import Any

import pytest

from heartline.session.assembly import Assembly
from heartline.wire import Flag, Frame, FrameType, Limits


@pytest.mark.parametrize(("flags", "kind"), [(0, bytes), (Flag.RAW, bytearray)])
def test_only_what_arrays_will_view_is_writable(flags: int, kind: type) -> None:
    """So a reader of bytes gets them as they are, and a receiver of arrays too: neither copies them again."""
    assembly = Assembly(Limits())
    assert assembly.add(Frame(FrameType.DATA, flags | Flag.MORE, 0, 0, b"one ")) is None
    whole: Any = assembly.add(Frame(FrameType.DATA, flags, 0, 0, b"two"))
    assert type(whole.payload) is kind
    assert whole.payload == b"one two"
