"""Values: CBOR by default; JSON, MessagePack or a registered serializer where an endpoint chooses it.

Dataclasses, attrs classes, msgspec structs and enums travel as plain maps and values, sets as arrays; the
annotations of the receiving method make them what they were. No peer can make a decoder nest deeper than 32
levels, take map keys whose hashes collide, or pass over bytes behind the value.
"""

from heartline.wire.serializers.cbor import CborSerializer
from heartline.wire.serializers.conversion import convert
from heartline.wire.serializers.json import JsonSerializer
from heartline.wire.serializers.msgpack import MsgpackSerializer
from heartline.wire.serializers.registry import Serializer, get_serializer, register_serializer
from heartline.wire.serializers.text import decode_text, encode_text

__all__ = [
    "CborSerializer",
    "JsonSerializer",
    "MsgpackSerializer",
    "Serializer",
    "convert",
    "decode_text",
    "encode_text",
    "get_serializer",
    "register_serializer",
]
