"""What fits an annotation, and what does not."""

from __future__ import annotations

import dataclasses
import itertools
import uuid
from typing import Any

import numpy as np
import pytest

from heartline.errors import SerializationError
from heartline.wire import convert
from heartline.wire.serializers.annotations import check_target


class Opaque:
    pass


@dataclasses.dataclass
class Strict:
    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise KeyError("x")


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ([[1]], set),
        ([{}], frozenset[Any]),
        ({"x": -1}, Strict),
        ("x", Opaque),
        ("x", np.ndarray),
        ([1], np.typing.NDArray[np.float32]),
        (3, type[int]),
        (3, "no annotation"),
    ],
)
def test_what_does_not_fit_is_a_serialization_error(value: Any, target: Any) -> None:
    with pytest.raises(SerializationError):
        convert(value, target)


def test_an_array_fits_its_annotation() -> None:
    array = np.arange(3, dtype="f4")
    for target in (Any, np.ndarray, np.typing.NDArray[np.float32], np.ndarray | None):
        assert convert(array, target) is array
    assert convert({"w": [array]}, dict[str, list[np.typing.NDArray[np.float32]]])["w"][0] is array


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int


@dataclasses.dataclass
class Cloud:
    points: set[Point]


PRIME = 2**61 - 1
"""Python's hash of a number is what is left of it by this one."""
MASK = 2**64 - 1


def _rotated(number: int, bits: int) -> int:
    return (number << bits | number >> 64 - bits) & MASK


def _pair_of_hash(first: int) -> tuple[int, int] | None:
    """A pair of numbers whose hash is the same for every ``first``: the hash of tuples, undone."""
    factor, step = 11400714785074694791, 14029467366897019727
    after_first = _rotated((2870177450012600261 + first * step) & MASK, 31) * factor & MASK
    second = (_rotated(12345 * pow(factor, -1, 2**64) & MASK, 33) - after_first) * pow(step, -1, 2**64)
    second = (second & MASK) - (2**64 if second & 2**63 else 0)
    return (first, second) if abs(second) < PRIME and second != -1 else None


COUNT = 40_000
_pairs = filter(None, map(_pair_of_hash, itertools.count(1)))
PAIRS = list(itertools.islice(_pairs, COUNT))
IDS = [uuid.UUID(int=number * PRIME) for number in range(COUNT)]


@pytest.mark.parametrize(
    ("value", "target"),
    [
        (PAIRS, set[tuple[int, int]]),
        ({"a": [PAIRS]}, dict[str, list[frozenset[tuple[int, ...]]] | None]),
        ([{"y": y, "x": x} for x, y in PAIRS], set[Point]),
        ([str(one) for one in IDS], frozenset[uuid.UUID]),
        (IDS, set),
        (IDS, set[Any] | None),
        ([IDS, []], tuple[set[object], ...]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_hashes_that_a_peer_has_chosen_are_noticed(value: Any, target: Any) -> None:
    """Without that the set takes minutes: each item is compared with all before it."""
    with pytest.raises(SerializationError, match=f"{COUNT} items of a set have the same hash, and 8 are"):
        convert(value, check_target(target))


@pytest.mark.parametrize(
    "target", [set[int], set[str], frozenset[tuple[str, int]], set[Any], set[Point], set[frozenset[int]], set]
)
def test_honest_sets_are_what_they_were(target: Any) -> None:
    makes = {set[Point]: lambda n: {"x": n, "y": -n}, set[frozenset[int]]: lambda n: [n, n + 1]}
    makes |= {set[str]: str, frozenset[tuple[str, int]]: lambda n: [str(n), n]}
    items = list(map(makes.get(target, int), range(10_000)))
    assert convert(items, check_target(target)) == convert(items, target)


@pytest.mark.parametrize("target", [Cloud, list[Cloud], set[tuple[Cloud, int]] | None, set[Point] | str])
def test_a_set_that_cannot_be_watched_is_refused(target: Any) -> None:
    with pytest.raises(TypeError, match=r"make that set a list|custom type|hashable"):
        check_target(target)
