"""What fits an annotation, and what does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from heartline.errors import SerializationError
from heartline.wire import convert


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
