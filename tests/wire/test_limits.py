"""Limits: every field is checked, and the error names it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from heartline.errors import ConfigurationError
from heartline.wire import Limits

MIB = 1024 * 1024
FIELDS = [field.name for field in dataclasses.fields(Limits)]
SECONDS = ("handshake_timeout", "resume_window")
WHOLE = [name for name in FIELDS if name not in SECONDS]


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "resume_window"])
def test_nothing_is_no_bound(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"Limits.{name} must be a number above 0, not 0"):
        Limits(**{name: 0})


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [-1, None, "8", True, math.nan, -math.inf, [1]])
def test_a_bad_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Limits(**{name: value})
    assert f"Limits.{name} " in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [1.5, 1e6, math.inf])
def test_counts_are_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"Limits.{name} "):
        Limits(**{name: value})


@pytest.mark.parametrize("name", sorted({*WHOLE} - {"frame_size", "message_size"}))
def test_one_is_enough(name: str) -> None:
    assert getattr(Limits(**{name: 1}), name) == 1


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [1, 0.001, math.inf])
def test_seconds_may_be_a_fraction_or_without_end(name: str, value: Any) -> None:
    assert getattr(Limits(**{name: value}), name) == value


def test_a_session_may_end_with_its_link() -> None:
    assert Limits(resume_window=0).resume_window == 0


def test_the_first_byte_of_a_frame_stays_zero() -> None:
    assert Limits(frame_size=16 * MIB - 1).frame_size == 0xFF_FFFF
    with pytest.raises(ConfigurationError, match=r"Limits.frame_size must be below 16 MiB, not 16777216"):
        Limits(frame_size=16 * MIB)


def test_a_message_holds_at_least_one_frame() -> None:
    assert Limits(frame_size=5, message_size=5).message_size == 5
    with pytest.raises(ConfigurationError, match=r"message_size \(4\) must be at least frame_size \(5\)"):
        Limits(frame_size=5, message_size=4)


def test_limits_are_made_once_and_by_name() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().frame_size = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(1)  # type: ignore[call-arg]
    assert Limits() == Limits()
