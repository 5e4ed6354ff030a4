"""Arguments and results: what travels, what it becomes, and how a wrong one is called by its name."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import uuid
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from heartline import Connection, remote, service
from heartline.errors import InvalidArguments, Outcome, RemoteError
from tests.engine import core_of
from tests.rpc.helpers import open_pair, run


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.5


class Shape(msgspec.Struct, frozen=True):
    name: str
    corners: tuple[Point, ...] = ()


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@service
class Echo:
    def anything(self, value: Any) -> Any:
        return value

    def untyped(self, value):  # type: ignore[no-untyped-def]
        return value

    def number(self, value: float) -> float:
        return value

    def point(self, value: Point) -> Point:
        assert type(value) is Point
        return value

    def shape(self, value: Shape) -> Shape:
        assert type(value) is Shape
        assert all(type(corner) is Point for corner in value.corners)
        return value

    def colour(self, value: Colour) -> Colour:
        assert type(value) is Colour
        return value

    def choice(self, value: Literal["a", 1] | None) -> Literal["a", 1] | None:
        return value

    def either(self, value: int | str | list[int]) -> int | str | list[int]:
        return value

    def when(self, value: datetime.datetime) -> datetime.datetime:
        assert type(value) is datetime.datetime
        return value

    def ident(self, value: uuid.UUID) -> uuid.UUID:
        assert type(value) is uuid.UUID
        return value

    def several(self, value: set[int]) -> set[int]:
        assert type(value) is set
        return value

    def pair(self, value: tuple[int, str]) -> tuple[int, str]:
        assert type(value) is tuple
        return value

    def raw(self, value: bytes) -> bytes:
        assert type(value) is bytes
        return value

    def table(self, value: dict[str, list[int]]) -> dict[str, list[int]]:
        return value

    def array(self, value: NDArray[np.float32]) -> NDArray[np.float32]:
        value += 1  # what arrives is ours to change
        return value

    def arrays(self, value: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return value

    def nothing(self) -> None: ...


@service
class Signatures:
    def plain(self, a: int, b: str) -> list[Any]:
        return [a, b]

    def defaults(self, a: int, b: str = "x", *, c: float = 0.5) -> list[Any]:
        return [a, b, c]

    def only_named(self, *, key: int) -> int:
        return key

    def only_placed(self, a: int, /, b: int = 2) -> list[int]:
        return [a, b]

    def rest(self, first: int, *others: int, **named: Point) -> list[Any]:
        return [first, list(others), {key: value.x for key, value in named.items()}]

    def positive(self, n: Annotated[int, msgspec.Meta(ge=1)]) -> int:
        return n

    def none(self) -> int:
        return 0

    def anything(self, **named: Any) -> list[str]:
        return sorted(named)


VALUES: list[tuple[str, Any]] = [
    *(("anything", v) for v in (None, True, -1, 2**63, 1.5, "text", b"bytes", [1, [2]], {"a": {"b": 1}}, [])),
    ("untyped", [1, "a"]),
    ("number", 2.5),
    ("point", Point(1, 2.0)),
    ("shape", Shape("triangle", (Point(0), Point(1), Point(2, 3.5)))),
    ("colour", Colour.BLUE),
    *(("choice", v) for v in ("a", 1, None)),
    *(("either", v) for v in (1, "one", [1])),
    ("when", datetime.datetime(2024, 2, 29, 12, 30, 15, 250000, datetime.UTC)),
    ("ident", uuid.UUID(int=77)),
    ("several", {1, 2, 3}),
    ("pair", (1, "a")),
    ("raw", b"\x00\xff"),
    ("table", {"a": [1], "b": []}),
]


@pytest.mark.parametrize("serializer", ["cbor", "json", "msgpack"])
async def test_values_come_back_as_what_they_were(serializer: str) -> None:
    async with open_pair(Echo(), serializer=serializer) as (client, _):
        echo: Any = client.service(Echo)
        for name, value in VALUES:
            if serializer == "json" and name == "anything" and isinstance(value, bytes):
                continue  # JSON has no bytes: they are text until an annotation says otherwise
            result = await getattr(echo, name)(value)
            assert result == value
            assert type(result) is type(value)
        assert await echo.nothing() is None


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
values = st.recursive(
    scalars | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=values)
def test_any_plain_value_travels(value: Any) -> None:
    async def main() -> None:
        async with open_pair(Echo()) as (client, _):
            echo = client.service("Echo")
            assert await echo.anything(value) == value
            assert await echo.anything(value=value) == value

    run(main)


@pytest.mark.parametrize("shape", [(3, 4), (0,), (), (200, 300)], ids=str)
async def test_arrays_arrive_writable_on_both_sides(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    async with open_pair(Echo()) as (client, _):
        result = await remote(client.service(Echo).array)(array)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, array + 1)
        result += 1
        assert result.flags.writeable
        np.testing.assert_array_equal(array, np.arange(array.size).reshape(shape), "the sender's is its own")
        both = {"a": np.zeros((2, 2), np.int64), "b": np.ones(3)}
        back = await remote(client.service(Echo).arrays)(both)
        np.testing.assert_equal(back, both)


class TestSignatures:
    @pytest.mark.parametrize(
        ("name", "args", "kwargs", "expected"),
        [
            ("plain", (1, "a"), {}, [1, "a"]),
            ("plain", (1,), {"b": "a"}, [1, "a"]),
            ("plain", (), {"b": "a", "a": 1}, [1, "a"]),
            ("defaults", (1,), {}, [1, "x", 0.5]),
            ("defaults", (1, "b"), {}, [1, "b", 0.5]),
            ("defaults", (1,), {"c": 2.5}, [1, "x", 2.5]),
            ("only_named", (), {"key": 5}, 5),
            ("only_placed", (1,), {}, [1, 2]),
            ("only_placed", (1,), {"b": 3}, [1, 3]),
            ("rest", (1,), {}, [1, [], {}]),
            ("rest", (1, 2, 3), {"p": Point(7)}, [1, [2, 3], {"p": 7}]),
            ("none", (), {}, 0),
            ("anything", (), {"args": 1, "kwargs": 2, "name": 3}, ["args", "kwargs", "name"]),
        ],
    )
    async def test_ways_to_call(self, name: str, args: Any, kwargs: Any, expected: Any) -> None:
        async with open_pair(Signatures()) as (client, _):
            assert await getattr(client.service(Signatures), name)(*args, **kwargs) == expected
            assert await getattr(client.service("Signatures"), name)(*args, **kwargs) == expected

    @pytest.mark.parametrize(
        ("name", "args", "kwargs", "message"),
        [
            ("plain", (1,), {}, "missing a required argument: 'b'"),
            ("plain", (), {}, "missing a required argument: 'a'"),
            ("plain", (1, "a", 2), {}, "too many positional arguments"),
            ("plain", (1, "a"), {"c": 1}, "unexpected keyword argument 'c'"),
            ("plain", (1, "a"), {"a": 1}, "multiple values for argument 'a'"),
            ("plain", ("one", "a"), {}, "argument 'a': Expected `int`, got `str`"),
            ("plain", (1, 2), {}, "argument 'b': Expected `str`, got `int`"),
            ("plain", (1,), {"b": 2}, "argument 'b': Expected `str`, got `int`"),
            ("plain", (True, "a"), {}, "argument 'a': Expected `int`, got `bool`"),
            ("plain", (2.5, "a"), {}, "argument 'a': Expected `int`, got `float`"),
            ("defaults", (1, "b", 0.5), {}, "too many positional arguments"),
            ("defaults", (1,), {"c": "x"}, "argument 'c': Expected `float`, got `str`"),
            ("only_named", (5,), {}, "too many positional arguments"),
            ("only_placed", (), {"a": 1}, "'a'"),
            ("rest", (1, 2, "x"), {}, r"argument '\*others': Expected `int`, got `str`"),
            ("rest", (1,), {"p": {"x": "far"}}, r"argument 'p': Expected `int`, got `str` - at `\$\.x`"),
            ("positive", (0,), {}, "argument 'n': Expected `int` >= 1"),
            ("none", (1,), {}, "too many positional arguments"),
            ("none", (), {"self": 1}, "unexpected keyword argument 'self'"),
        ],
    )
    async def test_wrong_arguments_are_named(self, name: str, args: Any, kwargs: Any, message: str) -> None:
        async with open_pair(Signatures()) as (client, _):
            with pytest.raises(InvalidArguments, match=f"Signatures.{name}: .*{message}") as info:
                await getattr(client.service(Signatures), name)(*args, **kwargs)
            assert info.value.outcome is Outcome.COMPLETED
            assert await remote(client.service(Signatures).none)() == 0, "the connection goes on"


class Other:
    """A class that nothing knows how to send."""


@service
class Liar:
    """What it returns is not what it says."""

    def number(self) -> int:
        return "text"  # type: ignore[return-value]

    def point(self) -> Point:
        return {"x": 1, "y": "?"}  # type: ignore[return-value]

    def unsendable(self) -> Any:
        return Other()

    async def unsendable_later(self) -> Any:
        return {"deep": [Other()]}

    def fine(self) -> int:
        return 1


class TestResults:
    async def test_a_typed_proxy_converts_the_result_and_a_dynamic_one_does_not(self) -> None:
        async with open_pair(Echo()) as (client, _):
            assert await remote(client.service(Echo).point)(Point(1)) == Point(1)
            assert await client.service("Echo").point(Point(1)) == {"x": 1, "y": 0.5}
            assert await client.service("Echo").point({"x": 1}) == {"x": 1, "y": 0.5}

    @pytest.mark.parametrize(
        ("name", "message"),
        [("number", "Expected `int`, got `str`"), ("point", r"Expected `float`, got `str` - at `\$\.y`")],
    )
    async def test_a_result_against_its_annotation(self, name: str, message: str) -> None:
        async with open_pair(Liar()) as (client, _):
            with pytest.raises(
                InvalidArguments, match=f"Liar.{name} was executed, but its result .*: {message}"
            ) as info:
                await getattr(client.service(Liar), name)()
            assert info.value.outcome is Outcome.COMPLETED
            await getattr(client.service("Liar"), name)()  # by name nothing is known, so nothing is wrong

    @pytest.mark.parametrize("name", ["unsendable", "unsendable_later"])
    async def test_a_result_that_cannot_be_sent(self, name: str, caplog: pytest.LogCaptureFixture) -> None:
        async with open_pair(Liar()) as (client, _):
            with pytest.raises(RemoteError, match=r"test_values\.Other cannot be sent") as info:
                await getattr(client.service(Liar), name)()
            assert info.value.type_name == "SerializationError"
            assert f"Liar.{name} raised SerializationError" in caplog.text, "its author can see it"
            assert await remote(client.service(Liar).fine)() == 1


async def test_arguments_that_cannot_be_sent() -> None:
    async with open_pair(Echo()) as (client, _):
        with pytest.raises(
            InvalidArguments, match=r"^Echo\.anything was not called: .*\.Other cannot be sent"
        ) as info:
            await client.service(Echo).anything(Other())
        assert info.value.outcome is Outcome.NOT_SENT
        assert core_of(client).idle
        assert await client.service(Echo).anything(1) == 1


async def test_serializers_of_the_two_sides_may_differ() -> None:
    """Each side sends with its own; what arrives says what it is."""

    async def check(client: Connection) -> None:
        assert await remote(client.service(Echo).shape)(Shape("s", (Point(1),))) == Shape("s", (Point(1),))

    async with open_pair(Echo(), serializer="json") as (client, server):
        assert core_of(client).setup.serializer.name == "json"
        assert core_of(server).setup.serializer.name == "cbor"
        await check(client)
