"""The wire without I/O: frames, payloads, values, serializers and the limits that guard them.

``FrameDecoder`` takes bytes cut or coalesced anywhere and gives frames; ``encode`` is its inverse.
"""

from heartline.wire.frames import (
    CONTROL_TYPES,
    HEADER,
    HEADER_SIZE,
    Flag,
    Frame,
    FrameDecoder,
    FrameType,
    encode,
)
from heartline.wire.limits import Limits
from heartline.wire.payload import MessageLimits, decode_body, decode_value, encode_body, encode_value
from heartline.wire.segments import Segment, unwrap, wrap
from heartline.wire.serializers import (
    CborSerializer,
    JsonSerializer,
    MsgpackSerializer,
    Serializer,
    convert,
    decode_text,
    encode_text,
    get_serializer,
    register_serializer,
)

__all__ = [
    "CONTROL_TYPES",
    "HEADER",
    "HEADER_SIZE",
    "CborSerializer",
    "Flag",
    "Frame",
    "FrameDecoder",
    "FrameType",
    "JsonSerializer",
    "Limits",
    "MessageLimits",
    "MsgpackSerializer",
    "Segment",
    "Serializer",
    "convert",
    "decode_body",
    "decode_text",
    "decode_value",
    "encode",
    "encode_body",
    "encode_text",
    "encode_value",
    "get_serializer",
    "register_serializer",
    "unwrap",
    "wrap",
]
