"""What the properties are tried on: frames and streams, values and arrays, and bytes that look like them."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import re
import string
import struct
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import attrs
import cbor2
import msgspec
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from heartline.wire import CONTROL_TYPES, HEADER, Flag, Frame, FrameType, encode
from heartline.wire.serializers.cbor import SEGMENT_TAG
from heartline.wire.serializers.msgpack import SEGMENT_CODE

FRAME_SIZE = 300
"""The limit of the decoders under test, in bytes: generated frames come close to it, and go beyond."""

UNKNOWN_TYPES = sorted(set(range(256)) - set(FrameType))


# Streams of frames.


_channels = st.integers(0, 0xFFFF)
_ids = st.integers(0, 0xFFFF_FFFF)
_payloads = st.binary(max_size=FRAME_SIZE)

_CARRIED = [
    (int(kind), int(flags))
    for kind in FrameType
    for flags in (0, Flag.IGNORABLE, Flag.MORE, Flag.RAW, Flag.MORE | Flag.RAW, Flag.RAW | Flag.IGNORABLE)
    if kind not in CONTROL_TYPES or flags in (0, Flag.IGNORABLE)
]

frames = st.builds(
    lambda kind, channel, number, payload: Frame(kind[0], kind[1], channel, number, payload),
    st.sampled_from(_CARRIED),
    _channels,
    _ids,
    _payloads,
)
"""Frames of known types with flags that they may carry."""

skipped_frames = st.builds(
    Frame,
    type=st.sampled_from(UNKNOWN_TYPES),
    flags=st.integers(0x80, 0xFF),
    channel=_channels,
    id=_ids,
    payload=_payloads,
)
"""Frames of unknown types that a receiver skips."""

_headers = st.builds(
    HEADER.pack,
    st.sampled_from([0, FRAME_SIZE - 1, FRAME_SIZE, FRAME_SIZE + 1, 0xFFFF_FFFF]) | st.integers(0, 500),
    st.sampled_from(FrameType).map(int) | st.integers(0, 255),
    st.sampled_from([0, 1, 2, 4, 0x80]) | st.integers(0, 255),
    _channels,
    _ids,
)
"""Headers with anything in them: most are at fault, many only just."""


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of ``source`` with a few of them changed, removed, repeated or added."""
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from([0, 0, 1, 1, 2, 8])))
        data[start:stop] = draw(st.binary(max_size=4) | st.just(bytes(data[start:stop] * 2)))
    return bytes(data)


_whole_streams = st.lists(frames | skipped_frames, max_size=6).map(encode)
_pieces = frames.map(lambda f: encode([f])) | skipped_frames.map(lambda f: encode([f])) | _headers

streams = st.one_of(
    _whole_streams,
    mutated(_whole_streams),
    st.lists(_pieces | st.binary(max_size=40), max_size=6).map(b"".join),
    st.binary(max_size=100),
)
"""Byte streams: whole frames, broken ones, and noise, cut off anywhere."""


@st.composite
def partitions(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """``data`` in pieces, cut anywhere; pieces may be empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]


# Values.

_offsets = st.timedeltas(datetime.timedelta(hours=-23, minutes=-59), datetime.timedelta(hours=23, minutes=59))
_time_zones = st.one_of(
    st.just(datetime.UTC),
    st.integers(-1439, 1439).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes))),
    _offsets.map(datetime.timezone),
)
# The first and the last year are left out: there, another offset may be out of range.
instants = st.datetimes(
    min_value=datetime.datetime(2, 1, 1),
    max_value=datetime.datetime(9998, 12, 31),
    timezones=_time_zones,
)
text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
keys = text | st.sampled_from(["$segment", "id", "x"])


def _nested(leaves: st.SearchStrategy[Any], key: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(key, inner, max_size=5),
        max_leaves=15,
    )


_cbor_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64 - 1),
    st.floats(),
    text,
    st.binary(max_size=40),
    instants,
    st.dates(),
    st.uuids(),
)
_json_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    text,
)

_msgpack_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    text,
    st.binary(max_size=40),
    instants.map(lambda instant: instant.astimezone(datetime.UTC)),
)

cbor_values = _nested(_cbor_leaves, keys | st.binary(max_size=10))
"""What CBOR gives back exactly as it was."""

json_values = _nested(_json_leaves, keys)
"""What JSON gives back exactly as it was."""

msgpack_values = _nested(_msgpack_leaves, keys | st.binary(max_size=10))
"""What MessagePack gives back exactly as it was."""

_ORDERS: list[Literal["<", ">"]] = ["<", ">"]
DTYPES = [
    np.dtype(order + kind).newbyteorder(order)
    for order in _ORDERS
    for kind in ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")
]

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C order": lambda a: a,
    "Fortran order": np.asfortranarray,
    "transposed": lambda a: a.T,
    "reversed": lambda a: np.flip(a) if a.ndim else a,
    "every second": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    "broadcast": lambda a: np.broadcast_to(a, (3, *a.shape)),
}


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Arrays of every dtype that can be sent, in every layout, empty and without dimensions too."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    if dtype.kind == "b":
        array = np.asarray(random.integers(0, 2, shape)).astype(dtype)
    else:
        size = int(np.prod(shape)) * dtype.itemsize
        array = np.frombuffer(random.bytes(size), dtype).reshape(shape)
    return LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](array)


memoryviews = st.builds(
    lambda data, step: memoryview(data)[::step], st.binary(max_size=40), st.sampled_from([1, 2, -1])
)
segments = arrays() | memoryviews

cbor_values_with_segments = _nested(_cbor_leaves | segments, keys)
json_values_with_segments = _nested(_json_leaves | segments, text)
msgpack_values_with_segments = _nested(_msgpack_leaves | segments, keys)


class Colour(enum.Enum):
    """An enum whose values are text."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """An enum that is a number."""

    LOW = 1
    HIGH = 2**70


class Word(str):
    """Text that shows itself as another."""

    def __str__(self) -> str:
        return "another text"


class Row(list[Any]):
    """A list of a class of its own."""


class Table(dict[Any, Any]):
    """A map of a class of its own."""


class Pair(NamedTuple):
    """A tuple with names."""

    a: Any
    b: Any


@dataclasses.dataclass
class Point:
    """A dataclass; nothing holds its fields to any type."""

    x: Any
    y: Any = 0


@attrs.define
class Reading:
    """A class of attrs."""

    sensor: Any


class Angle(msgspec.Struct, tag_field="kind", tag="angle", rename="camel"):
    """A struct."""

    some_degrees: Any


class Compact(msgspec.Struct, array_like=True):
    """A struct that is a list."""

    first: Any
    second: Any


def _without(value: Any, name: str) -> Any:
    delattr(value, name)
    return value


def _cyclic(kind: Callable[[], Any]) -> Any:
    value = kind()
    if isinstance(value, dict):
        value["again"] = [value]
    else:
        value.append((value,))
    return value


def _deep(levels: int, core: Any) -> Any:
    for level in range(levels):
        core = {"a": core} if level % 3 == 0 else [core]
    return core


def _doubled(levels: int) -> Any:
    """A few lists that stand for very many."""
    core: Any = [1]
    for _ in range(levels):
        core = [core, core]
    return core


async def _coroutine() -> None:
    """It is never run."""


def _unrun() -> Any:
    coroutine = _coroutine()
    coroutine.close()
    return coroutine


def _released() -> memoryview:
    view = memoryview(b"x")
    view.release()
    return view


class _Zone(datetime.tzinfo):
    """A time zone that has nothing to say."""

    def utcoffset(self, _when: datetime.datetime | None) -> None:
        return None

    def dst(self, _when: datetime.datetime | None) -> None:
        return None

    def tzname(self, _when: datetime.datetime | None) -> None:
        return None


_refused = st.sampled_from(
    [
        object,
        lambda: object,
        lambda: len,
        lambda: 1j,
        lambda: np.complex128(1j),
        lambda: np.longdouble(1),
        lambda: np.datetime64("2020-01-01"),
        lambda: np.timedelta64(1, "s"),
        lambda: np.array(["text"]),
        lambda: np.array([object()]),
        lambda: np.array(["2020-01-01"], "M8[D]"),
        lambda: np.zeros(2, [("a", "i4"), ("b", "f8")]),
        lambda: np.zeros(1, [("a", "i4")])[0],
        lambda: np.zeros(2, np.longdouble),
        lambda: np.ma.array([1, 2], mask=[False, True]),
        lambda: np.zeros((1,) * 33),
        lambda: memoryview(cast(Any, np.array([object()]))),
        _released,
        _unrun,
        lambda: (n for n in [1]),
        lambda: iter([1]),
        lambda: range(3),
        {}.keys,
        lambda: decimal.Decimal(1),
        lambda: fractions.Fraction(1, 2),
        lambda: re.compile("x"),
        lambda: ipaddress.ip_address("127.0.0.1"),
        lambda: ipaddress.ip_interface("127.0.0.1/8"),
        lambda: datetime.datetime(2020, 1, 1),
        lambda: datetime.datetime(2020, 1, 1, tzinfo=_Zone()),
        lambda: datetime.timedelta(1),
        lambda: datetime.time(1, tzinfo=datetime.timezone(datetime.timedelta(seconds=1))),
        lambda: "\ud800",
        lambda: Word("\udfff"),
        lambda: 2**64,
        lambda: -(2**70),
        lambda: np.str_("\ud800"),
        lambda: Level.HIGH,
        lambda: ValueError("x"),
        lambda: cbor2.CBORTag(SEGMENT_TAG, 0),
        lambda: cast(Any, cbor2).undefined,
        lambda: msgspec.msgpack.Ext(SEGMENT_CODE, bytes(4)),
        lambda: msgspec.Raw(b"1"),
        lambda: msgspec.UNSET,
        lambda: _without(Point(1), "x"),
        lambda: _without(Reading(1), "sensor"),
        lambda: _without(Angle(1), "some_degrees"),
        lambda: _cyclic(list),
        lambda: _cyclic(dict),
        lambda: _cyclic(Row),
        lambda: _deep(33, 1),
        lambda: _deep(100_000, 1),
    ]
).map(lambda make: make())
"""What no format has."""

_numpy_scalars = st.sampled_from("?bBhHiIlLqQefd").flatmap(
    lambda code: hnp.from_dtype(np.dtype(code), allow_nan=True)
)
_lowered = st.one_of(
    _cbor_leaves,
    _numpy_scalars,
    segments,
    st.times(),
    st.times(timezones=_time_zones),
    st.datetimes(timezones=_time_zones | st.timezones()),
    st.sampled_from(Colour),
    st.just(Level.LOW),
    st.integers(-(2**66), 2**66),
    st.text(max_size=5).map(Word),
    text.map(np.str_),
    st.binary(max_size=5).map(np.bytes_),
    st.binary(max_size=5).map(bytearray),
)
"""What some formats have, and others write as something else or refuse."""

odd_keys = st.one_of(
    keys,
    st.binary(max_size=3),
    st.integers(-2, 2),
    st.sampled_from(
        [None, True, (), 1.5, Colour.RED, "red", "1", Level.LOW, "\ud800", datetime.date(2020, 1, 1)]
    ),
    keys.map(Word),
    keys.map(np.str_),
)


def _around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    rows = st.lists(inner, max_size=4)
    maps = st.dictionaries(odd_keys, inner, max_size=3) | st.dictionaries(keys, inner, max_size=4)
    return st.one_of(
        rows,
        maps,
        rows.map(tuple),
        rows.map(Row),
        maps.map(Table),
        st.frozensets(st.integers(0, 9) | text | st.tuples(text), max_size=3),
        st.sets(st.sampled_from([1, "a", b"b", None, 1.5, Colour.RED]), max_size=3),
        st.builds(Pair, inner, inner),
        st.builds(Point, inner, inner),
        st.builds(Reading, inner),
        st.builds(Angle, inner),
        st.builds(Compact, inner, inner),
        st.integers(1, 12).flatmap(lambda levels: inner.map(lambda core: _deep(levels, core))),
    )


odd_values = st.recursive(_lowered, _around, max_leaves=10) | st.recursive(
    _lowered | _refused, _around, max_leaves=10
)
"""Anything a user might try to send, whether it can be sent or not."""


# Bytes that look like values.


@st.composite
def _cbor_head(draw: st.DrawFn, major: int, count: int) -> bytes:
    """A CBOR head, not always the shortest, and not always true."""
    count = draw(st.sampled_from([count, count, count, min(count + 1, 2**64 - 1), 2**32 - 1, 2**64 - 1]))
    widths = [w for w, most in enumerate((24, 2**8, 2**16, 2**32, 2**64)) if count < most]
    width = draw(st.sampled_from(widths[:1] * 3 + widths))
    if width == 0:
        return bytes([major << 5 | count])
    return bytes([major << 5 | 23 + width]) + struct.pack(">" + " BHIQ"[width], count)


def _cbor_string(major: int, content: bytes) -> st.SearchStrategy[bytes]:
    return _cbor_head(major, len(content)).map(lambda head: head + content)


def _cbor_items(major: int, items: list[bytes], count: int) -> st.SearchStrategy[bytes]:
    body = b"".join(items)
    indefinite = bytes([major << 5 | 31]) + body + b"\xff"
    return _cbor_head(major, count).map(lambda head: head + body) | st.just(indefinite)


_TAGS = [*range(6), 24, 25, 28, 29, 30, 35, 36, 37, 52, 100, 256, 258, 260, 1004, 43000, 55799, SEGMENT_TAG]

_date_like = st.sampled_from(["2020-01-01T00:00:00Z", "2020-01-01", "2020-13-01T00:00:00+99:99", "1", ""])

_cbor_atoms = st.one_of(
    st.integers(0, 2**64 - 1).flatmap(lambda n: _cbor_head(0, n)),
    st.integers(0, 2**64 - 1).flatmap(lambda n: _cbor_head(1, n)),
    st.binary(max_size=17).flatmap(lambda data: _cbor_string(2, data)),
    (st.text(max_size=8) | _date_like).flatmap(
        lambda data: _cbor_string(3, data.encode(errors="surrogatepass"))
    ),
    st.binary(max_size=8).map(lambda data: bytes([0xF8 | len(data) % 8]) + data),
    st.integers(0xE0, 0xFF).map(lambda byte: bytes([byte])),
)

cbor_like = st.recursive(
    _cbor_atoms,
    lambda item: st.one_of(
        st.lists(item, max_size=4).flatmap(lambda items: _cbor_items(4, items, len(items))),
        st.lists(item, max_size=6).flatmap(lambda items: _cbor_items(5, items, len(items) // 2)),
        st.tuples(
            (st.sampled_from(_TAGS) | st.integers(0, 2**64 - 1)).flatmap(lambda tag: _cbor_head(6, tag)), item
        ).map(b"".join),
    ),
    max_leaves=10,
)
"""Items of CBOR of every kind, well-formed and only nearly so."""


def _big_endian(size: int, value: int) -> bytes:
    largest: int = 2 ** (8 * size) - 1
    return min(value, largest).to_bytes(size, "big")


@st.composite
def _msgpack_head(draw: st.DrawFn, short: tuple[int, int], long: list[tuple[int, int]], count: int) -> bytes:
    """A MessagePack head, not always the shortest, and not always true.

    ``short`` is the first of the heads with the count in them and how many there are, ``long`` are the heads
    before a count of so many bytes.
    """
    count = draw(st.sampled_from([count, count, count, count, count + 1, 2**16 - 1, 2**32 - 1]))
    first, counts = short
    if count < counts and draw(st.integers(0, 3)):
        return bytes([first + count])
    head, size = draw(st.sampled_from(long))
    return bytes([head]) + _big_endian(size, count)


_TEXT = (0xA0, 32), [(0xD9, 1), (0xDA, 2), (0xDB, 4)]
_BYTES = (0, 0), [(0xC4, 1), (0xC5, 2), (0xC6, 4)]
_ARRAY = (0x90, 16), [(0xDC, 2), (0xDD, 4)]
_MAP = (0x80, 16), [(0xDE, 2), (0xDF, 4)]
_EXTENSION = (0, 0), [(0xC7, 1), (0xC8, 2), (0xC9, 4)]


def _msgpack_string(kind: tuple[Any, Any], content: bytes, before: bytes = b"") -> st.SearchStrategy[bytes]:
    return _msgpack_head(*kind, len(content)).map(lambda head: head + before + content)


_extension_types = st.sampled_from([0xFF, SEGMENT_CODE, 0, 1, 0x80]).map(lambda code: bytes([code]))

_msgpack_keys = st.one_of(
    st.text(max_size=4).flatmap(lambda data: _msgpack_string(_TEXT, data.encode(errors="surrogatepass"))),
    st.binary(max_size=4).flatmap(lambda data: _msgpack_string(_BYTES, data)),
)

_msgpack_atoms = st.one_of(
    _msgpack_keys,
    st.integers(0, 255).map(lambda head: bytes([head])),
    st.tuples(st.integers(0xCA, 0xD3), st.binary(min_size=8, max_size=8)).map(
        lambda made: bytes([made[0]]) + made[1][: (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)[made[0] - 0xCA]]
    ),
    st.tuples(st.integers(0, 4), _extension_types, st.binary(min_size=16, max_size=16)).map(
        lambda made: bytes([0xD4 + made[0]]) + made[1] + made[2][: 2 ** made[0]]
    ),
    st.tuples(_extension_types, st.binary(max_size=13)).flatmap(
        lambda made: _msgpack_string(_EXTENSION, made[1], made[0])
    ),
)

msgpack_like = st.recursive(
    _msgpack_atoms,
    lambda item: st.one_of(
        st.lists(item, max_size=4).flatmap(
            lambda items: _msgpack_head(*_ARRAY, len(items)).map(lambda head: head + b"".join(items))
        ),
        st.lists(st.tuples(_msgpack_keys | item, item).map(b"".join), max_size=3).flatmap(
            lambda items: _msgpack_head(*_MAP, len(items)).map(lambda head: head + b"".join(items))
        ),
    ),
    max_leaves=10,
)
"""Items of MessagePack of every kind, well-formed and only nearly so."""

json_like = st.recursive(
    st.sampled_from(
        ["0", "-1", "1e999", "NaN", "-Infinity", "null", "true", '"x"', '"\\ud800"', '"', "", "1" * 5000]
    )
    | st.text(alphabet=string.printable, max_size=5),
    lambda item: st.one_of(
        st.lists(item, max_size=4).map(lambda items: f"[{','.join(items)}]"),
        st.lists(st.tuples(st.sampled_from(['"x"', '"$segment"', "1"]), item).map(":".join), max_size=3).map(
            lambda items: f"{{{','.join(items)}}}"
        ),
        st.tuples(st.integers(1, 500), item).map(lambda pair: "[" * pair[0] + pair[1] + "]" * pair[0]),
    ),
    max_leaves=8,
).map(lambda made: made.encode(errors="surrogatepass"))
"""Text that is JSON, or nearly."""
