"""An annotation is refused when the service is opened, or every value of it arrives, there and back."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    LiteralString,
    NamedTuple,
    NewType,
    NotRequired,
    TypedDict,
    TypeVar,
    Union,
)

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from heartline import ConfigurationError, InvalidArguments, SerializationError, remote, service
from heartline.rpc._methods import MethodSpec, describe
from heartline.wire import convert, decode_body, decode_value, encode_body, encode_value, get_serializer
from tests.few_examples import few_examples
from tests.rpc.helpers import open_pair

T = TypeVar("T")


class Plain:
    pass


class Text(str):
    pass


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    YES = "yes"
    NO = "no"


class Pairs(enum.Enum):
    A = (1, 2)


class Flags(enum.Flag):
    A = 1
    B = 2


class IntFlags(enum.IntFlag):
    A = 1
    B = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.5


@dataclasses.dataclass
class Tree:
    value: int
    children: list[Tree] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Holder:
    name: str
    held: Plain


class Shape(msgspec.Struct, frozen=True, tag=True):
    corners: tuple[Point, ...] = ()


class Row(msgspec.Struct, array_like=True, frozen=True):
    a: int
    b: str = ""


class Nested(NamedTuple):
    inside: frozenset[Nested]


class Named(NamedTuple):
    a: int
    b: str = "b"


class Options(TypedDict):
    a: int
    b: NotRequired[str]


class Unresolvable(TypedDict):
    a: Missing  # type: ignore[name-defined]  # noqa: F821


Number = NewType("Number", int)

Kind = tuple[Any, st.SearchStrategy[Any]]
"""An annotation, and its values."""

integers = st.integers(-(2**63), 2**63 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
points = st.builds(Point, integers, finite)
trees = st.recursive(
    st.builds(Tree, integers),
    lambda inner: st.builds(Tree, integers, st.lists(inner, max_size=2)),
    max_leaves=4,
)
offsets = st.integers(-12, 12).map(lambda hours: datetime.timezone(datetime.timedelta(hours=hours)))


def numpy_scalars(cls: Any) -> Kind:
    if issubclass(cls, np.bool_):
        return cls, st.booleans().map(cls)
    if issubclass(cls, np.integer):
        return cls, st.integers(int(np.iinfo(cls).min), int(np.iinfo(cls).max)).map(cls)
    width: Any = np.dtype(cls).itemsize * 8
    return cls, st.floats(width=width, allow_nan=False, allow_infinity=False).map(cls)


LEAVES: list[Kind] = [
    (None, st.none()),
    (bool, st.booleans()),
    (int, integers),
    (float, finite),
    (str, st.text()),
    (bytes, st.binary()),
    (bytearray, st.binary().map(bytearray)),
    (datetime.datetime, st.datetimes(timezones=offsets)),
    (datetime.date, st.dates()),
    (datetime.time, st.times()),
    (datetime.timedelta, st.timedeltas()),
    (uuid.UUID, st.uuids()),
    (decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (complex, st.complex_numbers(allow_nan=False, allow_infinity=False)),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Word, st.sampled_from(Word)),
    (Pairs, st.sampled_from(Pairs)),
    (Flags, st.sampled_from([Flags.A, Flags.A | Flags.B])),
    (IntFlags, st.sampled_from([IntFlags.A, IntFlags.A | IntFlags.B])),
    (Literal["a", 1, None], st.sampled_from(["a", 1, None])),
    (Point, points),
    (Tree, trees),
    (Shape, st.builds(Shape, st.lists(points, max_size=2).map(tuple))),
    (Row, st.builds(Row, integers, st.text())),
    (Named, st.builds(Named, integers, st.text())),
    (Options, st.fixed_dictionaries({"a": integers}, optional={"b": st.text()})),
    (Number, integers),
    (Plain, st.builds(Plain)),
    (Text, st.text().map(Text)),
    (pathlib.Path, st.just(pathlib.Path("a"))),
    *(
        numpy_scalars(np.dtype(code).type)
        for code in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
    ),
]


def of(generic: Any, *parts: Any) -> Any:
    """``generic[parts]``, with parts that a type checker does not know."""
    return generic[parts]


def several(inner: Kind) -> st.SearchStrategy[Kind]:
    hint, values = inner
    lists = st.lists(values, max_size=3)
    sets = lists.filter(hashable)
    maps = st.dictionaries(st.text(), values, max_size=3)
    made: list[Kind] = [
        (of(list, hint), lists),
        (of(Sequence, hint), lists),
        (of(tuple, hint, ...), lists.map(tuple)),
        (of(set, hint), sets.map(set)),
        (of(frozenset, hint), sets.map(frozenset)),
        (of(dict, str, hint), maps),
        (of(Mapping, str, hint), maps),
        (of(collections.deque, hint), lists.map(collections.deque)),
    ]
    return st.sampled_from(made)


def hashable(values: list[Any]) -> bool:
    try:
        return bool(set(values)) or True
    except TypeError:
        return False


def keyed(key: Kind, inner: Kind) -> Kind:
    return of(dict, key[0], inner[0]), st.dictionaries(key[1], inner[1], max_size=3)


def either(one: Kind, other: Kind) -> Kind:
    return of(Union, one[0], other[0]), one[1] | other[1]


def pair(one: Kind, other: Kind) -> Kind:
    return of(tuple, one[0], other[0]), st.tuples(one[1], other[1])


def field(one: Kind) -> Kind:
    cls = dataclasses.make_dataclass("Made", [("field", one[0])])
    return cls, one[1].map(cls)


keys = st.sampled_from([leaf for leaf in LEAVES if leaf[0] not in (bytearray, Options, Tree)])
kinds: st.SearchStrategy[Kind] = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: (
        inner.flatmap(several)
        | st.builds(keyed, keys, inner)
        | st.builds(either, inner, inner)
        | st.builds(pair, inner, inner)
        | st.builds(field, inner)
    ),
    max_leaves=4,
)


def echo_of(hint: Any) -> MethodSpec:
    def echo(self: Any, value: Any) -> Any: ...

    echo.__annotations__ = {"value": hint, "return": hint}
    return describe(service(type("Odd", (), {"echo": echo})))["echo"]


def through(name: str, spec: MethodSpec, value: Any) -> Any:
    """A value on its way through a call: to the callee as an argument, and back as the result."""
    serializer = get_serializer(name)
    payload, flags = encode_body(serializer, [value])
    (there,), _ = spec.arguments(decode_body(serializer.content_id, payload, flags, spec.positional), {})
    assert same(there, value)
    payload, flags = encode_value(serializer, there)
    return convert(decode_value(payload, flags, spec.returns), spec.returns)


def same(one: Any, other: Any) -> bool:
    return bool(one == other) and (type(one) is type(other) or isinstance(other, (int, list, dict)))


@given(kind=kinds, data=st.data())
def test_refused_or_every_value_survives(kind: Kind, data: st.DataObject) -> None:
    refused_or_survives(kind, data)


@few_examples
@given(data=st.data())
@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: str(kind[0]))
def test_of_each_that_others_are_made_of(kind: Kind, data: st.DataObject) -> None:
    refused_or_survives(kind, data)


def refused_or_survives(kind: Kind, data: st.DataObject) -> None:
    hint, values = kind
    try:
        spec = echo_of(hint)
    except ConfigurationError:
        return
    value = data.draw(values)
    for name in ("cbor", "json", "msgpack"):
        assert same(through(name, spec, value), value), name


SENT_BY_NO_ONE = (
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    complex,
    Pairs,
    Plain,
    Text,
    pathlib.Path,
)
ACCEPTED: list[Any] = [
    *(leaf[0] for leaf in LEAVES if leaf[0] not in SENT_BY_NO_ONE),
    *(
        dict,
        dict[str, int],
        dict[Any, Any],
        dict[Literal["a", "b"], int],
        dict[Word, int],
        Mapping[str, Point],
    ),
    *(set, set[Point], frozenset[frozenset[int]], set[tuple[int, str]]),
    *(tuple, list[Any], Tree, object, T),
    *(np.ndarray, NDArray[np.float32], NDArray[Any] | None, list[np.ndarray[Any, Any]], memoryview),
    *(np.float32 | None, list[np.int8], int | str | None, list[int] | dict[str, int] | None, Flags),
    Annotated[int, msgspec.Meta(ge=1)],
]


@pytest.mark.parametrize("hint", ACCEPTED, ids=str)
def test_what_is_let_in(hint: Any) -> None:
    assert echo_of(hint).annotations.keys() == {"value"}


REFUSED: list[tuple[Any, str]] = [
    *((hint, "choose the hashes .*; make that set a list") for hint in (Nested, set[Nested])),
    (dict[int, str], r"the keys of a map that is sent are text: dict\[str, \.\.\.\]"),
    (dict[uuid.UUID, int], "the keys of a map that is sent are text"),
    (dict[tuple[int, int], int], "the keys of a map that is sent are text"),
    (dict[Colour, int], "the keys of a map that is sent are text"),
    (dict[str, dict[int, str]], "the keys of a map that is sent are text"),
    (collections.Counter[str], "no registered serializer reads a collections.Counter"),
    (
        Callable[[int], int],
        r"no registered serializer reads a collections\.abc\.Callable; make it a dataclass",
    ),
    (Plain, r"no registered serializer reads a tests\.rpc\.test_annotations\.Plain; make it a dataclass"),
    (Plain | None, "no registered serializer reads a .*Plain"),
    (list[Plain], "no registered serializer reads a .*Plain"),
    (Holder, "no registered serializer reads a .*Plain"),
    (type[int], r"no registered serializer reads a builtins\.type"),
    (Iterator[int], "no registered serializer reads a .*Iterator"),
    (Iterable[int], "no registered serializer reads a .*Iterable"),
    (np.floating, r"no registered serializer reads a numpy\.floating"),
    (np.longdouble, r"no registered serializer reads a numpy\.longdouble"),
    (np.complex64, r"no registered serializer reads a numpy\.complex64"),
    (np.datetime64, r"no registered serializer reads a numpy\.datetime64"),
    (set[list[int]], "what is in a set must be hashable"),
    (set[Tree], "what is in a set must be hashable"),
    (set[np.ndarray], "what is in a set must be hashable"),
    (frozenset[tuple[int, dict[str, int]]], "what is in a set must be hashable"),
    (decimal.Decimal, "not every serializer sends a Decimal; send text"),
    (datetime.time, "not every serializer sends a Time; send text"),
    (datetime.timedelta, "not every serializer sends a TimeDelta; send text"),
    (msgspec.Raw, "not every serializer sends a Raw"),
    (Point | Tree, "may not contain more than one"),
    (bytes | str, "may not contain more than one"),
    (np.float32 | int, "custom type may not contain any additional types"),
    (Unresolvable, "Missing"),
    (LiteralString, "not supported"),
    (Pairs, "must contain either all str or all int values"),
    (3, "not supported"),
]


@pytest.mark.parametrize(("hint", "message"), REFUSED, ids=str)
def test_what_is_refused_and_why(hint: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^Odd.echo: .*{message}.*annotate it with Any") as info:
        echo_of(hint)
    assert len(str(info.value)) < 1000


@pytest.mark.parametrize(
    ("cls", "value"),
    [
        *((np.int8, value) for value in (128, -129, 10**30, 1.0, True, "1", None)),
        *((np.uint64, value) for value in (-1, 2**64)),
        *((np.float32, value) for value in (1e39, 10**400, "1", False)),
        *((np.float64, value) for value in (10**400, "1")),
        *((np.bool_, value) for value in (1, "true")),
    ],
)
async def test_what_is_no_such_numpy_scalar(cls: Any, value: Any) -> None:
    """Numbers that wrap around or become infinite would be taken for what the caller meant."""
    with pytest.raises(SerializationError, match=f"Expected `{cls.__name__}`"):
        convert(value, cls)


@service
class Model:
    def step(self, rate: np.float32, count: np.int64) -> np.float32:
        assert type(rate) is np.float32
        assert type(count) is np.int64
        return rate * np.float32(count)


@pytest.mark.parametrize("serializer", ["cbor", "json", "msgpack"])
async def test_numpy_scalars_are_made_of_numbers(serializer: str) -> None:
    async with open_pair(Model(), serializer=serializer) as (client, _):
        for rate, count in ((0.5, 3), (np.float32(0.5), np.int64(3))):
            step: Any = remote(client.service(Model).step)
            result = await step(rate, count)
            assert result == 1.5
            assert type(result) is np.float32
        assert await client.service("Model").step(0.5, 3) == 1.5
        with pytest.raises(InvalidArguments, match="argument 'count': Expected `int64`, got `float`"):
            await client.service("Model").step(0.5, 3.5)
